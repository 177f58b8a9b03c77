"""Who asked, how often: counters by uid, unit and executable, so that every grant can be seen in `status`."""

from collections.abc import Callable
from typing import Final

from d7agent.core.clock import Clock
from d7agent.wire.messages import Caller

MOST: Final = 256  # kinds of caller kept; beyond, the one not seen for longest makes room
KNOWN_FOR: Final = 2.0  # seconds a pid stands for the process seen last; /proc costs more than the answer itself


class Tally:
    """What one kind of caller did."""

    __slots__ = ("denied", "exe", "grants", "rejects", "seen", "uid", "unit")

    def __init__(self, uid: int, unit: str | None, exe: str | None) -> None:
        self.uid = uid
        self.unit = unit
        self.exe = exe
        self.grants = 0
        self.rejects = 0
        self.denied = 0
        self.seen = 0.0  # boot instant


class Callers:
    """The tallies of all callers since the agent started."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tallies: dict[tuple[int, str | None, str | None], Tally] = {}
        self._lately: dict[tuple[int, int], Tally] = {}
        self._lately_since = 0.0

    def of(self, uid: int, pid: int, attribute: Callable[[], tuple[str | None, str | None]]) -> Tally:
        """The tally of a caller; `attribute` tells its unit and executable where they can be known."""
        now = self._clock.now().boot
        if now > self._lately_since + KNOWN_FOR:
            self._lately.clear()
            self._lately_since = now
        tally = self._lately.get((uid, pid))
        if tally is None:
            tally = self._lately[uid, pid] = self._tally(uid, *attribute())
        tally.seen = now
        return tally

    def _tally(self, uid: int, unit: str | None, exe: str | None) -> Tally:
        tally = self._tallies.get((uid, unit, exe))
        if tally is None:
            if len(self._tallies) >= MOST:
                del self._tallies[min(self._tallies, key=lambda key: self._tallies[key].seen)]
                self._lately.clear()
            tally = self._tallies[uid, unit, exe] = Tally(uid, unit, exe)
        return tally

    @property
    def latest(self) -> float:
        """When anybody last asked, a boot instant; 0 when nobody has."""
        return max((tally.seen for tally in self._tallies.values()), default=0.0)

    def shown(self) -> tuple[Caller, ...]:
        """All tallies as the wire has them, the busiest first."""
        now = self._clock.now()
        tallies = sorted(self._tallies.values(), key=lambda tally: -tally.grants)
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
            for t in tallies
        )
