"""Who holds connections: the caps, and which connection makes room at a cap."""

from collections import OrderedDict
from typing import Final, Generic, Protocol, TypeVar

from d7agent.agent.limits import Limits


class Member(Protocol):
    """A connection, as far as the roster cares."""

    def evict(self) -> None:
        """Close: it has left the roster to make room."""


M = TypeVar("M", bound=Member)


class Share(Generic[M]):
    """One uid's connections. `idle` has those that may be closed for room, the longest idle first."""

    __slots__ = ("bytes", "count", "idle", "uid")

    def __init__(self, uid: int) -> None:
        self.uid: Final = uid
        self.count = 0
        self.bytes = 0  # held in half and pipelined requests
        self.idle: OrderedDict[M, None] = OrderedDict()


class Roster(Generic[M]):
    """All connections by uid, within the limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._shares: dict[int, Share[M]] = {}
        self.count = 0

    def join(self, uid: int) -> Share[M] | None:
        """A place for one more connection of `uid`, for which the longest idle one may have to leave; None: no room.

        At its own cap a uid makes room itself. At the cap for all, the uid that holds most does: nobody's flood
        closes the connections of another.
        """
        share = self._shares.get(uid)
        if share is not None and share.count >= self._limits.per_uid and not self._make_room(share):
            return None
        if self.count >= self._limits.connections and not self._make_room_for_all():
            return None
        share = self._shares.setdefault(uid, Share(uid))
        share.count += 1
        self.count += 1
        return share

    def leave(self, share: Share[M], member: M) -> None:
        """Give the place back."""
        share.idle.pop(member, None)
        share.count -= 1
        self.count -= 1
        if not share.count:
            del self._shares[share.uid]

    def _make_room_for_all(self) -> bool:
        holders = sorted(self._shares.values(), key=lambda share: share.count, reverse=True)
        return any(self._make_room(share) for share in holders)

    def _make_room(self, share: Share[M]) -> bool:
        if not share.idle:
            return False
        member, _ = share.idle.popitem(last=False)
        member.evict()
        return True
