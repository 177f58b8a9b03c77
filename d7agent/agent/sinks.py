"""Sinks: the always-fresh files of all profiles. Each is what the token in hand says, or is not there at all.

Whatever happens to a token only marks its profile; a moment later each of its files is compared with what it should
be, and the difference is carried out beside the loop. A path has one piece of work under way at most, so that nothing
late can overwrite what is newer.
"""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Final

from d7agent.agent.agent import Agent
from d7agent.agent.aside import Aside
from d7agent.agent.keeper import Keeper
from d7agent.agent.sink_file import Identity, still_there
from d7agent.agent.slot import Content, Slot
from d7agent.core import answers, lifecycle
from d7agent.core.forms import Facts
from d7agent.core.model import Grant
from d7agent.core.states import State
from d7agent.wire.messages import SinkStatus

log = logging.getLogger(__name__)

MARGIN: Final = 3600.0  # seconds beyond `max_age` for which a token without expiry may be taken from a file
RENEW: Final = MARGIN / 2  # seconds before the end of that, at which an agent that still serves the token says so anew
SETTLE: Final = 1.0  # seconds that a hook waits for the files; longer than any that does not hang needs
LOOK_EVERY: Final = 60.0  # seconds between two looks whether the files are still there


class Sinks:
    """The sinks of one agent. All methods run on the loop."""

    def __init__(self, agent: Agent, aside: Aside | None = None, *, look_every: float = LOOK_EVERY) -> None:
        self._agent = agent
        self._aside = aside or Aside()
        self._look_every = look_every
        self._slots: dict[str, Slot] = {}
        self._of: dict[str, list[Slot]] = {}
        self._marked: set[str] = set()
        self._flush: asyncio.Handle | None = None
        self._renewals: dict[str, float] = {}
        self._soonest = float("inf")
        self._looked = agent.clock.now().boot
        self._closed = self._looking = False
        for listeners in (agent.on_pushed, agent.on_gone, agent.on_changed, agent.on_removed):
            listeners.append(self._mark)
        agent.on_configured.append(self._configured)
        agent.on_turn.append(self._turned)

    def status(self, profile: str) -> tuple[SinkStatus, ...]:
        """How the profile's files do, in the order of the configuration."""
        now = self._agent.clock.now().boot
        found = ((slot, slot.trouble(now)) for slot in self._of.get(profile, ()))
        return tuple(SinkStatus(path=slot.path, ok=not error, error=error or None) for slot, error in found)

    async def settled(self, profile: str) -> None:
        """Wait, a second at most, until the profile's files are what its token says: a hook may want to read them."""
        if self._flush is not None:
            await asyncio.sleep(0)  # the comparison is due in this turn of the loop
        await self._settled(self._of.get(profile, ()), SETTLE)

    async def close(self, limit: float) -> None:
        """Remove every file; after `limit` seconds what still hangs is left, with a line in the log."""
        self._closed = True
        slots = list(self._slots.values())
        for slot in slots:
            slot.end()
        await self._settled(slots, limit)
        for slot in slots:
            if slot.busy:
                log.warning("%s: the sink %s could not be removed in time", slot.profile, slot.path)

    async def _settled(self, slots: Iterable[Slot], limit: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await asyncio.gather(*(slot.settled() for slot in slots))

    def _configured(self) -> None:
        """The configuration is another: files that it no longer names are removed, failures tried again."""
        found = {sink.path: (name, sink) for name, p in self._agent.config.profiles.items() for sink in p.sinks}
        for path in self._slots.keys() - found.keys():
            self._slots[path].leave(partial(self._forget, path))
        self._of = {}
        for path, (name, sink) in found.items():
            slot = self._slots.get(path)
            if slot is None:
                slot = self._slots[path] = Slot(path, self._agent.clock, self._aside)
            slot.assign(name, sink, partial(self._told, name))
            self._of.setdefault(name, []).append(slot)
        self._marked.update(self._of)
        self._later()

    def _forget(self, path: str) -> None:
        del self._slots[path]

    def _told(self, name: str) -> None:
        keeper = self._agent.keepers.get(name)
        if keeper is not None and not self._closed:
            self._agent.changed(keeper)

    def _mark(self, keeper: Keeper) -> None:
        if keeper.profile.name in self._of:
            self._marked.add(keeper.profile.name)
            self._later()

    def _later(self) -> None:
        """At the end of this turn of the loop: a token that went and its successor are one change."""
        if self._flush is None and not self._closed:
            self._flush = asyncio.get_running_loop().call_soon(self._compare)

    def _compare(self) -> None:
        self._flush = None
        marked, self._marked = self._marked, set()
        if not self._closed:
            for name in marked:
                self._compare_profile(name)

    def _compare_profile(self, name: str) -> None:
        keeper = self._agent.keepers.get(name)
        held = None if keeper is None else lifecycle.alive(keeper.state.grant, self._agent.clock.now().boot)
        slots = self._of.get(name, ())
        if keeper is None or held is None:
            self._renewals.pop(name, None)
            # At the start a file of an agent before us may hold the very token that the store is asked for right now.
            pending = keeper is not None and keeper.state.phase in answers.UNDER_WAY
            for slot in slots:
                if not (pending and slot.untouched):
                    slot.want(None)
            return
        until = self._use_before(keeper.state, held, [slot.use_before for slot in slots])
        facts = Facts(profile=name, boot_id=self._agent.clock.now().boot_id, use_before=int(until))
        for slot in slots:
            slot.want(Content(held, facts))

    def _use_before(self, state: State, held: Grant, written: list[float]) -> float:
        """Until when a reader may trust a file on its own, on the boot clock.

        A token without expiry that the agent goes on serving past its `max_age` gets another hour, again and again.
        """
        if held.expires is not None:
            return held.expires
        now = self._agent.clock.now().boot
        confirmed = held.received.boot if state.login_at is None else max(held.received.boot, state.login_at)
        until = confirmed + state.policy.max_age + MARGIN
        if until < now + RENEW:
            until = max(written, default=0.0)
        if until < now + RENEW:
            until = now + MARGIN
        self._renewals[state.profile] = until - RENEW
        self._soonest = min(self._soonest, until - RENEW)
        return until

    def _turned(self) -> None:
        now = self._agent.clock.now().boot
        if now >= self._soonest:
            due = [name for name, at in self._renewals.items() if now >= at]
            self._soonest = min((at for at in self._renewals.values() if now < at), default=float("inf"))
            self._marked.update(due)
            self._later()
        if now - self._looked >= self._look_every:
            self._looked = now
            for slot in self._slots.values():
                slot.warn_if_slow(now)
            self._look()

    def _look(self) -> None:
        """See whether the files are still there; those that someone removed or replaced are written anew."""
        written = {slot.path: slot.identity for slot in self._slots.values() if slot.identity and not slot.busy}
        if not written or self._looking:
            return
        self._looking = True
        loop = asyncio.get_running_loop()

        def work() -> None:
            lost = [path for path, identity in written.items() if not still_there(path, identity)]
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._seen, {path: written[path] for path in lost})

        self._aside.run(work)

    def _seen(self, lost: dict[str, Identity]) -> None:
        self._looking = False
        for path, identity in lost.items():
            slot = self._slots.get(path)
            if slot is not None and slot.identity == identity and not slot.busy:
                slot.lost()
