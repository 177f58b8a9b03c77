"""A connection among the others: its place in its user's share, whether it may ask, and in which lane it is served."""

from abc import abstractmethod
from collections import OrderedDict
from typing import Final

from d7agent.agent.channel import Channel
from d7agent.agent.dispatch import refusal
from d7agent.agent.poller import READ
from d7agent.agent.roster import Share

KNOWN: Final = 3  # times more that bytes were of the one manner than of the other tell what client this is


class Guest(Channel):
    """What the roster and the poller have of a connection. `agent.connection.Connection` is the rest of it."""

    _idle: "OrderedDict[Guest, None]"
    _share: "Share[Guest] | None" = None  # our place among the uid's connections, while we have one
    _held = 0  # bytes of requests waiting here that are counted in our share
    _refusal: bytes | None = None  # the error frame for a peer that may not ask
    _checked = False  # whether that is up to date
    _judged = False  # whether we are listed as one who may not ask
    _manner = 0  # counts up for a request answered quickly, down for halves and what is sent ahead; KNOWN at most

    @property
    @abstractmethod
    def has_asked(self) -> bool:
        """Whether any byte has come."""

    @property
    @abstractmethod
    def awaits_answer(self) -> bool:
        """Whether a call is open that has one answer."""

    @abstractmethod
    def policy_changed(self) -> None:
        """Whether the peer may ask is to be found out anew: at its next call, or now if one is open."""

    @abstractmethod
    def inspect(self, now: float) -> bool:
        """Drop a peer that keeps us waiting at boot instant `now`; whether to look again."""

    def evict(self) -> None:
        """Make room for another connection: at once, since what it holds up must not outlast its place."""
        self._leave()
        self.abort()

    def _enter(self) -> bool:
        """Take a place; False when there is none for this peer."""
        share = self._share = self._host.opened(self)
        if share is None:
            return False
        self._idle = share.idle
        self._idle[self] = None
        if self._refused() is not None and len(share.members) > self._host.limits.refused_per_uid:
            self._leave()
        return self._share is not None

    def _leave(self) -> None:
        share, self._share = self._share, None
        if share is not None:
            share.bytes -= self._held
            self._held = 0
            self._host.closed(self, share)

    def _refused(self) -> bytes | None:
        """The error frame for a peer that may not ask, None for one that may."""
        if not self._checked:
            self._refusal = refusal(self._host.handler, self.peer)
            self._checked = True
            if self._judged != (self._refusal is not None):
                self._judged = not self._judged
                self._host.judged(self, refused=self._judged)
        return self._refusal

    def _place(self, *, free: bool, half: bool) -> None:
        """Say whether it may be closed for room: having nothing in hand, or no more than an unfinished request."""
        share = self._share
        if share is None:
            return
        if free:
            share.idle[self] = None
            share.idle.move_to_end(self)
        else:
            share.idle.pop(self, None)
        if half:
            share.halves.setdefault(self)
        else:
            share.halves.pop(self, None)

    def _hold(self, held: int) -> None:
        """Count so many bytes of waiting requests in our share, and stay within it."""
        share = self._share
        if held != self._held and share is not None:
            share.bytes += held - self._held
            self._held = held
            if share.bytes > self._host.limits.half_requests:
                self._drop("its user leaves too many requests unfinished")

    def _was_quick(self) -> None:
        if self._manner < KNOWN:
            self._manner += 1
        if self._manner == KNOWN and self._watched == READ:
            self._host.poller.hand_over(self._sock.fileno())

    def _was_not_quick(self, *, more_to_come: bool) -> None:
        """Only what is quick is served without a bound. `more_to_come`: half a request is left, or more sent ahead."""
        self._host.poller.take_back(self._sock.fileno())
        if more_to_come and self._manner > -KNOWN:
            self._manner -= 1
        if self._manner == -KNOWN and not self._closing:
            self._host.poller.demote(self._sock.fileno(), self._watched)
