"""The login budget of a profile: a token bucket that survives a restart, with a share no caller can spend."""

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


class Snapshot(Struct, frozen=True, omit_defaults=True):
    """What the state file keeps of one profile, on the wall clock. No secrets."""

    level: float
    wall: float
    failures: int = 0
    retry_at: float | None = None
    logins: tuple[float, ...] = ()


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
    """The bucket after a login that never reached D7."""
    return replace(budget, level=min(budget.capacity, level(budget, now) + 1), at=now, starts=budget.starts[:-1])


def in_last_hour(budget: Budget, now: float) -> int:
    """Logins started within the last hour."""
    return sum(1 for at in budget.starts if at > now - HOUR)


def saved(budget: Budget, now: Stamp, failures: int, retry_at: float | None) -> Snapshot:
    """The bucket and the backoff as the state file keeps them."""
    wall = now.wall - now.boot
    return Snapshot(
        level=round(level(budget, now.boot), 3),
        wall=round(now.wall, 3),
        failures=failures,
        retry_at=None if retry_at is None or retry_at <= now.boot else round(retry_at + wall, 3),
        logins=tuple(round(at + wall, 3) for at in budget.starts[-int(CAPACITY) :]),
    )


def restored(snapshot: Snapshot, now: Stamp) -> Budget:
    """The bucket from the state file. A stamp from the future counts as now; absurd levels are cut to the bucket."""
    age = max(0.0, now.wall - snapshot.wall)
    held = min(max(snapshot.level, 0.0), CAPACITY) + age * PER_HOUR / HOUR
    starts = sorted(min(at, now.wall) - now.wall + now.boot for at in snapshot.logins[-int(CAPACITY) :])
    return Budget(level=min(held, CAPACITY), at=now.boot, starts=tuple(s for s in starts if s > now.boot - HOUR))
