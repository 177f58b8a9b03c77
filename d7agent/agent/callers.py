"""Who asked, how often: counters by uid, unit and executable, so that every grant can be seen in `status`."""

from collections import Counter
from typing import Final, Protocol

from d7agent.agent.peers import Process
from d7agent.core.clock import Clock
from d7agent.wire.messages import Caller

MOST: Final = 256  # kinds of caller kept; beyond, one of the uid with most of them makes room
MOST_REFUSED: Final = 64  # kinds kept that may not ask; apart, since uids that may not are easy to have by the thousand
# Seconds for which a pid stands for the process seen last: /proc costs more than the answer itself. The kernel gives a
# pid again when it has gone round all others, 32,768 at least (proc(5), pid_max): that takes longer.
KNOWN_FOR: Final = 0.25


class Asking(Protocol):
    """What is looked at of a peer; agent.peers.Peer in life."""

    @property
    def uid(self) -> int:
        """The peer's uid."""

    @property
    def pid(self) -> int:
        """Its pid, which may be another process's by now."""

    @property
    def process(self) -> Process:
        """Its process."""


class Tally:
    """What one kind of caller did. `kept`: status shows it; one that made room for others does not come back."""

    __slots__ = ("denied", "exe", "grants", "kept", "rejects", "seen", "uid", "unit")

    def __init__(self, uid: int, unit: str | None, exe: str | None) -> None:
        self.uid = uid
        self.unit = unit
        self.exe = exe
        self.grants = 0
        self.rejects = 0
        self.denied = 0
        self.seen = 0.0  # boot instant
        self.kept = True


Kind = tuple[int, str | None, str | None]
Table = dict[Kind, Tally]


class Callers:
    """The tallies of all callers since the agent started."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tallies: Table = {}
        self._refused: Table = {}
        self._lately: dict[tuple[int, int], Kind] = {}
        self._lately_since = 0.0

    def of(self, peer: Asking) -> Tally:
        """The tally of a peer that may ask."""
        kind = self._kind(peer)
        tally = self._tallies.get(kind)
        if tally is None:
            if len(self._tallies) >= MOST:
                _make_room(self._tallies)
            tally = self._tallies[kind] = self._refused[kind] if kind in self._refused else Tally(*kind)
            self._refused.pop(kind, None)
        tally.seen = self._clock.now().boot
        return tally

    def refused(self, peer: Asking) -> None:
        """A peer that may not ask has come. It takes no room of those who may."""
        kind = self._kind(peer)
        tally = self._tallies.get(kind) or self._refused.get(kind)
        if tally is None:
            if len(self._refused) >= MOST_REFUSED:
                _make_room(self._refused)
            tally = self._refused[kind] = Tally(*kind)
        tally.seen = self._clock.now().boot
        tally.denied += 1

    def _kind(self, peer: Asking) -> Kind:
        """What is known of the peer."""
        now = self._clock.now().boot
        if now > self._lately_since + KNOWN_FOR:
            self._lately.clear()
            self._lately_since = now
        who = peer.uid, peer.pid
        kind = self._lately.get(who)
        if kind is None:
            process = peer.process
            kind = self._lately[who] = peer.uid, process.unit, process.exe
        return kind

    @property
    def latest(self) -> float:
        """When anybody who may last asked, a boot instant; 0 when nobody has."""
        return max((tally.seen for tally in self._tallies.values()), default=0.0)

    def shown(self) -> tuple[Caller, ...]:
        """All tallies as the wire has them, the busiest first."""
        now = self._clock.now()
        tallies = [*self._tallies.values(), *self._refused.values()]
        return tuple(
            Caller(
                uid=t.uid,
                grants=t.grants,
                rejects=t.rejects,
                last=int(t.seen - now.boot + now.wall),
                unit=t.unit,
                exe=t.exe,
                denied=t.denied or None,
            )
            for t in sorted(tallies, key=lambda tally: -tally.grants)
        )


def _make_room(table: Table) -> None:
    """Of the uids with most kinds, the kind not seen for longest goes: no uid crowds out another."""
    kinds = Counter(uid for uid, _, _ in table)
    most = max(kinds.values())
    gone = min((kind for kind in table if kinds[kind[0]] == most), key=lambda kind: table[kind].seen)
    table.pop(gone).kept = False
