"""One timer for all profiles: the earliest wanted instant, on a clock that a suspend cannot stop."""

import asyncio
import heapq
from collections.abc import Callable
from typing import Final

from d7agent.core.clock import Clock

LONGEST_SLEEP: Final = 30.0  # seconds; loop timers stop in a suspend (CLOCK_MONOTONIC), so we look again this often
SLACK: Final = 64  # instants kept that were replaced before they came, beyond as many as are wanted
SOONEST: Final = 0.001  # seconds; the loop's own resolution


class Alarm:
    """Calls `ring(name)` at the boot instant last set for the name, or at most 30 s after the machine woke up.

    `turned` is called on every turn: what a watchdog may rely on.
    """

    def __init__(self, clock: Clock, ring: Callable[[str], None], turned: Callable[[], None] = lambda: None) -> None:
        self._clock = clock
        self._ring = ring
        self._turned = turned
        self._wanted: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._handle: asyncio.TimerHandle | None = None
        self._set_for = float("inf")
        self.longest_sleep = LONGEST_SLEEP

    def set(self, name: str, at: float | None) -> None:
        """Ring for `name` at `at`; None: not at all. Replaces what was set before."""
        if at is None:
            self._wanted.pop(name, None)
            return
        if self._wanted.get(name) == at:
            return
        self._wanted[name] = at
        heapq.heappush(self._heap, (at, name))
        if len(self._heap) > 2 * len(self._wanted) + SLACK:
            self._heap = [(at, name) for name, at in self._wanted.items()]
            heapq.heapify(self._heap)
        if at < self._set_for:
            self._arm()

    def start(self) -> None:
        """Begin to turn. Needs a running loop."""
        self._arm()

    def stop(self) -> None:
        """Ring no more."""
        if self._handle is not None:
            self._handle.cancel()
        self._wanted.clear()

    def _arm(self) -> None:
        """Sleep until the earliest instant that still counts, 30 s at most."""
        if self._handle is not None:
            self._handle.cancel()
        while self._heap and self._wanted.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        now = self._clock.now().boot
        due = self._heap[0][0] if self._heap else float("inf")
        delay = min(max(due - now, SOONEST), self.longest_sleep)
        self._set_for = now + delay
        self._handle = asyncio.get_running_loop().call_later(delay, self._turn)

    def _turn(self) -> None:
        now = self._clock.now().boot
        self._set_for = float("-inf")  # what the rings set is armed once, below
        while self._heap and self._heap[0][0] <= now:
            at, name = heapq.heappop(self._heap)
            if self._wanted.get(name) == at:
                del self._wanted[name]
                self._ring(name)
        self._turned()
        self._arm()
