"""The login budget of a profile: a token bucket that survives a restart, with a share no caller can spend."""

from collections.abc import Iterable
from math import floor
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from d7agent.core.model import Stamp

CAPACITY: Final = 30.0  # logins; enough for any honest burst, and what D7 sees at worst in a bad hour twice over
PER_HOUR: Final = 30.0  # refill, unless the token's own schedule needs more
RESERVE: Final = 1 / 3  # of the capacity is kept for the agent's own refreshes
SCHEDULE_FACTOR: Final = 2.0  # times what the schedule needs: every refresh may fail once
PEER_PER_HOUR: Final = 3  # logins that a uid which is neither owner nor root can cause
UNWRITABLE_PAUSE: Final = 120.0  # seconds between logins when the budget cannot be written down
HOUR: Final = 3600.0
KEPT: Final = 30  # instants of logins in the state file
PAST: Final = 2 * HOUR  # seconds after which a snapshot says nothing: the bucket is full, the longest backoff over


class Snapshot(Struct, frozen=True, omit_defaults=True):
    """What the state file keeps of one profile. No secrets.

    All on the wall clock; `boot` and `boot_id` tell how long ago that was where the wall clock was stepped meanwhile.
    `refused`: fingerprint of the token that D7 refused.
    """

    level: float
    wall: float
    failures: int = 0
    retry_at: float | None = None
    logins: tuple[float, ...] = ()
    boot: float | None = None
    boot_id: str = ""
    refused: str | None = None


class Budget(Struct, frozen=True):
    """A bucket with `level` logins in it at boot instant `at`. `starts`: boot instants of the last hour's logins."""

    level: float = CAPACITY
    at: float = 0.0
    capacity: float = CAPACITY
    per_hour: float = PER_HOUR
    starts: tuple[float, ...] = ()
    peers: tuple[tuple[int, float], ...] = ()
    writable: bool = True


def level(budget: Budget, now: float) -> float:
    """Logins in the bucket at `now`."""
    return min(budget.capacity, budget.level + max(0.0, now - budget.at) * budget.per_hour / HOUR)


def left(budget: Budget, now: float) -> int:
    """Whole logins left at `now`."""
    return int(level(budget, now) + 1e-9)


def fitted(budget: Budget, now: float, per_hour: int | None, interval: float | None) -> Budget:
    """The bucket refilled at what the profile wants (`per_hour`) or the schedule (`interval` seconds a token) needs."""
    held = level(budget, now)
    if per_hour is not None:
        return replace(budget, level=min(held, per_hour), at=now, capacity=float(per_hour), per_hour=float(per_hour))
    needed = 0.0 if interval is None else SCHEDULE_FACTOR * HOUR / max(interval, 1.0)
    return replace(budget, level=min(held, CAPACITY), at=now, capacity=CAPACITY, per_hour=max(PER_HOUR, needed))


def next_login(budget: Budget, now: float, *, asked: bool) -> float:
    """The boot instant from which a login may start. `asked`: a caller wants it, who may not touch the reserve."""
    floor = 1.0 + (int(budget.capacity * RESERVE) if asked else 0)
    short = min(floor, budget.capacity) - level(budget, now)
    at = now if short <= 1e-9 else now + short * HOUR / budget.per_hour
    if not budget.writable and budget.starts:
        at = max(at, budget.starts[-1] + UNWRITABLE_PAUSE)
    return at


def next_for_peer(budget: Budget, uid: int, now: float) -> float:
    """The boot instant from which the uid may cause a login: three an hour."""
    mine = [at for who, at in budget.peers if who == uid and at > now - HOUR]
    return now if len(mine) < PEER_PER_HOUR else mine[-PEER_PER_HOUR] + HOUR


def spent(budget: Budget, now: float, uid: int | None = None) -> Budget:
    """The bucket after one login at `now`, caused by the peer `uid` if one is named."""
    peers = tuple(peer for peer in budget.peers if peer[1] > now - HOUR)
    return replace(
        budget,
        level=level(budget, now) - 1,
        at=now,
        starts=(*(at for at in budget.starts if at > now - HOUR), now),
        peers=peers if uid is None else (*peers, (uid, now)),
    )


def refunded(budget: Budget, now: float) -> Budget:
    """The bucket after the last login turned out never to have reached D7."""
    if not budget.starts:
        return budget
    *starts, last = budget.starts
    peers = budget.peers[:-1] if budget.peers and budget.peers[-1][1] == last else budget.peers
    held = min(budget.capacity, level(budget, now) + 1)
    return replace(budget, level=held, at=now, starts=tuple(starts), peers=peers)


def in_last_hour(budget: Budget, now: float) -> int:
    """Logins started within the last hour."""
    return sum(1 for at in budget.starts if at > now - HOUR)


def saved(budget: Budget, now: Stamp, failures: int, retry_at: float | None, refused: str | None = None) -> Snapshot:
    """The bucket and the backoff as the state file keeps them; `retry_at` is a boot instant."""
    wall = now.wall - now.boot
    return Snapshot(
        level=floor(level(budget, now.boot) * 1000) / 1000,
        wall=round(now.wall, 3),
        failures=failures,
        retry_at=None if retry_at is None or retry_at <= now.boot else round(retry_at + wall, 3),
        logins=tuple(round(at + wall, 3) for at in budget.starts[-KEPT:]),
        boot=round(now.boot, 3),
        boot_id=now.boot_id,
        refused=refused,
    )


def age(snapshot: Snapshot, now: Stamp) -> float:
    """Seconds since the snapshot was made. One from the future counts as made now."""
    if snapshot.boot is not None and _of_this_boot(snapshot, now):
        return max(0.0, now.boot - snapshot.boot)
    return max(0.0, now.wall - snapshot.wall)


def _of_this_boot(snapshot: Snapshot, now: Stamp) -> bool:
    return snapshot.boot is not None and bool(snapshot.boot_id) and snapshot.boot_id == now.boot_id


def newest(found: Iterable[Snapshot], now: Stamp) -> Snapshot | None:
    """The one made last; None for none.

    One of this boot was made after any of another, whatever the wall clock said then. Of two from the future, which
    both count as made now, the emptier bucket.
    """
    return min(found, key=lambda one: (not _of_this_boot(one, now), age(one, now), one.level), default=None)


def is_past(snapshot: Snapshot, now: Stamp) -> bool:
    """Whether it says no more than no snapshot does. A token that D7 refused is not forgotten."""
    return snapshot.refused is None and age(snapshot, now) > PAST


def retry_left(snapshot: Snapshot, now: Stamp) -> float:
    """Seconds that are left of the snapshot's backoff."""
    if snapshot.retry_at is None:
        return 0.0
    return max(0.0, snapshot.retry_at - snapshot.wall - age(snapshot, now))


def restored(snapshot: Snapshot, now: Stamp, per_hour: int | None = None) -> Budget:
    """The bucket from the state file, for a profile that wants `per_hour`. Absurd levels are cut to the bucket."""
    size = CAPACITY if per_hour is None else float(per_hour)
    rate = PER_HOUR if per_hour is None else float(per_hour)
    since = age(snapshot, now)
    held = min(max(snapshot.level, 0.0), size) + since * rate / HOUR
    starts = sorted(now.boot - since - max(0.0, snapshot.wall - at) for at in snapshot.logins[-KEPT:])
    recent = tuple(start for start in starts if start > now.boot - HOUR)
    return Budget(level=min(held, size), at=now.boot, capacity=size, per_hour=rate, starts=recent)
