"""The helpers of one profile: one after the other, each result fed to the machine with the generation it was for."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from d7agent.agent.world import World
from d7agent.core import jobs, states
from d7agent.core.jobs import Failed, Reply
from d7agent.core.model import Grant

if TYPE_CHECKING:
    from d7agent.agent.keeper import Keeper


class Errands:
    """Runs what the machine asks for. A new errand begins when the former helper is gone: no two logins at once."""

    def __init__(self, keeper: "Keeper", world: World) -> None:
        self._keeper = keeper
        self._world = world
        self._task: asyncio.Task[None] | None = None

    def recall(self, generation: int) -> None:
        """Look for a remembered token."""
        self._start(partial(self._recall, generation))

    def login(self, generation: int, *, prompt: bool) -> None:
        """Log in."""
        self._start(partial(self._login, generation, prompt=prompt))

    def prove(self, generation: int, grant: Grant) -> None:
        """Prove the token."""
        self._start(partial(self._prove, generation, grant))

    def forget_token(self) -> None:
        """Delete the remembered token."""
        self._start(self._forget_token)

    def cancel(self) -> None:
        """End the errand under way; its result would be void."""
        if self._task is not None:
            self._task.cancel()

    async def ended(self) -> None:
        """Wait until no helper of this profile runs any more."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        former = self._task

        async def after() -> None:
            if former is not None and not former.done():
                await asyncio.gather(former, return_exceptions=True)
            await work()

        self._task = asyncio.get_running_loop().create_task(after())

    async def _recall(self, generation: int) -> None:
        job = jobs.Recall(self._keeper.target(), self._world.clock.now())
        reply = _expected(await self._run(job), jobs.Granted, jobs.Nothing)
        self._keeper.feed(states.Recalled(generation, reply, self._world.draw()))

    async def _login(self, generation: int, *, prompt: bool) -> None:
        job = jobs.Login(self._keeper.target(), self._world.clock.now(), prompt=prompt)
        reply = _expected(await self._run(job, prompt=prompt), jobs.Granted)
        self._keeper.feed(states.LoggedIn(generation, reply, self._world.draw()))

    async def _prove(self, generation: int, grant: Grant) -> None:
        job = jobs.Prove(self._keeper.profile.base_url, grant.access_token)
        self._keeper.feed(states.ProofCame(generation, _expected(await self._run(job), jobs.Proved)))

    async def _forget_token(self) -> None:
        await self._run(jobs.Forget(self._keeper.target(), token_only=True))

    async def _run(self, job: jobs.Job, *, prompt: bool = False) -> Reply:
        return await self._world.helpers.run(job, prompt=prompt, urgent=lambda: self._keeper.waiting > 0)


def _expected(reply: Reply, *kinds: type) -> Any:
    """The reply, if it is of a kind this job has; a helper that answers another question has failed."""
    if isinstance(reply, Failed) or type(reply) in kinds:
        return reply
    return Failed("helper_failed", f"the helper answered {type(reply).__name__} to another question", "see the journal")
