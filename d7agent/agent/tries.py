"""Tries of the lock's passphrase: those of one uid come one after the other, and a wrong one delays its next.

Nobody waits for another uid's tries. A try that waits is dropped by cancelling its task; it leaves no trace.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from d7agent.core.clock import Clock
from d7agent.core.errors import AgentError, PermissionDenied, TokenUnavailable

log = logging.getLogger(__name__)

DELAY_FIRST: Final = 1.0  # seconds after a uid's first wrong passphrase; doubled by each further one
DELAY_LAST: Final = 60.0  # seconds
MOST: Final = 4  # tries of one uid in hand: a person makes one, in two terminals two; a guessing program gets no queue


class _Line:
    """The tries of one uid."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.look = asyncio.Event()  # it may be time for the one whose turn it is
        self.present = 0
        self.wrong = 0  # in a row
        self.not_before = 0.0  # boot instant


class Tries:
    """The tries of all uids. `wake(name, at)` has `ring(name)` called at a boot instant."""

    def __init__(self, clock: Clock, wake: Callable[[str, float], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._lines: dict[int, _Line] = {}

    @asynccontextmanager
    async def turn(self, uid: int) -> AsyncIterator[None]:
        """Wait until a try of `uid` may be looked at; within, it is. Raises TokenUnavailable when too many wait."""
        line = self._lines.setdefault(uid, _Line())
        if line.present >= MOST:
            raise self._too_many(line)
        line.present += 1
        try:
            async with line.turn:  # or many tries at once would all come before the delay
                while line.not_before > self._clock.now().boot:
                    line.look.clear()
                    self._wake(_name(uid), line.not_before)
                    await line.look.wait()
                yield
        finally:
            line.present -= 1

    def _too_many(self, line: _Line) -> AgentError:
        wait = max(1, math.ceil(line.not_before - self._clock.now().boot))
        return TokenUnavailable(
            f"{MOST} tries of the passphrase by this user wait already: this one was not looked at",
            f"try again in {wait} s, or end the program that makes the others",
            reason="backoff",
            retry_after=wait,
        )

    def wrong(self, uid: int) -> AgentError:
        """A try of `uid` was wrong: the next one waits. What to answer."""
        line = self._lines.setdefault(uid, _Line())
        line.wrong += 1
        delay = min(DELAY_FIRST * 2.0 ** min(line.wrong - 1, 10), DELAY_LAST)
        line.not_before = self._clock.now().boot + delay
        log.warning("a wrong passphrase from uid %d (%d in a row)", uid, line.wrong)
        return PermissionDenied("wrong passphrase", f"the next try is answered in {delay:.0f} s at the earliest")

    def ring(self, name: str) -> None:
        """The instant that was set for this name has come."""
        for uid, line in self._lines.items():
            if name == _name(uid):
                line.look.set()

    def over(self) -> None:
        """The agent is unlocked: nothing is held against anybody, and nobody waits any more."""
        for line in self._lines.values():
            line.wrong = 0
            line.not_before = 0.0
            line.look.set()


def _name(uid: int) -> str:
    return f"tries of uid {uid}"  # with blanks: never a profile's
