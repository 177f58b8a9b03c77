"""The keeper of one profile: feeds the lifecycle machine, carries out its effects, and answers those who wait."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Protocol

from d7agent.agent import replies
from d7agent.agent.helpers import Helpers
from d7agent.core import answers, jobs, lifecycle, schedule, states
from d7agent.core.answers import Answer
from d7agent.core.budget import Snapshot, saved
from d7agent.core.clock import Clock
from d7agent.core.config import Profile
from d7agent.core.errors import AgentError, InvalidParameter, Locked
from d7agent.core.jobs import Failed, Reply, Target
from d7agent.core.model import Grant
from d7agent.core.states import Ask, Event, State, Wait

log = logging.getLogger(__name__)

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
Done = Callable[["Grant | AgentError"], None]


class World(Protocol):
    """What a keeper needs of the agent around it."""

    clock: Clock
    helpers: Helpers
    state_dir: str  # where remembered tokens may be written when the store cannot take them; "": nowhere

    def draw(self) -> float:
        """A random number in [0, 1): jitter."""

    def save(self, profile: str, snapshot: Snapshot) -> bool:
        """Write the budget down; whether that worked."""

    def wake(self, keeper: "Keeper", at: float | None) -> None:
        """Call `keeper.tick()` at this boot instant; replaces an earlier wish."""

    def pushed(self, keeper: "Keeper") -> None:
        """The keeper has a new token."""

    def gone(self, keeper: "Keeper") -> None:
        """The keeper's token is no more."""

    def hooked(self, keeper: "Keeper", effect: states.Hooked) -> None:
        """An event that a hook may wait for."""

    def changed(self, keeper: "Keeper") -> None:
        """Something that GetStatus shows has changed."""


class Waiter:
    """One caller's open question."""

    __slots__ = ("ask", "done")

    def __init__(self, ask: Ask, done: Done) -> None:
        self.ask = ask
        self.done = done


