"""An agent as a process of its own: started in the background, waited for, its log kept."""

import contextlib
import os
import re
import select
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Final, NoReturn, Self

from d7agent.cli.output import Failure
from d7agent.client.blocking import Agent, NoAgent
from d7agent.core.clock import boot_time
from d7agent.core.errors import ConfigError
from d7agent.core.paths import Paths, user_paths

START_LIMIT: Final = 15.0  # seconds until a started agent answers; it takes a fraction of one on an idle machine
LOOK: Final = 0.02  # seconds between two tries to reach it
MAX_LOG: Final = 1024 * 1024  # bytes; a longer log makes room at the next start
NOT_ITS_OWN: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def own_paths() -> Paths:
    """Where this user's own agent has its things. Raises Failure when HOME is of no use."""
    from d7agent.cli.autostart import is_ours

    uid = os.geteuid()
    try:
        return user_paths(os.environ, uid, lambda path: is_ours(path, uid))
    except ConfigError as error:
        raise Failure(str(error), "an agent of your own needs a home folder") from None


def _make_private(folder: str) -> None:
    """Make a folder, and those missing above it, 0700: os.makedirs gives its mode to the last one alone."""
    former = os.umask(0o077)
    try:
        os.makedirs(folder, exist_ok=True)
    finally:
        os.umask(former)


@contextlib.contextmanager
def lock_file(socket: str) -> Iterator[int]:
    """The lock file beside the socket, open; its folder is made (0700) when missing. Raises Failure."""
    name = f"{os.path.splitext(socket)[0]}.start.lock"
    try:
        _make_private(os.path.dirname(socket))
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        why = f"{socket}: no socket can be made there: {error.strerror}"
        raise Failure(why, "choose a place in a folder of your own with --socket", 3) from None
    try:
        yield lock
    finally:
        os.close(lock)


def pause() -> None:
    """Let others get on for a moment."""
    select.select([], [], [], LOOK)


def start(socket: str, *, idle_exit: int | None = None, tied: bool = False) -> int:
    """Start an agent on this socket and wait until it answers; its pid. Raises Failure with what its log says.

    `tied`: it is our child and ends when we do; otherwise it is nobody's child, in a session of its own.
    """
    argv = [sys.executable, "-P", "-m", "d7agent", "run", "--socket", socket]
    if idle_exit is not None:
        argv += ["--idle-exit", str(idle_exit)]
    with _Log(own_paths().state_dir) as log:
        pid = _spawn_tied(argv, log.number) if tied else _spawn(argv, log.number)
        _wait(socket, pid, log)
    return pid


def _spawn(argv: list[str], log: int) -> int:
    """Run argv as nobody's child; its pid."""
    reader, writer = os.pipe()

    def middle() -> None:
        os.setsid()
        os.write(writer, str(_fork(lambda: _become(argv, log))).encode())

    child = _fork(middle)
    os.close(writer)
    told = os.read(reader, 32)
    os.close(reader)
    os.waitpid(child, 0)
    return int(told or b"0")


def _spawn_tied(argv: list[str], log: int) -> int:
    """Run argv as our child that the kernel ends with us; its pid."""
    import ctypes

    libc, parent = ctypes.CDLL(None), os.getpid()

    def child() -> None:
        os.setsid()
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() == parent:
            _become(argv, log)

    return _fork(child)


def _fork(body: Callable[[], None]) -> int:
    """The pid of a child that runs the body and no more."""
    pid = os.fork()
    if pid:
        return pid
    try:
        body()
    finally:
        os._exit(127)


def _become(argv: list[str], log: int) -> NoReturn:
    """Replace this process by argv: no terminal, no descriptor of the user's, no folder kept busy."""
    os.chdir("/")
    os.umask(0o077)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.closerange(3, 65536)
    env = {name: value for name, value in os.environ.items() if name not in NOT_ITS_OWN}
    os.execve(argv[0], argv, env)  # noqa: S606  no shell is the point  # nosec B606


def _wait(socket: str, pid: int, log: "_Log") -> None:
    end = boot_time() + START_LIMIT
    pidfd = _pidfd(pid)
    try:
        while not _alive(socket):
            if pidfd is None or select.select([pidfd], [], [], LOOK)[0]:
                raise _cause(log)
            if boot_time() > end:
                os.kill(pid, signal.SIGTERM)
                raise Failure(f"the agent did not answer within {START_LIMIT:g} s", f"its log is {log.path}", 3)
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _alive(socket: str) -> bool:
    try:
        with Agent(socket, timeout=START_LIMIT) as agent:
            agent.status()
    except NoAgent:
        return False
    return True


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _cause(log: "_Log") -> Failure:
    """Why the agent ended, in the words of its log."""
    lines = [re.sub(r"^<\d>(d7agent: )?", "", line) for line in log.new_lines()]
    said = {kind: text for kind, _, text in (line.partition(": ") for line in lines)}
    message = said.get("error") or (lines[-1] if lines else "it ended without a word")
    return Failure(f"the agent did not start: {message}", said.get("hint") or f"its log is {log.path}", 3)


class _Log:
    """The log of background agents, open to be appended to. Use it with `with`."""

    def __init__(self, folder: str) -> None:
        _make_private(folder)
        self.path = f"{folder}/agent.log"
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self.path).st_size > MAX_LOG:
                os.replace(self.path, f"{self.path}.old")
        self.number = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._begin = os.fstat(self.number).st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.number)

    def new_lines(self) -> list[str]:
        """The lines that were added since it was opened, blank ones left out."""
        text = os.pread(self.number, 65536, self._begin).decode(errors="replace")
        return [line for line in text.splitlines() if line.strip()]
