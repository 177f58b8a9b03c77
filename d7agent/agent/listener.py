"""A listening socket: accepts a client, and rests when the machine has no descriptor left for one."""

import asyncio
import errno
import logging
import socket
from _socket import socket as plain_socket
from collections.abc import Callable
from typing import Final

from d7agent.core.clock import boot_time

REST: Final = 1.0  # seconds without accepting when there is no descriptor or memory for another client
TURN: Final = 0.0005  # seconds of a turn for newcomers: enough for ten, and nobody else notices
BURST: Final = 64  # clients that are gone already, taken off the queue in one turn: some 0.3 ms
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

log = logging.getLogger("d7agent.agent.listener")


class Listener:
    """Calls `accepted` with the socket of each new client, one in a turn of the loop.

    Unless it answers False, for a client that has left already: a program that connects and connects fills the queue
    with those, and who waits behind them is to wait for little. The socket's file is left alone: it may be systemd's.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, accepted: Callable[[plain_socket], bool]
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._accepted = accepted
        self._resting: asyncio.TimerHandle | None = None
        sock.setblocking(False)
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
        for _ in range(BURST):
            if self._accept_one() or boot_time() > until:
                return

    def _accept_one(self) -> bool:
        """Whether that is enough for this turn."""
        try:
            # Not accept(): that makes a socket.socket, whose two enumerations alone take longer than the system call.
            number, _ = self._sock._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno in EXHAUSTED:
                self._rest(error)
            return True
        self._accepted(plain_socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, number))
        return False

    def _rest(self, error: OSError) -> None:
        log.warning("cannot accept a connection, trying again in %g s: %s", REST, error.strerror)
        self._loop.remove_reader(self._sock.fileno())
        self._resting = self._loop.call_later(REST, self._listen)
