"""Who is shown in status: nobody crowds out another, and no process's grants go under the name of another."""

from msgspec import Struct

from d7agent.agent.callers import KNOWN_FOR, MOST, MOST_REFUSED, Callers
from d7agent.agent.peers import Process
from d7agent.agent.seldom import EVERY, Seldom
from d7agent.agent.seldom import MOST as MOST_LINES
from tests.support.wire import HandClock

NAMED = Process(cgroup="/system.slice/backup.service", exe="/usr/bin/backup", proved=True)


class Somebody(Struct):
    """A peer, and how often its process was looked at."""

    uid: int = 1000
    pid: int = 7
    found: Process = NAMED
    looks: int = 0

    @property
    def process(self) -> Process:
        self.looks += 1
        return self.found


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


def test_a_process_is_known_for_a_moment() -> None:
    """Looked at once, then not again for a quarter of a second, in which no pid comes a second time."""
    clock = HandClock()
    callers = Callers(clock)
    first = Somebody()
    tallies = [callers.of(first) for _ in range(10)]
    assert (first.looks, len(set(map(id, tallies)))) == (1, 1)
    clock.seconds += KNOWN_FOR + 0.01
    second = Somebody(found=Process(exe="/usr/bin/other"))
    assert callers.of(second).exe == "/usr/bin/other"
    assert tallies[0].exe == NAMED.exe
    clock.seconds += KNOWN_FOR + 0.01
    gone = Somebody(found=Process())  # one that has left before the look: unknown, not the former
    assert (callers.of(gone).unit, callers.of(gone).exe) == (None, None)


def test_lines_about_uids_are_few() -> None:
    """One a minute for each uid, so many for all, and no more kept than that."""
    clock = HandClock()
    lines = Seldom(clock)
    assert [lines.due(7) for _ in range(3)] == [True, False, False]
    assert sum(lines.due(uid) for uid in range(100, 10_000)) == MOST_LINES - 1
    clock.seconds += EVERY
    assert lines.due(7)
    assert len(lines._told) == 1
