"""Who is at the other end of a socket: what the kernel says about a peer (unix(7), socket(7)).

uid, gid and pid are those of the process that connected, at that moment; they cannot be forged. What /proc says about
the pid is believed only if a pidfd of the peer, taken before, shows the process alive after: pids are used again.
"""

import errno
import os
import select
import socket
import struct
from _socket import socket as plain_socket
from pathlib import Path
from typing import Final, Protocol, overload

from msgspec import Struct

SO_PEERGROUPS: Final = 59  # asm-generic/socket.h; Python has no names for these two
SO_PEERPIDFD: Final = 77  # since kernel 6.5
MOST_GROUPS: Final = 256  # as many as Python's getsockopt (1,024 bytes) can fetch; a peer with more has none here
UCRED: Final = struct.Struct("iII")
SYSTEM_SLICE: Final = "/system.slice/"


class Socket(Protocol):
    """As much of a socket as asyncio's transports give: their get_extra_info("socket")."""

    def fileno(self) -> int:
        """The descriptor, -1 once closed."""

    @overload
    def getsockopt(self, level: int, optname: int, /) -> int: ...

    @overload
    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


class Process(Struct, frozen=True):
    """A peer's process: its cgroup path and its executable, None where they cannot be known."""

    cgroup: str | None = None
    exe: str | None = None
    proved: bool = False  # the pid was the peer's while /proc was read

    @property
    def system_unit(self) -> str | None:
        """NAME.service when the process is directly in /system.slice/NAME.service, which only root can arrange."""
        if not self.proved or self.cgroup is None or not self.cgroup.startswith(SYSTEM_SLICE):
            return None
        name = self.cgroup.removeprefix(SYSTEM_SLICE)
        return name if name.endswith(".service") and "/" not in name else None

    @property
    def unit(self) -> str | None:
        """For people: the system unit, or `user/NAME.service` for a service of any other slice."""
        if self.system_unit or self.cgroup is None:
            return self.system_unit
        name = self.cgroup.rpartition("/")[2]
        return f"user/{name}" if name.endswith(".service") else None


class Peer(Struct, eq=False):
    """One peer of a connection. Groups and process are read when first asked for, and kept."""

    uid: int
    gid: int
    pid: int
    _sock: Socket | None = None
    _groups: frozenset[int] | None = None
    _process: Process | None = None
    note: object = None  # the handler's own, for as long as the peer is connected

    def __repr__(self) -> str:
        return f"Peer(uid={self.uid}, gid={self.gid}, pid={self.pid})"

    @property
    def groups(self) -> frozenset[int]:
        """The gid and the supplementary groups."""
        if self._groups is None:
            self._groups = frozenset((self.gid, *self._supplementary()))
        return self._groups

    @property
    def process(self) -> Process:
        """The process behind the peer, as it was when this was first asked."""
        if self._process is None:
            self._process = self._look()
        return self._process

    def _pidfd(self) -> int:
        if self._sock is None:
            raise OSError(errno.EBADF, "the connection is gone")
        try:
            return self._sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
        except ValueError as error:  # uvloop's, of a socket that is closed
            raise OSError(errno.EBADF, "the connection is gone") from error

    def _supplementary(self) -> tuple[int, ...]:
        if self._sock is None:
            return ()
        try:
            raw = self._sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * MOST_GROUPS)
        except (OSError, ValueError):
            return ()
        return tuple(memoryview(raw).cast("I"))

    def _look(self) -> Process:
        if self.pid <= 0:  # of another pid namespace, invisible from here
            return Process()
        try:
            pidfd = self._pidfd()
        except OSError as error:
            # An old kernel: good enough to be shown. Any other error: the process or the connection is gone.
            return Process(_cgroup(self.pid), _exe(self.pid)) if error.errno == errno.ENOPROTOOPT else Process()
        try:
            process = Process(_cgroup(self.pid), _exe(self.pid), proved=True)
            return process if is_alive(pidfd) else Process()
        finally:
            os.close(pidfd)


def credentials(sock: plain_socket) -> tuple[int, int, int]:
    """uid, gid and pid of the peer of a connected socket (struct ucred in unix(7))."""
    pid, uid, gid = UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    return uid, gid, pid


def pidfd_supported() -> bool:
    """Whether this kernel has SO_PEERPIDFD, without which `units` under [access] admits nobody."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            os.close(ours.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD))
        except OSError:
            return False
        return True


def is_alive(pidfd: int) -> bool:
    """Whether the process of `pidfd` has not ended: its descriptor turns readable at the end (pidfd_open(2))."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return not poll.poll(0)


def has_hung_up(number: int) -> bool:
    """Whether the peer of socket descriptor `number` has closed it for good, and not just its sending side."""
    if number < 0:
        return True
    poll = select.poll()
    poll.register(number, 0)  # POLLHUP is told unasked
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def local_name(uid: int) -> str | None:
    """The user's name in /etc/passwd. Not through NSS, which may ask the network and keep everybody waiting."""
    try:
        lines = Path("/etc/passwd").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    fields = (line.split(":") for line in lines)
    return next((field[0] for field in fields if len(field) > 2 and field[2] == str(uid)), None)


def _cgroup(pid: int) -> str | None:
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)


def _exe(pid: int) -> str | None:
    try:
        # A path need not be UTF-8; what is shown of it has to be.
        return os.fsencode(os.readlink(f"/proc/{pid}/exe")).decode(errors="backslashreplace")
    except OSError:
        return None
