"""What the sandbox has seen so far: counters that can be read and waited for from any thread."""

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Final

KINDS_KEPT: Final = 100  # distinct User-Agents, content types, paths
TIMES_KEPT: Final = 10_000  # instants of logins


@dataclass
class Stats:
    """Counts since the start or the last reset.

    A login counts in `logins` when its request has arrived; `logins_ok` and `logins_failed` when it has been decided
    how to answer (200 and to be sent whole, or anything else). `balances` and `sends` count refused calls too.
    `login_times` are unix seconds of arrival; `bytes_sent` those of connections that are closed.
    """

    connections: int = 0
    requests: int = 0
    open_requests: int = 0
    logins: int = 0
    logins_ok: int = 0
    logins_failed: int = 0
    open_logins: int = 0
    max_open_logins: int = 0
    balances: int = 0
    sends: int = 0
    api_refused: int = 0
    redirects_followed: int = 0
    bytes_sent: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    paths: dict[str, int] = field(default_factory=dict)
    user_agents: list[str] = field(default_factory=list)
    content_types: list[str] = field(default_factory=list)
    login_times: list[float] = field(default_factory=list, repr=False)

    def count(self, table: dict[str, int], name: str) -> None:
        """One more of `name` in one of the tables."""
        if name in table or len(table) < KINDS_KEPT:
            table[name] = table.get(name, 0) + 1

    def saw(self, names: list[str], name: str) -> None:
        """Remember a name once, in the order of first sight."""
        if name and name not in names and len(names) < KINDS_KEPT:
            names.append(name)

    def login_came(self, at: float) -> None:
        """A login request has arrived."""
        self.logins += 1
        self.open_logins += 1
        self.max_open_logins = max(self.max_open_logins, self.open_logins)
        self.login_times.append(at)
        del self.login_times[:-TIMES_KEPT]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


class Recorder:
    """Holds the stats behind a condition, so that every change can be waited for."""

    def __init__(self) -> None:
        self._stats = Stats()
        self._condition = threading.Condition()

    @contextmanager
    def change(self) -> Iterator[Stats]:
        """The live stats, to be changed; whoever waits looks again afterwards."""
        with self._condition:
            yield self._stats
            self._condition.notify_all()

    def snapshot(self) -> Stats:
        """A copy that does not change any more."""
        with self._condition:
            return copy.deepcopy(self._stats)

    def reset(self) -> None:
        """All counts to nil, except what is under way."""
        with self.change() as stats:
            going_on = stats.open_requests, stats.open_logins
            stats.__dict__.update(Stats().__dict__)
            stats.open_requests, stats.open_logins = going_on
            stats.max_open_logins = stats.open_logins

    def wait_for(self, condition: Callable[[Stats], bool], limit: float) -> Stats:
        """Waits until `condition` holds; returns the stats as they were then. TimeoutError after `limit` seconds."""
        with self._condition:
            if not self._condition.wait_for(lambda: condition(self._stats), limit):
                raise TimeoutError(f"the sandbox did not get there within {limit} s: {self._stats}")
            return copy.deepcopy(self._stats)
