"""What tests of the asyncio client share: two kinds of event loop, and a scripted agent that pushes tokens."""

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any, Final

import uvloop

from tests.support import fakeagent
from tests.support.fakeagent import FakeAgent

Run = Callable[[Coroutine[Any, Any, None]], None]
FACTORIES: Final = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
LIMIT = 20.0  # seconds for one test's loop: what hangs fails


def runner(kind: str) -> Run:
    """Runs a coroutine to its end on this kind of loop, and looks whether it left anything open."""

    def run(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=FACTORIES[kind], debug=True) as loop:
            loop.run(asyncio.wait_for(main, LIMIT))
        gc.collect()  # an open socket would warn here, and warnings are errors

    return run


def stream(*replies: dict[str, Any]) -> list[fakeagent.Answer]:
    """A script of GetToken: these replies, one after the other, to a call with `more`."""
    return [reply if "error" in reply else {**reply, "continues": True} for reply in replies]


def push(agent: FakeAgent, reply: dict[str, Any]) -> None:
    """One more reply on every connection of the scripted agent."""
    for connection in list(agent._open):
        connection.sendall(fakeagent.encode({**reply, "continues": True}))


async def until(condition: Callable[[], bool]) -> None:
    """Let the other tasks run until this holds; the limit is the test's own."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)  # real time: what happens in the agent's thread cannot be awaited
