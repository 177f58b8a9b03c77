"""Who is shown in status: nobody crowds out another, and no process's grants go under the name of another."""

import os
import select
import subprocess
from collections.abc import Callable

from msgspec import Struct

from d7agent.agent.callers import KNOWN_FOR, MOST, MOST_KNOWN, MOST_REFUSED, Callers
from d7agent.agent.peers import Process
from d7agent.agent.seldom import EVERY, Seldom
from d7agent.agent.seldom import MOST as MOST_LINES
from tests.support.wire import HandClock

NAMED = Process(cgroup="/system.slice/backup.service", exe="/usr/bin/backup", proved=True)


class Ender:
    """Processes that end when they are told to, each known by a pipe that turns readable, as a pidfd does."""

    def __init__(self) -> None:
        self._writing: list[int] = []
        self.given = 0

    def pidfd(self) -> int:
        reading, writing = os.pipe()
        self._writing.append(writing)
        self.given += 1
        return reading

    def end(self) -> None:
        for number in self._writing:
            os.close(number)
        self._writing.clear()


class Somebody(Struct):
    """A peer, and how often its process was looked at."""

    uid: int = 1000
    pid: int = 7
    found: Process = NAMED
    held: Callable[[], int | None] = lambda: None
    looks: int = 0

    @property
    def process(self) -> Process:
        self.looks += 1
        return self.found

    def pidfd(self) -> int | None:
        return self.held()


def stranger(uid: int) -> Somebody:
    return Somebody(uid=uid, pid=-1, found=Process())


def test_the_refused_never_push_out_the_served() -> None:
    """Thousands of uids that may not ask leave every served caller in status, and take a bounded room of their own."""
    clock = HandClock()
    callers = Callers(clock)
    served = [callers.of(Somebody(uid=uid, pid=-1)) for uid in range(1, MOST + 1)]
    for tally in served:
        tally.grants += 1
    for uid in range(100_000, 105_000):
        clock.seconds += 1
        callers.refused(stranger(uid))
    shown = callers.shown()
    assert len(shown) == MOST + MOST_REFUSED
    assert {caller.uid for caller in shown if caller.grants} == set(range(1, MOST + 1))
    assert [caller.denied for caller in shown if caller.uid >= 100_000] == [1] * MOST_REFUSED
    assert max(caller.uid for caller in shown) == 104_999
    assert callers.latest == 1000.0  # who is refused does not use the agent


def test_a_uid_makes_room_for_itself() -> None:
    """One that asks with ever new executables pushes out its own, the one not seen for longest, and nobody else's."""
    clock = HandClock()
    callers = Callers(clock)
    honest = callers.of(Somebody(uid=1))
    for number in range(3 * MOST):
        clock.seconds += 1
        callers.of(Somebody(uid=2, pid=-1, found=Process(exe=f"/tmp/{number}")))
    shown = callers.shown()
    assert honest.kept
    assert len(shown) == MOST
    assert [caller.uid for caller in shown].count(1) == 1
    assert {caller.exe for caller in shown if caller.uid == 2} == {
        f"/tmp/{number}" for number in range(2 * MOST + 1, 3 * MOST)
    }


def test_one_that_made_room_is_counted_anew() -> None:
    """Its tally says that it is no longer shown, so that a connection that lasts does not count into nothing."""
    callers = Callers(HandClock())
    tally = callers.of(Somebody(uid=1))
    for uid in range(2, MOST + 2):
        callers.of(Somebody(uid=uid, pid=-1))
    assert not tally.kept
    again = callers.of(Somebody(uid=1))
    assert again.kept
    assert again is not tally


def test_let_in_after_a_refusal_it_is_one_caller() -> None:
    """Refused, served, refused again: one line in status with both numbers."""
    callers = Callers(HandClock())
    callers.refused(Somebody())
    callers.of(Somebody()).grants += 1
    callers.refused(Somebody())
    (shown,) = callers.shown()
    assert (shown.uid, shown.unit, shown.grants, shown.denied) == (1000, "backup.service", 1, 2)


def test_a_process_is_known_while_it_lives() -> None:
    """From its third visit on it is not looked at; another that has its pid is, at once, and counted as itself."""
    ender, callers = Ender(), Callers(HandClock())
    first = Somebody(held=ender.pidfd)
    tallies = [callers.of(first) for _ in range(10)]
    assert (first.looks, ender.given, len(set(map(id, tallies)))) == (2, 1, 1)
    ender.end()
    second = Somebody(found=Process(exe="/usr/bin/other"), held=ender.pidfd)
    assert callers.of(second).exe == "/usr/bin/other"
    assert tallies[0].exe == NAMED.exe
    gone = Somebody(found=Process(), held=ender.pidfd)  # one that has left before the look: unknown, not the former
    ender.end()
    assert (callers.of(gone).unit, callers.of(gone).exe) == (None, None)
    ender.end()


def test_what_is_known_is_bounded_and_let_go() -> None:
    """A descriptor each for a few processes, none for one that came once; all are closed after a while."""
    before = len(os.listdir("/proc/self/fd"))
    clock = HandClock()
    callers = Callers(clock)
    ender = Ender()
    for _ in range(3):
        for pid in range(1, 4 * MOST_KNOWN):
            callers.of(Somebody(pid=pid, held=lambda: os.dup(0)))
    assert len(os.listdir("/proc/self/fd")) == before + MOST_KNOWN
    clock.seconds += KNOWN_FOR + 1
    callers.rest()
    assert len(os.listdir("/proc/self/fd")) == before
    callers.of(Somebody(held=ender.pidfd))
    assert ender.given == 0


def test_without_a_descriptor_from_the_socket_the_pid_s_own_is_taken() -> None:
    """An old kernel: the process of that pid is watched all the same. No such process: it is looked at each time."""
    callers = Callers(HandClock())
    here, gone = Somebody(pid=os.getpid()), Somebody(pid=2**22 + 1)
    for _ in range(5):
        callers.of(here)
        callers.of(gone)
    assert (here.looks, gone.looks) == (2, 5)


def test_lines_about_uids_are_few() -> None:
    """One a minute for each uid, so many for all, and no more kept than that."""
    clock = HandClock()
    lines = Seldom(clock)
    assert [lines.due(7) for _ in range(3)] == [True, False, False]
    assert sum(lines.due(uid) for uid in range(100, 10_000)) == MOST_LINES - 1
    clock.seconds += EVERY
    assert lines.due(7)
    assert len(lines._told) == 1


def test_a_pidfd_is_readable_when_its_process_has_ended() -> None:
    """What the fakes above stand for."""
    with subprocess.Popen(["true"]) as process:
        number = os.pidfd_open(process.pid)
        poll = select.poll()
        poll.register(number, select.POLLIN)
        assert poll.poll(10_000)
    assert poll.poll(0)
    os.close(number)
