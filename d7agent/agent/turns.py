"""How long one kind of work may go on before the others get theirs, and the queue of what was put off.

A turn of the loop serves everybody who is ready. What a crowd of clients brings about (accepting them, their bytes,
what they have sent ahead) takes a bounded time in each turn, so that a client with one question waits for little.
"""

import asyncio
from collections import OrderedDict
from typing import Final, Protocol

from d7agent.core.clock import boot_time

TURN: Final = 0.00005  # seconds for each kind of work: two or three requests, several times what a turn itself costs


class Worker(Protocol):
    """Somebody with work for later."""

    def take_turn(self) -> None:
        """Do some of it."""


class Turns:
    """Those who wait for their next turn, in the order of coming; each has one place."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: OrderedDict[Worker, None] = OrderedDict()
        self._soon = False

    def add(self, worker: Worker) -> None:
        """Have it take a turn, not in this turn of the loop."""
        self._waiting[worker] = None
        self._rearm()

    def discard(self, worker: Worker) -> None:
        """It has nothing to do any more."""
        self._waiting.pop(worker, None)

    def _rearm(self) -> None:
        if self._waiting and not self._soon:
            self._soon = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._soon = False
        until = boot_time() + TURN
        try:
            for _ in range(len(self._waiting)):  # who adds itself again comes in the next turn
                self._waiting.popitem(last=False)[0].take_turn()
                if boot_time() > until or not self._waiting:
                    break
        finally:  # one that breaks keeps nobody waiting
            self._rearm()
