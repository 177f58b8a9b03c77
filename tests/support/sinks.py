"""Stories about sinks: a real Agent with Sinks, and a file system that hangs at will."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

from d7agent.agent.aside import Aside, Work
from d7agent.agent.sinks import Sinks
from d7agent.core.config import SinkFormat
from d7agent.core.forms import Facts, sink_form
from tests.support import agents
from tests.support.agents import World

Story = Callable[[World, Sinks], Awaitable[None]]


class Gate(Aside):
    """Work waits at it until it is let through: a file system that hangs. `count` is how much has come."""

    def __init__(self) -> None:
        super().__init__()
        self.held: deque[Work] = deque()
        self.open = True
        self.count = 0

    def run(self, work: Work) -> None:
        """Count it, and do it or hold it."""
        self.count += 1
        if self.open:
            super().run(work)
        else:
            self.held.append(work)

    def release(self) -> None:
        """Let the first one through."""
        super().run(self.held.popleft())


class Inline(Aside):
    """Does the work at once."""

    def run(self, work: Work) -> None:
        """Do it."""
        work()


async def settle(sinks: Sinks) -> None:
    """Wait until every file is what it should be, or has failed to be."""
    await asyncio.sleep(0)  # real time: none; the comparison is due in this turn of the loop
    await sinks._settled(list(sinks._slots.values()), 20)


def tell(folder: Path, story: Story, aside: Aside | None = None) -> None:
    """Run a story with sinks; they are closed at its end."""

    async def whole(w: World) -> None:
        sinks = Sinks(w.agent, aside)
        try:
            await story(w, sinks)
        finally:
            await sinks.close(5)

    agents.run(folder, whole)


def error(sinks: Sinks, name: str = "default") -> str:
    """The error of the profile's first sink, "" for none."""
    status = sinks.status(name)[0]
    assert status.ok == (status.error is None)
    return status.error or ""


def content(w: World, form: SinkFormat = "env") -> bytes:
    """What a sink of this format is to hold now."""
    grant = w.keeper.state.grant
    assert grant is not None
    assert grant.expires is not None
    facts = Facts("default", w.clock.now().boot_id, int(grant.expires))
    return bytes(sink_form(form, w.token, facts))
