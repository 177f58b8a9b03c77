"""The keeper of one profile: feeds the lifecycle machine, carries out its effects, and answers those who wait."""

import logging
from typing import Final

from d7agent.agent.errands import Errands
from d7agent.agent.replies import Head
from d7agent.agent.waiters import Done, Waiter, Waiters
from d7agent.agent.world import World
from d7agent.core import answers, jobs, lifecycle, states
from d7agent.core.answers import Answer
from d7agent.core.config import Profile
from d7agent.core.errors import AgentError
from d7agent.core.jobs import Reply, Target
from d7agent.core.model import Grant
from d7agent.core.states import Ask, Event, State, Wait

log = logging.getLogger(__name__)

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Keeper:
    """One profile at work. All methods run on the agent's loop."""

    def __init__(self, profile: Profile, world: World) -> None:
        self.profile = profile
        self.state = State(profile=profile.name, policy=policy(profile))
        self._world = world
        self._waiters = Waiters()
        self._errands = Errands(self, world)
        self._head = Head()

    @property
    def waiting(self) -> int:
        """How many callers wait for a token."""
        return len(self._waiters)

    def feed(self, event: Event) -> None:
        """One event through the machine; its effects are carried out before this returns."""
        self._head.stale()
        before = self.state
        step = lifecycle.step(self.state, event, self._world.clock.now())
        self.state = step.state
        for effect in step.effects:
            self._carry_out(effect)
        if self.state is not before:
            self._settle()
        elif isinstance(event, states.Ticked):
            self._give_up()
        else:
            return
        self._world.changed(self)

    def tick(self) -> None:
        """The wanted instant has come (or may have)."""
        self.feed(states.Ticked())

    def ask(self, ask: Ask, done: Done) -> Waiter | None:
        """Answer now through `done`, or later; then the Waiter is returned, for `leave`."""
        now = self._world.clock.now()
        found = answers.answer(self.state, ask, now)
        wish = answers.wish(self.state, ask, found, now)
        if wish is not None:
            self.feed(wish)
            found = answers.answer(self.state, ask, self._world.clock.now())
        if not isinstance(found, Wait):
            done(found)
            return None
        waiter = Waiter(ask, done)
        self._waiters.add(waiter)
        self._rearm()
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """The caller is gone. The login under way goes on for the others."""
        self._waiters.remove(waiter)

    def quick(self, boot: float) -> bytes | None:
        """The whole reply for a caller who wants any good token, or None where there is something to decide."""
        return self._head.quick(boot)

    def frame(self, grant: Grant, *, continues: bool = False) -> bytes:
        """The reply that hands out `grant`, which `answers.answer` found good."""
        now = self._world.clock.now()
        if not self._head.serves(now.boot):
            label = answers.label(self.state, now.boot)
            until = self.state.due if label == "fresh" else None
            self._head.encode(self.profile.name, grant, self.state.serial, label, now, until)
        return self._head.frame(now.boot, continues=continues)

    def reclock(self) -> None:
        """The wall clock was stepped: the next reply shows `expires_at` anew."""
        self._head.stale()

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
            self._errands.forget_token()

    def credential_changed(self) -> None:
        """The store's content was edited behind our back."""
        self.feed(states.Configured(self.state.policy, other_credential=True))

    def close(self, error: AgentError | None = None) -> None:
        """The profile is no more, or the agent ends: wipe, end helpers, tell those who wait."""
        self._errands.cancel()
        self._head.clear()
        self._world.gone(self)
        self._world.wake(self, None)
        waiters, self._waiters = self._waiters, Waiters()
        for waiter in waiters.all():
            if error is not None:
                waiter.done(error)

    async def closed(self) -> None:
        """Wait until no helper of this keeper runs any more."""
        await self._errands.ended()

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
        await self._errands.ended()
        return await self._world.helpers.run(job, raw=raw, prompt=prompt, urgent=lambda: True)

    def _carry_out(self, effect: states.Effect) -> None:
        match effect:
            case states.Recall(generation):
                self._errands.recall(generation)
            case states.Login(generation, prompt):
                self._errands.login(generation, prompt=prompt)
            case states.Prove(generation, grant):
                self._errands.prove(generation, grant)
            case states.Cancel():
                self._errands.cancel()
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
                self._head.clear()
                self._world.gone(self)
            case states.Hooked():
                self._world.hooked(self, effect)

    def _save(self) -> None:
        now = self._world.clock.now()
        ok = self._world.save(self.profile.name, lifecycle.snapshot(self.state, now))
        if ok != self.state.budget.writable:
            self.state = lifecycle.step(self.state, states.StateSaved(ok), now).state

    def _settle(self) -> None:
        """The state has changed: look at every open question again; answers go out in the order of asking."""
        now = self._world.clock.now()
        found = [(waiter, answers.answer(self.state, waiter.ask, now)) for waiter in self._waiters.all()]
        for waiter, answer in found:
            if not isinstance(answer, Wait):
                self._waiters.remove(waiter)
        self._rearm()
        for waiter, answer in found:
            _deliver(waiter, answer)
        self._wish_again()

    def _wish_again(self) -> None:
        """Something has ended: one of those who still wait may want what comes next."""
        if self.state.phase != "idle":
            return
        now = self._world.clock.now()
        for waiter in self._waiters.all():
            wish = answers.wish(self.state, waiter.ask, Wait(), now)
            if wish is not None:
                self.feed(wish)
                return

    def _give_up(self) -> None:
        """Only time has passed: answer those who have no more of it."""
        now = self._world.clock.now()
        overdue = self._waiters.overdue(now.boot)
        self._rearm()
        for waiter in overdue:
            _deliver(waiter, answers.answer(self.state, waiter.ask, now))

    def _rearm(self) -> None:
        at = lifecycle.wake_at(self.state)
        soonest = min(self._waiters.deadline, float("inf") if at is None else at)
        self._world.wake(self, None if soonest == float("inf") else soonest)


def policy(profile: Profile) -> states.Policy:
    """What the profile asks of the machine."""
    return states.Policy(max_age=profile.max_age, logins_per_hour=profile.logins_per_hour)


def _deliver(waiter: Waiter, answer: Answer) -> None:
    if not isinstance(answer, Wait):
        waiter.done(answer)
