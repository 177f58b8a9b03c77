"""Who holds connections: the caps, and which connection makes room at a cap."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, Generic, Protocol, TypeVar

from d7agent.agent.limits import Limits

MOST_UIDS: Final = 256  # shares kept though empty, since who comes once comes again; subordinate uids are many


class Member(Protocol):
    """A connection, as far as the roster cares."""

    def evict(self) -> None:
        """Make room: leave the roster, then close."""


M = TypeVar("M", bound=Member)


class Share(Generic[M]):
    """One uid's connections.

    Those of `halves`, with an unfinished request, and of `idle`, with none, may be closed for room, in this order, the
    longest so first: a request is written in microseconds, and an idle client will ask again.
    """

    __slots__ = ("bytes", "halves", "idle", "members", "uid")

    def __init__(self, uid: int) -> None:
        self.uid: Final = uid
        self.members: set[M] = set()
        self.bytes = 0  # held in half and pipelined requests
        self.halves: OrderedDict[M, None] = OrderedDict()
        self.idle: OrderedDict[M, None] = OrderedDict()


class Roster(Generic[M]):
    """All connections by uid, within the limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._shares: dict[int, Share[M]] = {}
        self._refused: OrderedDict[M, None] = OrderedDict()  # those who may not ask, the longest here first
        self.count = 0

    def __iter__(self) -> Iterator[M]:
        for share in tuple(self._shares.values()):
            yield from tuple(share.members)

    def join(self, member: M, uid: int) -> Share[M] | None:
        """A place for a connection of `uid`, for which the longest idle one may have to go; None when there is none.

        At its own cap a uid makes room itself. At the cap for all, those who may not ask do, then the uid that holds
        most: nobody's flood closes the connections of another.
        """
        share = self._shares.get(uid)
        if share is not None and len(share.members) >= self._limits.per_uid and not _make_room(share):
            return None
        if self.count >= self._limits.connections and not self._make_room_for_all():
            return None
        if share is None:
            share = self._shares[uid] = self._new_share(uid)
        share.members.add(member)
        self.count += 1
        return share

    def judged(self, member: M, *, refused: bool) -> None:
        """Whether it may ask. Of all that may not, one uid's or many's, so many stay: the newest, to be told so."""
        if not refused:
            self._refused.pop(member, None)
            return
        self._refused.setdefault(member)
        if len(self._refused) > self._limits.refused:
            next(iter(self._refused)).evict()

    def leave(self, share: Share[M], member: M) -> None:
        """Give the place back."""
        share.idle.pop(member, None)
        if share.halves:
            share.halves.pop(member, None)
        if self._refused:
            self._refused.pop(member, None)
        share.members.discard(member)
        self.count -= 1

    def _new_share(self, uid: int) -> Share[M]:
        if len(self._shares) >= MOST_UIDS:
            self._shares = {share.uid: share for share in self._shares.values() if share.members}
        return Share(uid)

    def _make_room_for_all(self) -> bool:
        if self._refused:
            next(iter(self._refused)).evict()
            return True
        holders = sorted(self._shares.values(), key=lambda share: len(share.members), reverse=True)
        return any(_make_room(share) for share in holders)


def _make_room(share: Share[M]) -> bool:
    spare = share.halves or share.idle
    if not spare:
        return False
    next(iter(spare)).evict()
    return True
