"""A token's times, read from its claims and pinned to the boot clock. Claims are trusted for nothing but time."""

import base64
import binascii
import math
from typing import Any, Final

import msgspec
from msgspec import Struct

from d7agent.core.model import Grant, Secret, Stamp, fingerprint

SANE_SKEW: Final = 24 * 3600.0  # seconds; a Date header further off than a day says more about a proxy than about us
ROUNDING: Final = 1.0  # seconds; D7's times are cut to whole ones: what seems left may be less by as much
ROUNDING_SHARE: Final = 0.1  # of life at most, for tokens of a few seconds
FAR: Final = 10 * 365 * 24 * 3600.0  # seconds; `exp` in the year 9999 is capped here, so that sums stay exact


class ExpiredOnArrival(ValueError):
    """The token was dead when it came."""


class Claims(Struct, frozen=True):
    """`exp` and `iat` of RFC 7519 section 4.1, unix seconds; None where absent or not a finite number."""

    exp: float | None = None
    iat: float | None = None


def read_claims(token: str) -> Claims:
    """The times a token names. A token that is no JWT, or rubbish, names none; never raises."""
    if token.count(".") not in (1, 2):  # D7's own sample has two parts
        return Claims()
    begin = token.index(".") + 1  # no split: a copy of the signature would be left in memory
    end = token.find(".", begin)
    try:
        payload = msgspec.json.decode(_base64url(token[begin:] if end < 0 else token[begin:end]))
    except (msgspec.DecodeError, binascii.Error, ValueError, RecursionError):
        return Claims()
    if not isinstance(payload, dict):
        return Claims()
    return Claims(exp=_number(payload.get("exp")), iat=_number(payload.get("iat")))


def _base64url(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e15 and math.isfinite(value) else None


def grant(
    token: Secret,
    received: Stamp,
    *,
    date: float | None = None,
    token_type: str = "bearer",  # noqa: S107  the type's name, no secret
    ready_made: bool = False,
) -> Grant:
    """The token with its times. `date`: the reply's Date header, unix seconds. Raises ExpiredOnArrival."""
    claims = read_claims(token.reveal())
    skew = None if date is None else date - received.wall
    issued_at = claims.iat if claims.iat is not None else (None if ready_made else received.wall)
    made = Grant(
        access_token=token,
        fingerprint=fingerprint(token.reveal()),
        received=received,
        token_type=token_type,
        issued_at=issued_at,
        skew=skew,
        ready_made=ready_made,
    )
    if claims.exp is None:
        return made
    left = min(_time_left(claims.exp, received.wall, skew), FAR)
    life = left if claims.iat is None else min(claims.exp - claims.iat, FAR)
    if left <= 0 or life <= 0:
        raise ExpiredOnArrival
    sure = min(left, life) - min(ROUNDING, ROUNDING_SHARE * life)
    return msgspec.structs.replace(made, expires=received.boot + sure, lifetime=life)


def _time_left(exp: float, wall: float, skew: float | None) -> float:
    """Seconds from receipt to `exp`, by D7's clock where its Date header is sane, else the careful one of the two."""
    if skew is None:
        return exp - wall
    by_date = exp - (wall + skew)
    if abs(skew) <= SANE_SKEW:
        return by_date
    positive = [left for left in (by_date, exp - wall) if left > 0]
    return min(positive, default=0.0)


def same_boot(received: Stamp, now: Stamp) -> bool:
    """Whether the boot clock tells the time between; two unknown boots are not the same."""
    return received.boot_id != "" and received.boot_id == now.boot_id


def not_later(received: Stamp, now: Stamp) -> Stamp:
    """A stamp of this boot; one from the future counts as now."""
    return received if received.boot <= now.boot else now


def not_beyond(made: Grant, now: Stamp) -> Grant:
    """A token remembered over a reboot lives no longer than the wall clock of now leaves it.

    Else a clock that was wrong at receipt and is right now would stretch it.
    """
    exp = read_claims(made.access_token.reveal()).exp
    if exp is None or made.expires is None:
        return made
    return msgspec.structs.replace(made, expires=min(made.expires, now.boot + exp - now.wall))


def recalled(received: Stamp, now: Stamp, token: Secret) -> Stamp:
    """When a remembered token was received, in terms of this boot; one from the future counts as now.

    After a reboot the wall clock is all there is. Where that says that a token with `exp` comes from the future, the
    clock is wrong (no battery, no NTP yet) and the token may be long dead: raises ExpiredOnArrival.
    """
    if same_boot(received, now):
        return not_later(received, now)
    age = now.wall - received.wall
    if age < 0:
        if read_claims(token.reveal()).exp is not None:
            raise ExpiredOnArrival
        return now
    return Stamp(boot=now.boot - age, wall=received.wall, boot_id=now.boot_id)
