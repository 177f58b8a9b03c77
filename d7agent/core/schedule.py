"""When to refresh and when to try again: the numbers of the token's life, and nothing that changes state."""

from typing import Final

from d7agent.core.model import Grant

REFRESH_AT: Final = 0.75  # of life: time for three or more tries before expiry (Vault's renewer starts at two thirds)
SHORT_REFRESH_AT: Final = 0.5  # of life, for tokens so short that a quarter of it leaves no time for a second try
SHORT: Final = 240.0  # seconds; below this a quarter of life is less than the floor
FLOOR: Final = 60.0  # seconds before expiry: never later, whatever the jitter
JITTER: Final = 0.05  # of life, either way, so that many hosts do not log in together
SAME_BYTES_PAUSE: Final = 60.0  # seconds at least, when a login gave the token we have
LEEWAY: Final = 30.0  # seconds a token handed out is good for by default
LEEWAY_SHARE: Final = 0.10  # of life, for short tokens
BACKOFF_FIRST: Final = 1.0  # seconds
BACKOFF_LAST: Final = 300.0  # seconds
BACKOFF_CUT: Final = 0.25  # each delay is cut by up to this share
RETRY_AFTER_CAP: Final = 3600.0  # seconds; more is a mistake at the other end, and an hour is still polite
STORE_RETRY_FIRST: Final = 5.0  # seconds; a store is asked again without a prompt, so that unlocking it is enough
STORE_RETRY_LAST: Final = 30.0  # seconds


def leeway(grant: Grant) -> float:
    """Seconds a token is promised to be good for when the caller names none: min(30 s, 10 % of life)."""
    return LEEWAY if grant.lifetime is None else min(LEEWAY, LEEWAY_SHARE * grant.lifetime)


def refresh_due(grant: Grant, max_age: float, draw: float) -> tuple[float | None, str]:
    """The boot instant to refresh a token at, and why then. `draw` in [0, 1) is the token's jitter, drawn once."""
    if grant.ready_made:
        return None, "a ready-made token cannot be renewed"
    by_age = grant.received.boot + _swayed(max_age, draw)
    if grant.expires is None or grant.lifetime is None:
        return by_age, "max_age"
    by_life, why = _by_life(grant.lifetime, grant.expires, draw)
    if by_life <= grant.received.boot:  # issued long ago, or an absurd `iat`: the next one may be like it
        by_life, why = (grant.received.boot + grant.expires) / 2, "half of what was left"
    return (by_life, why) if by_life <= by_age else (by_age, "max_age")


def _by_life(lifetime: float, expires: float, draw: float) -> tuple[float, str]:
    sway = lifetime * JITTER * (2 * draw - 1)
    born = expires - lifetime
    if lifetime < SHORT:
        return born + lifetime * SHORT_REFRESH_AT + sway, "half of life"
    return min(born + lifetime * REFRESH_AT + sway, expires - FLOOR), "three quarters of life"


def _swayed(seconds: float, draw: float) -> float:
    return seconds * (1 + JITTER * (2 * draw - 1))


def same_bytes_due(grant: Grant, max_age: float, now: float, draw: float) -> tuple[float, str]:
    """When to try again after a login gave the token we have: half of what is left, at least a minute later."""
    by_age = now + _swayed(max_age, draw)
    if grant.expires is None:
        return by_age, "max_age"
    later = min(now + max(SAME_BYTES_PAUSE, (grant.expires - now) / 2), grant.expires)
    return (later, "D7 gave the same token again") if later <= by_age else (by_age, "max_age")


def interval(grant: Grant, max_age: float) -> float | None:
    """Seconds between two logins that tokens of this kind need; None if they need none."""
    if grant.ready_made:
        return None
    if grant.lifetime is None:
        return max_age
    return min(grant.lifetime * (SHORT_REFRESH_AT if grant.lifetime < SHORT else REFRESH_AT), max_age)


def backoff(failures: int, draw: float, retry_after: float | None, pause: float) -> float:
    """Seconds to wait after the `failures`-th failure in a row: doubling, cut by jitter, never below `pause`.

    `retry_after` is D7's wish, honoured up to an hour; `pause` is what a still good token allows.
    """
    doubled = min(BACKOFF_FIRST * 2.0 ** min(failures - 1, 20), BACKOFF_LAST)
    wanted = min(retry_after or 0.0, RETRY_AFTER_CAP)
    return max(doubled * (1 - BACKOFF_CUT * draw), wanted, pause)


def store_backoff(failures: int) -> float:
    """Seconds until a store that is locked or away is asked again; the question never prompts."""
    return min(STORE_RETRY_FIRST * 2.0 ** min(failures - 1, 8), STORE_RETRY_LAST)
