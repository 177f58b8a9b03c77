"""One timer for all profiles, on a clock that a suspend cannot stop."""

import asyncio
from collections.abc import Callable

import pytest

from d7agent.agent.timer import LONGEST_SLEEP, Alarm
from d7agent.core.model import Stamp


class Boot:
    """A boot clock that the test moves."""

    def __init__(self) -> None:
        self.boot = 100.0

    def now(self) -> Stamp:
        return Stamp(boot=self.boot, wall=self.boot)


class Loop:
    """Remembers what was asked of `call_later`; nothing runs by itself."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self.turn: Callable[[], None] = lambda: None

    def call_later(self, delay: float, turn: Callable[[], None]) -> "Loop":
        self.delays.append(delay)
        self.turn = turn
        return self

    def cancel(self) -> None:
        self.turn = lambda: None


def alarm(monkeypatch: pytest.MonkeyPatch, rung: list[str]) -> tuple[Alarm, Boot, Loop]:
    clock, loop = Boot(), Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    made = Alarm(clock, rung.append)
    made.start()
    return made, clock, loop


def test_sleeps_to_the_earliest_instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop sleeps until the earliest wanted instant of all profiles."""
    made, _, loop = alarm(monkeypatch, [])
    made.set("late", 120.0)
    made.set("early", 107.5)
    assert loop.delays[-1] == 7.5


def test_looks_again_after_thirty_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """However far the next instant, it looks at the boot clock every 30 s: a suspend makes it late by no more."""
    rung: list[str] = []
    made, clock, loop = alarm(monkeypatch, rung)
    made.set("far", 10_000.0)
    assert loop.delays[-1] == LONGEST_SLEEP
    clock.boot = 10_001.0  # suspended; the loop's own clock has seen 30 s
    loop.turn()
    assert rung == ["far"]


def test_rings_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each instant rings once, the earlier first; what a ring sets is rung in its own time."""
    rung: list[str] = []
    made, clock, loop = alarm(monkeypatch, rung)
    made.set("b", 103.0)
    made.set("a", 102.0)
    clock.boot = 105.0
    loop.turn()
    loop.turn()
    assert rung == ["a", "b"]


def test_replaced_and_removed_instants_do_not_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later wish replaces an earlier one; None takes it back."""
    rung: list[str] = []
    made, clock, loop = alarm(monkeypatch, rung)
    made.set("moved", 101.0)
    made.set("moved", 200.0)
    made.set("gone", 101.0)
    made.set("gone", None)
    clock.boot = 150.0
    loop.turn()
    assert rung == []
    clock.boot = 200.0
    loop.turn()
    assert rung == ["moved"]


def test_idle_agent_turns_twice_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing due for hours there are two turns a minute."""
    made, clock, loop = alarm(monkeypatch, [])
    made.set("x", 1e6)
    turns = 0
    while clock.boot < 160.0:
        clock.boot += loop.delays[-1]
        loop.turn()
        turns += 1
    assert turns == 2
