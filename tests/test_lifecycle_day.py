"""A day of ten-minute tokens, and a week of every kind of token with faults at seeded random times."""

import random
from collections.abc import Callable

import pytest

from d7agent.core import lifecycle
from d7agent.core.jobs import Failed
from d7agent.core.states import LockedUp, Unlocked
from tests.support.fakes import BUSY, DOWN, HTML_403, UNAUTHORIZED
from tests.support.machine import PEER, Rig, within_budget

DAY = 86400.0


def test_a_day_of_ten_minute_tokens() -> None:
    """24 h: between 70 and 80 % of each life one login, 180 to 206 in all; asked every minute, always a good token."""
    rig = Rig()
    rig.d7.lifetime = 600
    chance = random.Random(24)
    rig.settle()
    waited = 0
    while rig.clock.true < DAY:
        rig.draw = chance.random()
        caller = rig.ask()  # the rig holds that what is handed out is good by D7's own clock
        waited += caller.found is None
        rig.settle()
        assert rig.d7.good(caller.token)
        rig.run(60 - rig.latency if waited else 60)
    assert DAY / 480 <= rig.logins <= DAY / 420 + 1
    assert rig.state.serial == rig.logins
    assert waited == 0
    assert within_budget(rig.d7.logins)


FAULTS: list[Failed] = [
    DOWN,
    BUSY,
    HTML_403,
    UNAUTHORIZED,
    Failed("timeout", "no answer within 15 s"),
    Failed("http_status", "HTTP 500", status=500),
    Failed("bad_reply", "no JSON"),
    Failed("helper_failed", "killed"),
]


class Week:
    """One seeded week of trouble for one rig."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.rig = Rig(latency=self.chance.choice([0.1, 0.3, 5.0]))
        self.shortest = 3600.0
        self._new_kind()

    def run(self, until: float) -> None:
        """Trouble, calls and rest in turn until the week is over."""
        calls: list[Callable[[], None]] = [
            self._fault,
            self._fault,
            self._heal,
            self._heal,
            self._new_kind,
            self._clock,
            self._suspend,
            self._store,
            self._restart,
            self._lock,
            self._report,
        ]
        rig = self.rig
        while rig.clock.true < until:
            rig.draw = self.chance.random()
            self.chance.choice(calls)()
            for _ in range(self.chance.randrange(4)):
                rig.ask(wait=self.chance.choice([0, 20]), uid=self.chance.choice([None, PEER]))
            rig.run(self.chance.expovariate(1 / 900))

    def _fault(self) -> None:
        self.rig.d7.fault = self.chance.choice(FAULTS)

    def _heal(self) -> None:
        self.rig.d7.fault = None
        self.rig.store.locked = False
        if self.rig.state.refusal is not None:  # 401 three times over: only a person ends that
            self.rig.renew()

    def _new_kind(self) -> None:
        d7 = self.rig.d7
        d7.lifetime = self.chance.choice([None, 90.0, 600.0, 3600.0, 86400.0])
        d7.iat, d7.same = self.chance.random() < 0.7, self.chance.random() < 0.2
        d7.form = self.chance.choice(["jwt", "jwt", "two parts", "opaque"])
        self.shortest = min(self.shortest, d7.lifetime or 3600.0)

    def _clock(self) -> None:
        self.rig.clock.step(self.chance.choice([-3600.0, 3600.0, 10 * 365 * DAY, -10 * 365 * DAY]))

    def _suspend(self) -> None:
        self.rig.clock.advance(self.chance.expovariate(1 / 3600))

    def _store(self) -> None:
        self.rig.store.locked = not self.rig.store.locked

    def _restart(self) -> None:
        self.rig.restart(off=self.chance.expovariate(1 / 30))

    def _lock(self) -> None:
        self.rig.feed(LockedUp())
        self.rig.store.remembered = None
        self.rig.run(self.chance.expovariate(1 / 60))
        self.rig.feed(Unlocked())

    def _report(self) -> None:
        if self.rig.state.grant is not None:
            token = self.rig.state.grant.access_token.reveal()
            self.rig.reject(token, uid=self.chance.choice([None, PEER]))


@pytest.mark.parametrize("seed", range(10))
def test_a_week_of_trouble(seed: int) -> None:
    """Never a dead token, never more logins than the budget, and when the trouble ends a token comes by itself."""
    week = Week(seed)
    week.run(7 * DAY)
    rig = week.rig
    for _ in range(2):  # a renewal may have to wait for the budget
        week._heal()
        rig.run(3600 + 120)  # the longest Retry-After, and a login's worth of budget
    assert rig.d7.good(rig.got())
    assert within_budget(rig.d7.logins, per_hour=max(30.0, 2 * 3600 / (week.shortest / 2)))
    assert rig.logins > 100
    wake = lifecycle.wake_at(rig.state)
    assert wake is None or wake > rig.now.boot
