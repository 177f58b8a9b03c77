"""Those who wait for one profile's token: in the order of asking, and by the instant at which each gives up.

While D7 hangs there may be ten thousand of them. Each that comes, leaves or runs out of time costs the same, however
many the others are; only a change of the profile's state makes us look at all.
"""

import heapq
import itertools
from collections.abc import Callable
from typing import Final

from d7agent.core.errors import AgentError
from d7agent.core.model import Grant
from d7agent.core.states import Ask

SLACK: Final = 64  # instants kept of callers that have left, beyond as many as are still waited for

Done = Callable[["Grant | AgentError"], None]


class Waiter:
    """One caller's open question."""

    __slots__ = ("ask", "done")

    def __init__(self, ask: Ask, done: Done) -> None:
        self.ask = ask
        self.done = done


class Waiters:
    """All open questions of a profile."""

    def __init__(self) -> None:
        self._waiting: dict[Waiter, None] = {}
        self._heap: list[tuple[float, int, Waiter]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def deadline(self) -> float:
        """The boot instant at which the first of them runs out of time; infinity when nobody waits."""
        self._drop_gone()
        return self._heap[0][0] if self._heap else float("inf")

    def all(self) -> list[Waiter]:
        """Everybody, in the order of asking."""
        return list(self._waiting)

    def add(self, waiter: Waiter) -> None:
        """One more."""
        self._waiting[waiter] = None
        heapq.heappush(self._heap, (waiter.ask.deadline, next(self._order), waiter))

    def remove(self, waiter: Waiter) -> None:
        """One less; nothing if it has gone already."""
        self._waiting.pop(waiter, None)
        if len(self._heap) > 2 * len(self._waiting) + SLACK:
            self._heap = [entry for entry in self._heap if entry[2] in self._waiting]
            heapq.heapify(self._heap)

    def overdue(self, now: float) -> list[Waiter]:
        """Those whose time is over at boot instant `now`. They wait no longer."""
        found = []
        while self.deadline <= now:
            waiter = heapq.heappop(self._heap)[2]
            del self._waiting[waiter]
            found.append(waiter)
        return found

    def _drop_gone(self) -> None:
        while self._heap and self._heap[0][2] not in self._waiting:
            heapq.heappop(self._heap)