class Keeper:
    """One profile at work. All methods run on the agent's loop."""

    def __init__(self, profile: Profile, world: World) -> None:
        self.profile = profile
        self.state = State(profile=profile.name, policy=policy(profile))
        self._world = world
        self._waiters: list[Waiter] = []
        self._deadline = float("inf")
        self._job: asyncio.Task[None] | None = None
        self._head = b""
        self._head_until = 0.0
        self._head_expires: float | None = None

    @property
    def waiting(self) -> int:
        """How many callers wait for a token."""
        return len(self._waiters)

    def feed(self, event: Event) -> None:
        """One event through the machine; its effects are carried out before this returns."""
        self._head_until = 0.0
        before = self.state
        step = lifecycle.step(self.state, event, self._world.clock.now())
        self.state = step.state
        for effect in step.effects:
            self._carry_out(effect)
        if self.state is before and not isinstance(event, states.Ticked):
            return
        self._settle()
        self._world.changed(self)

    def tick(self) -> None:
        """The wanted instant has come (or may have)."""
        self.feed(states.Ticked())

    def ask(self, ask: Ask, done: Done) -> Waiter | None:
        """Answer now through `done`, or later; then the Waiter is returned, for `leave`."""
        found = answers.answer(self.state, ask, self._world.clock.now())
        if self._starts_something(ask, found):
            self.feed(states.Wanted(uid=ask.uid, fresh=self._grant_alive()))
            found = answers.answer(self.state, ask, self._world.clock.now())
        if not isinstance(found, Wait):
            done(found)
            return None
        waiter = Waiter(ask, done)
        self._waiters.append(waiter)
        self._deadline = min(self._deadline, ask.deadline)
        self._rearm()
        return waiter

    def _starts_something(self, ask: Ask, found: Answer) -> bool:
        """Whether the machine should hear of this caller: what is under way is not asked for again (single flight)."""
        if ask.refused is not None or ask.attempt is not None or self.state.phase in answers.UNDER_WAY:
            return False
        return not isinstance(found, Grant | InvalidParameter | Locked)

    def leave(self, waiter: Waiter) -> None:
        """The caller is gone. The login under way goes on for the others."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def quick(self, boot: float) -> bytes | None:
        """The whole reply for a caller who wants any good token, or None where there is something to decide."""
        if boot >= self._head_until:
            return None
        return replies.frame(self._head, self._head_expires, boot)

    def frame(self, grant: Grant, *, continues: bool = False) -> bytes:
        """The reply that hands out `grant`, which `answers.answer` found good."""
        now = self._world.clock.now()
        if now.boot >= self._head_until:
            self._encode(grant)
        return replies.frame(self._head, self._head_expires, now.boot, continues=continues)

    def _encode(self, grant: Grant) -> None:
        now = self._world.clock.now()
        label = answers.label(self.state, now.boot)
        self._head = replies.head(self.profile.name, grant, self.state.serial, label, now)
        self._head_expires = grant.expires
        until = float("inf") if grant.expires is None else grant.expires - schedule.leeway(grant)
        if label == "fresh" and self.state.due is not None:
            until = min(until, self.state.due)
        self._head_until = until

    def reclock(self) -> None:
        """The wall clock was stepped: the next reply shows `expires_at` anew."""
        self._head_until = 0.0

    def reconfigure(self, profile: Profile) -> None:
        """The profile's configuration is now `profile`."""
        former, self.profile = self.profile, profile
        other = (former.base_url, former.store, former.client_id) != (
            profile.base_url,
            profile.store,
            profile.client_id,
        )
        self.feed(states.Configured(policy(profile), other_credential=other))
        if former.remember_token and not profile.remember_token and self.state.remembered:
            self._start(self._forget_token)

    def credential_changed(self) -> None:
        """The store's content was edited behind our back."""
        self.feed(states.Configured(self.state.policy, other_credential=True))

    def close(self, error: AgentError | None = None) -> None:
        """The profile is no more, or the agent ends: wipe, end helpers, tell those who wait."""
        if self._job is not None:
            self._job.cancel()
        self._head, self._head_until = b"", 0.0
        self._world.gone(self)
        self._world.wake(self, None)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if error is not None:
                waiter.done(error)

    async def closed(self) -> None:
        """Wait until no helper of this keeper runs any more."""
        if self._job is not None:
            await asyncio.gather(self._job, return_exceptions=True)

    def target(self, profile: Profile | None = None) -> Target:
        """Which credential this is, in the helper's terms."""
        chosen = profile or self.profile
        return Target(
            profile=chosen.name,
            base_url=chosen.base_url,
            store=chosen.store,
            client_id=chosen.client_id,
            remember=chosen.remember_token,
            state_dir=self._world.state_dir,
        )

    async def run(self, job: jobs.Job, raw: bytearray | None = None, *, prompt: bool = False) -> Reply:
        """Run a job of this profile after the one under way (which is expected to be on its way out) has ended."""
        if self._job is not None:
            await asyncio.gather(self._job, return_exceptions=True)
        return await self._world.helpers.run(job, raw=raw, prompt=prompt, urgent=lambda: True)

    def _carry_out(self, effect: states.Effect) -> None:
        match effect:
            case states.Recall(generation):
                self._start(partial(self._recall, generation))
            case states.Login(generation, prompt):
                self._start(partial(self._login, generation, prompt))
            case states.Prove(generation, grant):
                self._start(partial(self._prove, generation, grant))
            case states.Cancel():
                if self._job is not None:
                    self._job.cancel()
            case states.Save():
                self._save()
            case states.Logged(level, text):
                log.log(_LEVELS[level], "%s: %s", self.profile.name, text)
            case _:
                self._tell(effect)

    def _tell(self, effect: states.Effect) -> None:
        match effect:
            case states.Pushed():
                self._world.pushed(self)
            case states.Gone():
                self._head = b""
                self._world.gone(self)
            case states.Hooked():
                self._world.hooked(self, effect)

    def _save(self) -> None:
        now = self._world.clock.now()
        snapshot = saved(self.state.budget, now, self.state.failures, self.state.retry_at)
        ok = self._world.save(self.profile.name, snapshot)
        if ok != self.state.budget.writable:
            self.state = lifecycle.step(self.state, states.StateSaved(ok), now).state

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        former = self._job

        async def after() -> None:
            if former is not None and not former.done():
                await asyncio.gather(former, return_exceptions=True)
            await work()

        self._job = asyncio.get_running_loop().create_task(after())

    async def _recall(self, generation: int) -> None:
        job = jobs.Recall(self.target(), self._world.clock.now())
        reply = await self._world.helpers.run(job, urgent=self._urgent)
        self.feed(states.Recalled(generation, _expected(reply, jobs.Granted, jobs.Nothing), self._world.draw()))

    async def _login(self, generation: int, prompt: bool) -> None:
        job = jobs.Login(self.target(), self._world.clock.now(), prompt=prompt)
        reply = await self._world.helpers.run(job, prompt=prompt, urgent=self._urgent)
        self.feed(states.LoggedIn(generation, _expected(reply, jobs.Granted), self._world.draw()))

    async def _prove(self, generation: int, grant: Grant) -> None:
        job = jobs.Prove(self.profile.base_url, grant.access_token)
        reply = await self._world.helpers.run(job, urgent=self._urgent)
        self.feed(states.ProofCame(generation, _expected(reply, jobs.Proved)))

    async def _forget_token(self) -> None:
        await self._world.helpers.run(jobs.Forget(self.target(), token_only=True))

    def _urgent(self) -> bool:
        return bool(self._waiters)

    def _grant_alive(self) -> bool:
        return lifecycle.alive(self.state.grant, self._world.clock.now().boot) is not None

    def _settle(self) -> None:
        """Look at every open question again; answers go out in the order of asking."""
        now = self._world.clock.now()
        found = [(waiter, answers.answer(self.state, waiter.ask, now)) for waiter in self._waiters]
        self._waiters = [waiter for waiter, answer in found if isinstance(answer, Wait)]
        self._deadline = min((waiter.ask.deadline for waiter in self._waiters), default=float("inf"))
        self._rearm()
        for waiter, answer in found:
            _deliver(waiter, answer)

    def _rearm(self) -> None:
        at = lifecycle.wake_at(self.state)
        soonest = min(self._deadline, float("inf") if at is None else at)
        self._world.wake(self, None if soonest == float("inf") else soonest)


def policy(profile: Profile) -> states.Policy:
    """What the profile asks of the machine."""
    return states.Policy(max_age=profile.max_age, logins_per_hour=profile.logins_per_hour)


def _deliver(waiter: Waiter, answer: Answer) -> None:
    if not isinstance(answer, Wait):
        waiter.done(answer)


def _expected(reply: Reply, *kinds: type) -> Any:
    """The reply, if it is of a kind this job has; a helper that answers another question has failed."""
    if isinstance(reply, Failed) or type(reply) in kinds:
        return reply
    return Failed("helper_failed", f"the helper answered {type(reply).__name__} to another question", "see the journal")
