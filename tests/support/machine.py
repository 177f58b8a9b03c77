"""A profile on a fake clock: plays the machine's effects, feeds the results back, and keeps callers as the keeper does.

It holds by itself, at every step of every test: one helper at a time, no expired token handed out, nothing waits for
what cannot come, and after a tick the next wanted instant lies in the future.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from d7agent.core import answers, lifecycle
from d7agent.core.answers import Answer
from d7agent.core.budget import Snapshot
from d7agent.core.errors import AgentError
from d7agent.core.jobs import Done, Failed, Granted
from d7agent.core.model import Grant, Stamp, fingerprint
from d7agent.core.states import (
    Ask,
    Cancel,
    Configured,
    Effect,
    Event,
    Gone,
    Hooked,
    Logged,
    LoggedIn,
    Login,
    Policy,
    ProofCame,
    Prove,
    Recall,
    Recalled,
    Refused,
    Renewed,
    Save,
    Started,
    State,
    StateSaved,
    Stored,
    Storing,
    Ticked,
    Wait,
)
from tests.support.fakes import FakeClock, FakeD7, FakeStore

EPS = 1e-6
PEER = 4711  # a uid that may only ask


@dataclass
class Job:
    """A helper at work. `ends` in true seconds; `reply` is made when it ends, `feed` wraps it in the event."""

    ends: float
    reply: Callable[[], Any]
    wrap: Callable[[Any], Event]
    is_login: bool = False


class Caller:
    """Someone who asked. `found` is the answer, None while there is none."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.found: Grant | AgentError | None = None

    @property
    def token(self) -> str:
        """The token this caller got; fails the test if there is none."""
        assert isinstance(self.found, Grant), self.found
        return self.found.access_token.reveal()

    @property
    def error(self) -> AgentError:
        """The error this caller got; fails the test if there is none."""
        assert isinstance(self.found, AgentError), self.found
        return self.found


