"""A reader that leaves its answers waiting: how long, and how much."""

import asyncio
from typing import Final

from d7agent.agent.limits import Limits


class Stall:
    """Lasts from the instant at which a client's answers had to wait until all of them are sent."""

    __slots__ = ("_drained", "_limits", "_queued", "_since", "_transport")

    def __init__(self, transport: asyncio.Transport, limits: Limits, now: float) -> None:
        self._transport: Final = transport
        self._limits = limits
        self._since = now  # boot instant of the last byte taken
        self._queued = transport.get_write_buffer_size()  # bytes handed over since the stall began
        self._drained = 0  # and taken

    def add(self, frame: bytes) -> bool:
        """Put a frame behind the others; False, with nothing sent, when too much is waiting already."""
        if self._transport.get_write_buffer_size() > self._limits.unread:
            return False
        self._queued += len(frame)
        self._transport.write(frame)
        return True

    def overdue(self, now: float) -> bool:
        """Whether nothing was taken for `stall_time`; `now` is a boot instant."""
        drained = self._queued - self._transport.get_write_buffer_size()
        if drained > self._drained:
            self._drained, self._since = drained, now
        return now - self._since >= self._limits.stall_time
