"""A real Agent on a fake clock, with a fake D7 and store in place of helper processes; nothing of it sleeps."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from d7agent.agent.agent import Agent
from d7agent.agent.helpers import Helpers
from d7agent.agent.keeper import Keeper
from d7agent.core import jobs, states
from d7agent.core.config import Config, Hooks, Profile, Sink
from d7agent.core.jobs import Job, Reply
from tests.support.fakes import FakeClock, FakeD7, FakeStore
from tests.support.osfaults import paths_in


class FakeHelpers(Helpers):
    """Answers every job at once, from a fake D7 and a fake store. `hold` an Event to keep logins waiting.

    `hold_recalls` does the same with recalls. `tries` are the passphrases that were compared; `hold_tries` keeps them,
    and that of Lock, waiting; `broken` is what the helper says to them in place of an answer, `forget_fault` what the
    store says when it is to forget.
    """

    def __init__(self, d7: FakeD7, store: FakeStore) -> None:
        super().__init__({})
        self.d7, self.store = d7, store
        self.hold: asyncio.Event | None = None
        self.hold_recalls: asyncio.Event | None = None
        self.hold_tries: asyncio.Event | None = None
        self.hold_forgets: asyncio.Event | None = None
        self.broken: jobs.Failed | None = None
        self.forget_fault: jobs.Failed | None = None
        self.tries: list[str] = []

    async def run(
        self,
        job: Job,
        *,
        raw: bytearray | None = None,
        prompt: bool = False,
        urgent: Callable[[], bool] = lambda: False,
    ) -> Reply:
        """The job's reply."""
        match job:
            case jobs.Recall():
                await _held(self.hold_recalls)
                return self.store.recall()
            case jobs.Login():
                await _held(self.hold)
                self.d7.note_login()
                return self.store.log_in(self.d7)
            case jobs.Prove(access_token=token):
                return self.d7.prove(token.reveal())
            case jobs.Forget() if self.forget_fault is not None:
                return self.forget_fault
            case jobs.Forget(token_only=token_only):
                await _held(self.hold_forgets)
                self.store.remembered = None
                self.store.holds = self.store.holds and token_only
                return jobs.Done()
            case jobs.HashPassphrase() | jobs.CheckPassphrase():
                return await self._passphrase(job, raw or bytearray())
            case jobs.Keep():
                await _held(self.hold)
                return jobs.Done()
            case _:
                return jobs.Done()

    async def _passphrase(self, job: jobs.HashPassphrase | jobs.CheckPassphrase, raw: bytearray) -> Reply:
        passphrase = json.loads(raw or b"{}").get("passphrase", "")
        await _held(self.hold_tries)
        if self.broken is not None:
            return self.broken
        if isinstance(job, jobs.HashPassphrase):
            return jobs.Hashed("salt", passphrase)
        self.tries.append(passphrase)
        return jobs.Checked(right=passphrase == job.digest)


async def _held(by: asyncio.Event | None) -> None:
    if by is not None:
        await by.wait()


class World:
    """The agent, what is around it, and hands to turn time and configuration with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.d7 = FakeD7(self.clock)
        self.store = FakeStore()
        self.helpers = FakeHelpers(self.d7, self.store)
        self.agent = Agent(paths_in(folder), self.clock, self.helpers)

    @property
    def keeper(self) -> Keeper:
        """The keeper of the default profile."""
        return self.agent.keepers["default"]

    @property
    def token(self) -> str:
        """The token in hand."""
        grant = self.keeper.state.grant
        assert grant is not None
        return grant.access_token.reveal()

    def configure(self, *profiles: Profile, hooks: Hooks | None = None) -> None:
        """Put these profiles in force."""
        by_name = {profile.name: profile for profile in profiles}
        self.agent.apply(Config(profiles=by_name, hooks=hooks or Hooks()))

    async def calm(self) -> None:
        """Wait until no helper is at work."""
        for keeper in tuple(self.agent.keepers.values()):
            errands = keeper._errands
            while errands._task is not None and not errands._task.done():
                await errands.ended()

    async def pass_time(self, seconds: float) -> None:
        """Time passes; the alarm rings for what is due by then, and its answers come in."""
        self.clock.advance(seconds)
        self.agent.alarm._turn()
        await self.calm()

    async def refresh(self) -> None:
        """A new token, as by `renew`; the clock advances past the pause between two of them."""
        self.clock.advance(11)
        self.keeper.feed(states.Renewed())
        await self.calm()

    async def lock(self) -> None:
        """Lock the agent."""
        await self.agent.lock.lock(bytearray(), _nothing_to_settle)


async def _nothing_to_settle() -> None:
    return


@contextlib.asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """A world in this folder; its agent is closed at the end."""
    made = World(folder)
    try:
        yield made
    finally:
        await made.agent.close()


def profile(*sinks: Sink, name: str = "default", max_age: float = 43_200.0) -> Profile:
    """A profile with these sinks."""
    return Profile(name=name, sinks=sinks, max_age=max_age)


async def until(holds: Callable[[], bool], changed: asyncio.Event, limit: float = 10.0) -> None:
    """Wait until `holds()`, looking after every `changed`."""
    async with asyncio.timeout(limit):
        while not holds():
            changed.clear()
            await changed.wait()


def run(folder: Path, story: Callable[[World], Awaitable[None]]) -> None:
    """Run a story in a world of its own; it leaves no task behind."""

    async def whole() -> None:
        async with world(folder) as made:
            await story(made)

    asyncio.run(whole())


def is_root() -> bool:
    """Whether files can be given to other users here."""
    return os.geteuid() == 0
