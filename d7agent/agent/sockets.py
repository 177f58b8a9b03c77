"""The agent's own listening socket: in a folder that is ours, its mode right from the start, one agent at a time."""

import contextlib
import errno
import fcntl
import os
import socket
import stat

from d7agent.agent.atomic import make_folder
from d7agent.core.errors import ConfigError
from d7agent.core.paths import checked_socket


class AgentRunning(ConfigError):
    """Another agent serves this socket."""


class BoundSocket:
    """A bound socket that nobody listens on yet, and the lock that keeps a second agent away."""

    def __init__(self, sock: socket.socket, path: str, lock: int) -> None:
        self.sock = sock
        self.path = path
        self._lock = lock
        self._id = _identity(path)

    def close(self) -> None:
        """Unlink the path if it is still ours, close, and let the next agent in. More than once does no harm."""
        if self._lock < 0:
            return
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._id:
                os.unlink(self.path)
        self.sock.close()
        os.close(self._lock)
        self._lock = -1


def bind_socket(path: str, mode: int, folder_mode: int) -> BoundSocket:
    """Bind a Unix stream socket at `path` with exactly `mode`, whatever the umask; missing folders get `folder_mode`.

    What a dead agent left is removed. The lock file beside it (`agent.lock`) stays, so that taking it is free of races.
    Raises AgentRunning if something answers there, else ConfigError with what is in the way.
    """
    path = os.path.abspath(checked_socket(path))
    checked_socket(path)
    try:
        make_folder(os.path.dirname(path), folder_mode)
        _check_folder(os.path.dirname(path))
        lock = _take_lock(path)
    except OSError as error:
        raise ConfigError(f"{path}: the socket cannot be made: {error.strerror}") from None
    try:
        _clear(path)
        return BoundSocket(_bind(path, mode), path, lock)
    except BaseException as error:
        os.close(lock)
        if isinstance(error, OSError):
            raise ConfigError(f"{path}: the socket cannot be made: {error.strerror}") from None
        raise


def _check_folder(folder: str) -> None:
    """Whoever can write the folder could put another socket in place of ours and be told secrets."""
    found = os.stat(folder)
    if found.st_uid != os.geteuid():
        raise ConfigError(f"{folder}: belongs to uid {found.st_uid}, not to us: use a folder of your own")
    if found.st_mode & 0o022:
        raise ConfigError(f"{folder}: others can write it: chmod go-w {folder}")


def _take_lock(path: str) -> int:
    """An flock(2) that the kernel lets go when this process ends, however it ends."""
    name = os.path.splitext(path)[0] + ".lock"
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(fd, 0o600)  # a umask must not keep our next start out
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            raise AgentRunning(f"an agent already runs at {path}") from None
        raise
    return fd


def _clear(path: str) -> None:
    """Remove a dead agent's socket; anything else at the path is refused."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "not a socket"
        raise ConfigError(f"{path}: is {what}: remove it or choose another path with --socket")
    if found.st_uid != os.geteuid():
        raise ConfigError(f"{path}: belongs to uid {found.st_uid}, not to us: remove it or choose another path")
    if _answers(path):
        raise AgentRunning(f"an agent already runs at {path}")
    os.unlink(path)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)  # connects at once, or is told that the backlog is full
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError as error:
            if error.errno == errno.EPROTOTYPE:  # another kind of socket: not ours to remove
                raise
        return True


def _bind(path: str, mode: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        before = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        os.chmod(path, mode)
    except BaseException:
        sock.close()
        raise
    return sock


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino
