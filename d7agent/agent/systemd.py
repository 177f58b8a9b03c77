"""What systemd and the agent say to each other: sd_notify(3) and passed sockets, sd_listen_fds(3)."""

import contextlib
import logging
import os
import socket
from collections.abc import MutableMapping
from typing import Final

log = logging.getLogger(__name__)

FIRST_FD: Final = 3  # SD_LISTEN_FDS_START
_LISTEN: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
# FileDescriptorName= of our units, and what a socket is called whose unit names none (its own name; "unknown").
OUR_NAMES: Final = frozenset({"agent", "d7agent.socket", "unknown"})


class Notifier:
    """Sends state lines to $NOTIFY_SOCKET, which it takes out of the environment; silent where there is none."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        path = environment.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self.watchdog = _watchdog(environment)

    @property
    def active(self) -> bool:
        """Whether a service manager listens."""
        return bool(self._address)

    def send(self, *lines: str) -> None:
        """Send lines such as READY=1; a manager that cannot be reached is not worth dying for."""
        if not self._address:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
        ):
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode(), self._address)


def _watchdog(environment: MutableMapping[str, str]) -> float | None:
    """Seconds between two WATCHDOG=1 that the manager expects at most (sd_watchdog_enabled(3)), or None."""
    usec, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
    if not usec.isdigit() or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1e6


def passed_sockets(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """The listening Unix stream sockets passed to this process; the variables are taken out of the environment.

    Descriptors of another name or kind are closed with a warning. Sockets passed to another pid are not ours.
    """
    pid, count, text = (environment.pop(name, "") for name in _LISTEN)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    names = [*(text.split(":") if text else []), *["unknown"] * int(count)]
    passed = zip(range(FIRST_FD, FIRST_FD + int(count)), names, strict=False)
    return [sock for fd, name in passed if (sock := _adopted(fd, name)) is not None]


def _adopted(fd: int, name: str) -> socket.socket | None:
    try:
        if name not in OUR_NAMES:
            log.warning("the passed descriptor %d is called %r, not 'agent': closed", fd, name)
            os.close(fd)
            return None
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        if sock.family == socket.AF_UNIX and sock.type == socket.SOCK_STREAM and _listens(sock):
            sock.setblocking(False)
            return sock
    except OSError as error:
        log.warning("the passed descriptor %d is of no use: %s", fd, error)
        return None
    log.warning("the passed descriptor %d is no listening Unix socket: closed", fd)
    sock.close()
    return None


def _listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
