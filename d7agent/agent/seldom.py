"""Lines of the journal about what uids do: one a minute for each, and so many for all, however many uids there are."""

from typing import Final

from d7agent.core.clock import Clock

EVERY: Final = 60.0  # seconds between two lines about one uid: a looping script does not fill the journal
MOST: Final = 64  # lines in that time about all; subordinate uids are easy to have by the ten thousand


class Seldom:
    """Says when a line about a uid is due. Keeps no more than MOST uids."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: dict[int, float] = {}  # boot instants, the earliest first

    def due(self, uid: int) -> bool:
        """Whether to write a line now. It is taken as written."""
        now = self._clock.now().boot
        while self._told and now - next(iter(self._told.values())) >= EVERY:
            del self._told[next(iter(self._told))]
        if uid in self._told or len(self._told) >= MOST:
            return False
        self._told[uid] = now
        return True
