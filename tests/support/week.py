"""A seeded week of trouble on the fake clock: every kind of token, faults, clocks, suspends, restarts, locks, reports.

Held at every step: no dead token is handed out (by D7's own clock), one helper at a time, nothing loops (all that by
the rig), no login beyond what the budget allows for the tokens in force, and a world that is well brings a token.
"""

import random
from collections.abc import Callable
from typing import Any, Final

from d7agent.core import lifecycle, schedule
from d7agent.core.budget import CAPACITY, HOUR, PER_HOUR, SCHEDULE_FACTOR
from d7agent.core.jobs import Failed
from d7agent.core.states import Event, LockedUp, Unlocked
from tests.support.fakes import BUSY, DOWN, HTML_403, UNAUTHORIZED
from tests.support.machine import PEER, Rig

DAY: Final = 86400.0
FAULTS: Final[list[Failed]] = [
    DOWN,
    BUSY,
    HTML_403,
    UNAUTHORIZED,
    Failed("timeout", "no answer within 15 s"),
    Failed("http_status", "HTTP 500", status=500),
    Failed("bad_reply", "no JSON"),
    Failed("helper_failed", "killed"),
]
# Seconds after which a world that is well has brought a token: the longest Retry-After of these faults, and then a
# login that may be one that the budget has to earn first.
ENDS_WITHIN: Final = 600.0 + HOUR / PER_HOUR + 60.0


class Watched(Rig):
    """A rig that counts events, keeps the budget's books by itself, and times outages that nothing excuses."""

    def __init__(self, **how: Any) -> None:
        self.events = 0
        self.longest_outage = 0.0  # seconds without a token in a world that was well
        self._since: float | None = None
        self._level, self._rate, self._booked = CAPACITY, PER_HOUR, 0.0
        self._counted = 0
        super().__init__(**how)

    def feed(self, event: Event) -> None:
        """One event, and a look at what it led to."""
        self.events += 1
        super().feed(event)
        self.look()

    def look(self) -> None:
        """Hold what has to hold now. To be called whenever the world has changed as well."""
        self._book()
        self._time()

    def asleep(self) -> None:
        """The agent could do nothing until now."""
        self._since = None
        self.look()

    def _book(self) -> None:
        """A token bucket, filled at the rate that the token in force asks for, or the one before it."""
        now = self.clock.true
        self._level = min(CAPACITY, self._level + (now - self._booked) * self._rate / HOUR)
        self._booked = now
        self._level -= self.logins - self._counted
        self._counted = self.logins
        assert self._level > -0.01, "more logins than the budget has"
        grant = self.state.grant
        every = None if grant is None else schedule.interval(grant, self.state.policy.max_age)
        if every is not None:
            self._rate = max(PER_HOUR, SCHEDULE_FACTOR * HOUR / max(every, 1.0))

    def _time(self) -> None:
        now = self.clock.true
        outage = 0.0 if self._since is None else now - self._since
        assert outage <= ENDS_WITHIN, f"no token for {outage:.0f} s in a world that is well"
        if self._served():
            self.longest_outage = max(self.longest_outage, outage)
        if self._served() or not self._well():
            self._since = None
        elif self._since is None:
            self._since = now

    def _served(self) -> bool:
        return not self.state.locked and lifecycle.alive(self.state.grant, self.now.boot) is not None

    def _well(self) -> bool:
        """Whether nothing is wrong that time alone does not mend. 401 three times over is for a person to end."""
        at_ease = self.d7.fault is None and not self.store.locked
        return at_ease and not self.state.locked and self.state.refusal is None


class Week:
    """One seeded week of trouble for one rig."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.rig = Watched(latency=self.chance.choice([0.1, 0.3, 5.0]))
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
            rig.look()
            for _ in range(self.chance.randrange(4)):
                rig.ask(wait=self.chance.choice([0, 20]), uid=self.chance.choice([None, PEER]))
            rig.run(self.chance.expovariate(1 / 900))
            rig.look()

    def end(self) -> None:
        """All is well again, and stays so: there is a good token, and the machine is at rest."""
        rig = self.rig
        for _ in range(2):  # a renewal may have to wait for the budget
            self._heal()
            rig.look()
            rig.run(ENDS_WITHIN)
            rig.look()
        assert rig.d7.good(rig.got()), "the token is not good"
        wake = lifecycle.wake_at(rig.state)
        assert wake is None or wake > rig.now.boot, "busy loop"

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

    def _clock(self) -> None:
        self.rig.clock.step(self.chance.choice([-3600.0, 3600.0, 10 * 365 * DAY, -10 * 365 * DAY]))

    def _suspend(self) -> None:
        self.rig.clock.advance(self.chance.expovariate(1 / 3600))
        self.rig.asleep()

    def _store(self) -> None:
        self.rig.store.locked = not self.rig.store.locked

    def _restart(self) -> None:
        self.rig.restart(off=self.chance.expovariate(1 / 30))
        self.rig.asleep()

    def _lock(self) -> None:
        self.rig.feed(LockedUp())
        self.rig.store.remembered = None
        self.rig.run(self.chance.expovariate(1 / 60))
        self.rig.feed(Unlocked())

    def _report(self) -> None:
        if self.rig.state.grant is not None:
            token = self.rig.state.grant.access_token.reveal()
            self.rig.reject(token, uid=self.chance.choice([None, PEER]))
