"""A listening socket: accepts clients, and rests when the machine has no descriptor left for one.

The kernel's queue of those who wait to be accepted is first come, first served, for all users alike. Whoever connects
and leaves at once, again and again, can fill it with connections behind which everybody else waits. So while most of
those in the queue have left already, it is made short: then the one who fills it waits for a place as others do.
"""

import asyncio
import contextlib
import errno
import logging
import socket
from _socket import socket as plain_socket
from typing import Final, Protocol

from d7agent.agent.turns import TURN
from d7agent.core.clock import boot_time

SO_PASSRIGHTS: Final = 83  # asm-generic/socket.h, since kernel 6.16; Python has no name for it
SIGNS: Final = 64  # clients in a row, more or less, that had left before their turn: a flood of such
SHORT: Final = 32  # the queue in a flood: a millisecond's work
CALM: Final = 0.25  # seconds between two looks whether the flood goes on: who cannot wait is turned away meanwhile
REST: Final = 1.0  # seconds without accepting when there is no descriptor or memory for another client
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

log = logging.getLogger("d7agent.agent.listener")


class Accepted(Protocol):
    """Where new clients go."""

    def __call__(self, client: plain_socket, /, *, crowded: bool) -> bool:
        """A client's socket; `crowded`: more have come than a turn has time for. Whether the client is still there."""


class Listener:
    """Calls `accepted` for each new client. The socket's file is left alone: it may be systemd's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, backlog: int, accepted: Accepted) -> None:
        self._loop = loop
        self._sock = sock
        self._backlog = backlog
        self._accepted = accepted
        self._resting: asyncio.TimerHandle | None = None
        self._crowded = False
        self._leavers = 0  # counts up for a client that had left, down for one that had not; SIGNS at most
        self._calming: asyncio.TimerHandle | None = None  # while the queue is short
        sock.listen(backlog)
        sock.setblocking(False)
        refuse_descriptors(sock)
        self._listen()

    def close(self) -> None:
        """Accept nobody any more."""
        if self._resting is not None:
            self._resting.cancel()
        elif self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
        if self._calming is not None:
            self._calming.cancel()
            with contextlib.suppress(OSError):
                self._sock.listen(self._backlog)  # those who come now wait for the next agent
        self._sock.close()

    def _listen(self) -> None:
        self._resting = None
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def _accept(self) -> None:
        until = boot_time() + TURN
        while self._accept_one():
            if boot_time() > until:
                self._crowded = True
                return
        self._crowded = False

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
        if self._accepted(plain_socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, number), crowded=self._crowded):
            self._leavers -= self._leavers > 0
        elif self._leavers < SIGNS:
            self._leavers += 1
        elif self._crowded and self._calming is None:
            self._shorten()
        return True

    def _shorten(self) -> None:
        self._sock.listen(SHORT)  # again, with another length: listen(2) may be called at any time
        self._leavers = 0
        self._calming = self._loop.call_later(CALM, self._calm)

    def _calm(self) -> None:
        """The flood goes on if it gave signs again meanwhile; who is served in between does not end it."""
        self._calming = None
        if self._leavers >= SIGNS // 2:
            self._shorten()
        else:
            self._sock.listen(self._backlog)

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
