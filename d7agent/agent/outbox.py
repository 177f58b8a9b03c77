"""Answers on their way to one client, and whether it takes them."""

import asyncio
from typing import Final

from d7agent.agent.limits import Limits
from d7agent.core.clock import Clock


class Outbox:
    """The sending side of a connection. The transport tells it, by `pause` and `resume`, when bytes have to wait."""

    __slots__ = ("_clock", "_drained", "_limits", "_queued", "_since", "_transport", "stalled")

    def __init__(self, transport: asyncio.Transport, limits: Limits, clock: Clock) -> None:
        self._transport: Final = transport
        self._limits = limits
        self._clock = clock
        self.stalled = False  # bytes are waiting for the reader
        self._since = 0.0  # boot instant of the last byte it took
        self._queued = 0  # bytes handed over since the stall began
        self._drained = 0  # and taken
        transport.set_write_buffer_limits(high=0)  # any byte that has to wait calls `pause`

    def send(self, frame: bytes) -> bool:
        """Send a frame; False, with nothing sent, when the reader leaves too much waiting and is to be dropped."""
        if self.stalled:
            if self._transport.get_write_buffer_size() > self._limits.unread:
                return False
            self._queued += len(frame)
        self._transport.write(frame)
        return True

    def pause(self) -> None:
        """The socket took no more."""
        self.stalled = True
        self._since = self._clock.now().boot
        self._queued = self._transport.get_write_buffer_size()
        self._drained = 0

    def resume(self) -> None:
        """All is sent."""
        self.stalled = False

    def overdue(self, now: float) -> bool:
        """Whether the reader has taken nothing for `stall_time`; `now` is a boot instant."""
        if not self.stalled:
            return False
        drained = self._queued - self._transport.get_write_buffer_size()
        if drained > self._drained:
            self._drained, self._since = drained, now
        return now - self._since >= self._limits.stall_time
