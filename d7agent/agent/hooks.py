"""Hooks: the owner's programs, run on events, one at a time. They are told what happened and never get a token."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from msgspec import Struct

from d7agent.agent.agent import Agent
from d7agent.agent.helpers import whitelisted
from d7agent.agent.hook_process import Failure, Output, run
from d7agent.agent.keeper import Keeper
from d7agent.core.states import Hooked, HookEvent

log = logging.getLogger(__name__)

LIMIT: Final = 10.0  # seconds a hook may take; what was to be told is old news by then
QUEUE: Final = 64  # events that wait; beyond it old ones are dropped, refreshes first
MAX_TEXT: Final = 1000  # characters of a reason or message handed over


Before = Callable[[str], Awaitable[None]]


class Event(Struct, frozen=True):
    """One event of one profile."""

    profile: str
    what: Hooked


class Hooks:
    """The hooks of one agent. All methods run on the loop. `before` is awaited before each hook, with the profile."""

    def __init__(
        self, agent: Agent, environment: Mapping[str, str], before: Before | None = None, limit: float = LIMIT
    ) -> None:
        self._agent = agent
        self._before = before
        self._environment = environment
        self._limit = limit
        self._queue: deque[Event] = deque()
        self._dropped = 0
        self._failures: dict[HookEvent, str] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        agent.on_hooked.append(self._hooked)
        agent.on_configured.append(self._configured)

    def status(self) -> tuple[str, ...]:
        """What went wrong the last time, a line for each event whose hook has not worked since."""
        return tuple(f"on_{event}: {text}" for event, text in sorted(self._failures.items()))

    async def close(self) -> None:
        """End the hook under way, with all that it started, and drop the rest."""
        self._closed = True
        if self._queue:
            log.warning("the agent ends: %d hooks are not run", len(self._queue))
            self._queue.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _argv(self, event: HookEvent) -> tuple[str, ...]:
        found: tuple[str, ...] = getattr(self._agent.config.hooks, f"on_{event}")
        return found

    def _configured(self) -> None:
        """A hook that is configured no more has no failures."""
        self._failures = {event: text for event, text in self._failures.items() if self._argv(event)}

    def _hooked(self, keeper: Keeper, effect: Hooked) -> None:
        if self._closed or not self._argv(effect.event):
            return
        self._queue.append(Event(keeper.profile.name, effect))
        if len(self._queue) > QUEUE:
            self._drop()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    def _drop(self) -> None:
        """Let go of the oldest refresh, else of the oldest event: a page that wakes somebody is worth more."""
        event = next((event for event in self._queue if event.what.event == "refreshed"), self._queue[0])
        self._queue.remove(event)
        self._dropped += 1
        if self._dropped == 1:
            log.warning("hooks are slower than events come: on_%s of %s is dropped", event.what.event, event.profile)

    async def _work(self) -> None:
        try:
            while self._queue:
                await self._run(self._queue.popleft())
        finally:
            self._task = None
            if self._dropped > 1:
                log.warning("hooks were slower than events came: %d in all were dropped", self._dropped)
            self._dropped = 0

    async def _run(self, event: Event) -> None:
        name, argv = event.what.event, self._argv(event.what.event)
        if not argv:
            return
        label = f"on_{name} ({event.profile})"
        if self._before is not None:
            await self._before(event.profile)
        try:
            await self._run_process(argv, event, label)
        except Failure as failure:
            self._failures[name] = f"{argv[0]} {failure} (profile {event.profile})"
            log.warning("%s: %s %s", label, argv[0], failure)
        else:
            if self._failures.pop(name, None) is None:
                return
        keeper = self._agent.keepers.get(event.profile)
        if keeper is not None:
            self._agent.changed(keeper)

    async def _run_process(self, argv: tuple[str, ...], event: Event, label: str) -> None:
        with Output() as output:
            try:
                await run(argv, self._variables(event), self._limit, output)
            finally:
                output.read()
                for line in output.lines:
                    log.info("%s: %s", label, line)

    def _variables(self, event: Event) -> dict[str, str]:
        """The whitelisted environment and what happened."""
        return whitelisted(self._environment) | {
            "D7AGENT_EVENT": event.what.event,
            "D7AGENT_PROFILE": event.profile,
            "D7AGENT_REASON": _plain(event.what.reason),
            "D7AGENT_MESSAGE": _plain(event.what.message),
        }


def _plain(text: str) -> str:
    """One printable line: D7 or a proxy may have had a hand in it."""
    return "".join(sign if sign.isprintable() else " " for sign in text[:MAX_TEXT]).strip()
