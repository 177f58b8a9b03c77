"""A listening socket: accepts a client, and rests when the machine has no descriptor left for one."""

import asyncio
import contextlib
import errno
import logging
import socket
from _socket import socket as plain_socket
from collections.abc import Callable
from typing import Final

from d7agent.agent.turns import TURN
from d7agent.core.clock import boot_time

SO_PASSRIGHTS: Final = 83  # asm-generic/socket.h, since kernel 6.16; Python has no name for it
REST: Final = 1.0  # seconds without accepting when there is no descriptor or memory for another client
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

log = logging.getLogger("d7agent.agent.listener")


class Listener:
    """Calls `accepted` with the socket of each new client. The socket's file is left alone: it may be systemd's."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, accepted: Callable[[plain_socket], object]
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._accepted = accepted
        self._resting: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        refuse_descriptors(sock)
        self._listen()

    def close(self) -> None:
        """Accept nobody any more."""
        if self._resting is not None:
            self._resting.cancel()
        elif self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
        self._sock.close()

    def _listen(self) -> None:
        self._resting = None
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def _accept(self) -> None:
        until = boot_time() + TURN
        while self._accept_one() and boot_time() < until:
            pass

    def _accept_one(self) -> bool:
        """Whether there was one."""
        try:
            # Not accept(): that makes a socket.socket, whose two enumerations alone take longer than the system call.
            number, _ = self._sock._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in EXHAUSTED:
                self._rest(error)
            return False
        self._accepted(plain_socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, number))
        return True

    def _rest(self, error: OSError) -> None:
        log.warning("cannot accept a connection, trying again in %g s: %s", REST, error.strerror)
        self._loop.remove_reader(self._sock.fileno())
        self._resting = self._loop.call_later(REST, self._listen)


def refuse_descriptors(sock: socket.socket) -> None:
    """Let nobody pass descriptors (SCM_RIGHTS, unix(7)) to those who are accepted from now on: the sender gets EPERM.

    Before kernel 6.16 they arrive, and are closed unseen by a recv that has no room for them, which takes its time.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
