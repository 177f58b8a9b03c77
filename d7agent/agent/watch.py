"""Edits of the configuration and of `directory` stores, seen within 5 s at some 26 wake-ups a minute.

inotify only hints that something happened in a folder; whether a file of ours changed is decided by looking. So nothing
unrelated counts as an edit, and nothing is missed where inotify is silent or not to be had.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Final

from d7agent.agent.hints import Hints
from d7agent.agent.looking import Change, Look, difference, folders, look
from d7agent.core.paths import Paths

__all__ = ["Change", "Look", "look", "watch"]

STEP: Final = 2.5  # seconds between glances at the hints: with all the settling an edit is known within 5 s
SETTLE: Final = 0.2  # seconds of quiet after a hint, so that an editor's several steps are one change
MAX_SETTLE: Final = 5  # rounds of it: a file that is written all the time is looked at all the same
LOOK_EVERY: Final = 24  # glances: a look without a hint every 60 s, for network file systems, which hint at nothing

Changed = Callable[[Change], Awaitable[None] | None]


async def watch(
    paths: Paths,
    changed: Changed,
    stop: asyncio.Event,
    stores: Callable[[], Iterable[str]] = tuple,
    seen: Look | None = None,
    step: float = STEP,
    hints: Hints | None = None,
) -> None:
    """Call (and await) `changed` after every edit until `stop` is set. What `changed` raises ends the watch.

    `stores` gives the folders of `directory` stores, and is asked again for each look. `seen`: a look taken before the
    files were read, so that no edit between reading and watching is lost. `step` in seconds. Where there are no `hints`
    (inotify is used up) every step is a look.
    """
    hints = hints or Hints()
    last = seen or look(paths, stores())
    glances = 0
    due = True
    try:
        while not stop.is_set():
            if due:
                await _settle(hints, stop, min(SETTLE, step))
                fresh = hints.arm(folders(paths, stores()))
                change = difference(last, last := look(paths, stores()))
                await _call(changed, change)
                due = fresh or bool(change)  # once more: what came before the watch was armed was not hinted at
                continue
            await _pause(stop, step)
            glances += 1
            due = hints.glance() or not hints.armed or glances % LOOK_EVERY == 0
    finally:
        hints.close()


async def _call(changed: Changed, change: Change) -> None:
    if change:
        answer = changed(change)
        if answer is not None:
            await answer


async def _settle(hints: Hints, stop: asyncio.Event, quiet: float) -> None:
    """Wait until nothing has happened for `quiet` seconds, five times that at most."""
    for _ in range(MAX_SETTLE):
        await _pause(stop, quiet)
        if not hints.glance():
            return


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