class Rig:
    """One profile, its machine, and the world around it."""

    def __init__(self, policy: Policy | None = None, *, latency: float = 0.3, start: bool = True) -> None:
        self.clock = FakeClock()
        self.d7 = FakeD7(self.clock)
        self.store = FakeStore()
        self.latency = latency
        self.draw = 0.5
        self.writable = True
        self.honest_times = True  # whether what D7 and the clocks say is enough to know a token's end
        self.state = State(profile="default", policy=policy or Policy())
        self.effects: list[Effect] = []
        self.callers: list[Caller] = []
        self.job: Job | None = None
        self.late: list[Job] = []
        self.saved: Snapshot | None = None
        if start:
            self.feed(Started())

    @property
    def now(self) -> Stamp:
        """The present instant as the machine sees it."""
        return self.clock.now()

    @property
    def label(self) -> str:
        """The state in one word."""
        return answers.label(self.state, self.now.boot)

    @property
    def logins(self) -> int:
        """How often D7 was asked for a token."""
        return len(self.d7.logins)

    def all(self, *kinds: type) -> list[Any]:
        """The effects of these kinds so far."""
        return [effect for effect in self.effects if isinstance(effect, kinds)]

    def hooks(self) -> list[str]:
        """The hooks run so far."""
        return [effect.event for effect in self.all(Hooked)]

    def words(self) -> str:
        """All journal lines."""
        return "\n".join(effect.text for effect in self.all(Logged))

    def feed(self, event: Event) -> None:
        """One event through the machine, its effects carried out, every open question looked at again."""
        before = self.state
        step = lifecycle.step(before, event, self.now)
        self.state = step.state
        assert step.effects == () or step.state is not before, "effects come with a change"
        if isinstance(event, Ticked):
            at = lifecycle.wake_at(self.state)
            assert at is None or at > self.now.boot, "busy loop"
        for effect in step.effects:
            self.effects.append(effect)
            self._carry_out(effect)
        self._settle()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Recall(generation):
                self._begin(self.store.recall, lambda r: Recalled(generation, r, self.draw))
            case Login(generation, prompt):
                opened = self.store.opens(prompt=prompt)
                if opened and self.store.holds:
                    self.d7.note_login()
                self._begin(
                    lambda: self._log_in(opened=opened),
                    lambda r: LoggedIn(generation, r, self.draw),
                    is_login=True,
                )
            case Prove(generation, grant):
                self.d7.proofs.append(self.clock.true)
                self._begin(lambda: self.d7.prove(grant.access_token.reveal()), lambda r: ProofCame(generation, r))
            case Cancel():
                assert self.job is not None, "nothing to cancel"
                self.late.append(self.job)
                self.job = None
            case Save():
                if self.writable:
                    self.saved = lifecycle.snapshot(self.state, self.now)
                self.state = lifecycle.step(self.state, StateSaved(self.writable), self.now).state
            case _:
                pass

    def _begin(self, reply: Callable[[], Any], wrap: Callable[[Any], Event], *, is_login: bool = False) -> None:
        assert self.job is None, "two helpers at once"
        self.job = Job(self.clock.true + self.latency, reply, wrap, is_login)

    def _log_in(self, *, opened: bool) -> Granted | Failed:
        if not opened:
            return self.store.trouble()
        return self.store.log_in(self.d7)

    def finish(self) -> None:
        """The helper under way comes back now."""
        job, self.job = self.job, None
        assert job is not None, "no helper runs"
        self.feed(job.wrap(job.reply()))

    def finish_with(self, reply: Any) -> None:
        """The helper under way comes back now, with this answer."""
        assert self.job is not None, "no helper runs"
        self.job.reply = lambda: reply
        self.finish()

    def finish_late(self) -> None:
        """The results of cancelled helpers arrive after all: they must change nothing."""
        jobs, self.late = self.late, []
        for job in jobs:
            before = self.state
            self.feed(job.wrap(job.reply()))
            assert self.state is before, "a late result counted"

    def run(self, seconds: float) -> None:
        """Let time pass: helpers end, timers ring, callers lose patience, each at its instant."""
        end = self.clock.true + seconds
        rounds = 0
        while (at := self._next()) <= end:
            rounds = rounds + 1 if at <= self.clock.true else 0
            assert rounds < 50, "busy loop"
            self.clock.advance(max(0.0, at - self.clock.true))
            if self.job is not None and self.job.ends <= self.clock.true:
                self.finish()
            else:
                self.feed(Ticked())
        self.clock.advance(max(0.0, end - self.clock.true))

    def settle(self) -> None:
        """Run until no helper is under way."""
        for _ in range(100):
            if self.job is None:
                return
            self.run(self.latency)
        raise AssertionError("never comes to rest")

    def _next(self) -> float:
        wake = lifecycle.wake_at(self.state)
        instants = [caller.ask.deadline for caller in self.callers]
        instants += [] if wake is None else [wake]
        ends = [] if self.job is None else [self.job.ends]
        return min([self.clock.true_of(at) for at in instants] + ends, default=float("inf"))

    def ask(self, *, wait: float = 30.0, min_validity: float | None = None, uid: int | None = None) -> Caller:
        """GetToken."""
        return self._ask(Ask(self.now, self.now.boot + wait, min_validity=min_validity, uid=uid))

    def reject(self, token: str, *, wait: float = 30.0, uid: int | None = None) -> Caller:
        """RejectToken."""
        found = fingerprint(token)
        self.feed(Refused(found, uid))
        return self._ask(Ask(self.now, self.now.boot + wait, refused=found, uid=uid))

    def renew(self, *, wait: float = 30.0) -> Caller:
        """RenewToken."""
        asked = self.now
        self.feed(Renewed())
        return self._ask(Ask(asked, asked.boot + wait, attempt=self.state.attempts))

    def got(self, **how: Any) -> str:
        """GetToken, run to its answer, which must be a token."""
        caller = self.ask(**how)
        self.settle()
        return caller.token

    def refused(self, **how: Any) -> AgentError:
        """GetToken, run to its answer, which must be an error."""
        caller = self.ask(**how)
        if caller.found is None:
            self.run(caller.ask.deadline - self.now.boot)
        return caller.error

    def _ask(self, ask: Ask) -> Caller:
        caller = Caller(ask)
        self.callers.append(caller)
        self._settle()
        return caller

    def _settle(self) -> None:
        for caller in list(self.callers):
            found = answers.answer(self.state, caller.ask, self.now)
            event = answers.wish(self.state, caller.ask, found, self.now)
            if event is not None:
                self.feed(event)  # which settles again
                return
            self._deliver(caller, found)

    def _deliver(self, caller: Caller, found: Answer) -> None:
        if isinstance(found, Wait):
            self._check_wait(caller)
            return
        self.callers.remove(caller)
        caller.found = found
        if isinstance(found, Grant):
            self.check_good(found)

    def _check_wait(self, caller: Caller) -> None:
        attempt = lifecycle.next_attempt(self.state)
        coming = self.state.phase not in ("idle", "locked") or (attempt is not None and attempt <= caller.ask.deadline)
        assert coming, "waits for nothing"
        assert self.now.boot < caller.ask.deadline, "waits beyond its time"

    def check_good(self, grant: Grant) -> None:
        """No expired token is ever handed out, by our clock or by D7's."""
        assert grant.expires is None or self.now.boot < grant.expires
        if self.honest_times:
            assert self.d7.alive(grant.access_token.reveal()), "a dead token was handed out"

    def configure(self, policy: Policy | None = None, *, other: bool = False) -> None:
        """The profile's file was edited."""
        self.feed(Configured(policy or self.state.policy, other_credential=other))

    def begin_store(self, *, login: bool = True) -> None:
        """`d7agent login` has handed the new credential to a helper."""
        self.feed(Storing(login=login))
        generation = self.state.generation
        assert self.job is None, "two helpers at once"
        if login:
            self.d7.note_login()
        self.job = Job(
            self.clock.true + self.latency,
            lambda: self.store.log_in(self.d7) if login else Done(),
            lambda r: Stored(generation, r, self.draw),
            is_login=login,
        )

    def restart(self, *, off: float = 1.0, reboot: bool = False) -> None:
        """The agent dies and comes back after `off` seconds, with its state file and what the store holds."""
        self.job, self.late, self.callers = None, [], []
        self.clock.advance(off)
        if reboot:
            self.clock.reboot()
        self.state = State(profile="default", policy=self.state.policy)
        self.feed(Started(self.saved))


def within_budget(instants: list[float], *, capacity: float = 30.0, per_hour: float = 30.0) -> bool:
    """Whether logins at these instants (seconds, sorted) fit a token bucket, full at first.

    Which is to say: no window of w seconds holds more than capacity + per_hour * w / 3600 of them.
    """
    level, last = capacity, instants[0] if instants else 0.0
    for at in instants:
        level = min(capacity, level + (at - last) * per_hour / 3600) - 1
        last = at
        if level < -1e-3:
            return False
    return True


def level_left(instants: list[float], now: float, *, capacity: float = 30.0, per_hour: float = 30.0) -> float:
    """What a bucket, full at first, holds at `now` after logins at these instants."""
    level, last = capacity, 0.0
    for at in [*instants, now]:
        level = min(capacity, level + (at - last) * per_hour / 3600) - 1
        last = at
    return level + 1


def last_gone(rig: Rig) -> bool:
    """Whether sinks and subscribers were told of the token's end after they were told of its coming."""
    news = [type(effect) for effect in rig.effects if type(effect).__name__ in ("Pushed", "Gone")]
    return bool(news) and news[-1] is Gone
