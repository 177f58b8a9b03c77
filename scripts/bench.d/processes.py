"""What /proc and wait4(2) tell of a process: its time, its size, how often it woke up."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

NULL = os.open(os.devnull, os.O_RDWR)
TICKS = os.sysconf("SC_CLK_TCK")


class Ran(NamedTuple):
    """A command that has ended: wall and processor seconds, exit status."""

    wall: float
    cpu: float
    status: int


@contextmanager
def on_one_processor(*pids: int) -> Iterator[None]:
    """Keep ourselves and these processes on one processor.

    What each side takes adds up then, and where the kernel would have put them plays no part: on a machine with other
    work that alone doubles a round trip, or halves it, from one run to the next.
    """
    allowed = os.sched_getaffinity(0)
    everyone = [0, *(int(task.name) for pid in pids for task in Path(f"/proc/{pid}/task").iterdir())]
    for pid in everyone:
        os.sched_setaffinity(pid, {max(allowed)})
    try:
        yield
    finally:
        for pid in everyone:
            os.sched_setaffinity(pid, allowed)


def run(argv: Sequence[str], environment: Mapping[str, str], stdin: int = NULL) -> Ran:
    """Run a command to its end, its output thrown away. It is started by its path: nothing is searched for."""
    began = time.perf_counter()
    redirect = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, NULL, 1), (os.POSIX_SPAWN_DUP2, NULL, 2)]
    pid = os.posix_spawn(argv[0], list(argv), dict(environment), file_actions=redirect)
    _, status, used = os.wait4(pid, 0)
    wall = time.perf_counter() - began
    return Ran(wall, used.ru_utime + used.ru_stime, os.waitstatus_to_exitcode(status))


def cpu(pid: int) -> float:
    """Processor seconds of all threads so far, by the scheduler's own count (nanoseconds)."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def children_cpu(pid: int) -> float:
    """Processor seconds of children that have ended (in ticks of 10 ms)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / TICKS


def wakeups(pid: int) -> int:
    """How often any of its threads has gone to sleep of its own will."""
    statuses = (task / "status" for task in Path(f"/proc/{pid}/task").iterdir())
    lines = (line for status in statuses for line in status.read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def _megabytes(path: str, *names: str) -> float:
    lines = Path(path).read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.split(":")[0] in names) / 1024


def rss(pid: int) -> float:
    """Resident MiB."""
    return _megabytes(f"/proc/{pid}/status", "VmRSS")


def peak(pid: int) -> float:
    """Resident MiB at its highest."""
    return _megabytes(f"/proc/{pid}/status", "VmHWM")


def unique(pid: int) -> float | None:
    """MiB that no other process shares; None where the kernel does not tell us, which is any process but root's."""
    try:
        return _megabytes(f"/proc/{pid}/smaps_rollup", "Private_Clean", "Private_Dirty")
    except PermissionError:
        return None
