"""How well a profile is, judged from its status: what pages a person while there is still time to act."""

from collections.abc import Iterator
from typing import Any, Final

from msgspec import Struct

from d7agent.cli.ranges import Range, at_least
from d7agent.cli.spans import span, validity
from d7agent.core.model import STORE_REASONS

OK: Final = 0
WARNING: Final = 1
CRITICAL: Final = 2
UNKNOWN: Final = 3
WORDS: Final = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
SEVERITY: Final = {OK: 0, UNKNOWN: 1, WARNING: 2, CRITICAL: 3}  # worst last, as the guideline's plugins order them

# Shares of a token's whole life. The agent refreshes with 20 % to 30 % left, so less means that this failed.
WARN_SHARE: Final = 0.15
CRITICAL_SHARE: Final = 0.10
READY_MADE_WARN: Final = 7 * 86_400  # seconds; for a token whose life nobody knows: only ready-made ones, which a
READY_MADE_CRITICAL: Final = 86_400  # person has to replace in D7's control panel
LASTING: Final = STORE_REASONS | {"refused"}  # reasons that a person has to end: paged at once, the token still good
Profile = dict[str, Any]


class Verdict(Struct, frozen=True):
    """One judgement: a level of the four above, and why."""

    level: int
    text: str


class Limits(Struct, frozen=True):
    """The ranges for the seconds a token has left; None: the default, or nothing to hold it to."""

    warn: Range | None = None
    critical: Range | None = None


def worst(levels: list[int]) -> int:
    """The worst of these levels; OK for none."""
    return max(levels, key=SEVERITY.__getitem__, default=OK)


def judge(profile: Profile, limits: Limits) -> Verdict:
    """The worst thing to be said of a profile of GetStatus; `limits` as `effective` gives them."""
    found = [*_by_state(profile), *_by_error(profile), *_by_time(profile, limits), *_by_sinks(profile)]
    found += [Verdict(WARNING, "its login budget is spent")] if profile.get("budget_left") == 0 else []
    level = worst([verdict.level for verdict in found])
    said = [verdict.text for verdict in found if verdict.level == level and level != OK]
    return Verdict(level, "; ".join(dict.fromkeys(said)) or f"token {validity(profile.get('valid_for'))}")


def effective(profile: Profile, given: Limits) -> Limits:
    """The ranges to hold the profile to: those given, else shares of its token's life.

    By default there are none for a token without expiry, and none for one that D7 hands out again and again until it
    expires (`unchanged`): that one gets old without anything being wrong.
    """
    begin, end = profile.get("issued_at"), profile.get("expires_at")
    if not isinstance(end, int) or (profile.get("unchanged") and not profile.get("last_error")):
        return given
    warn, critical = READY_MADE_WARN, READY_MADE_CRITICAL
    if isinstance(begin, int) and end > begin:
        warn, critical = int((end - begin) * WARN_SHARE), int((end - begin) * CRITICAL_SHARE)
    return Limits(given.warn or at_least(warn), given.critical or at_least(critical))


def _by_state(profile: Profile) -> Iterator[Verdict]:
    state, cause = str(profile.get("state")), _cause(profile)
    said = {
        "rejected": "D7 refuses the credential",
        "no_credential": "no credential is stored",
        "expired": "the token has expired and no new one is to be had",
        "locked": "the agent is locked by a passphrase",
    }.get(state)
    if said:
        yield Verdict(CRITICAL, f"{said}{cause}")
    elif state == "empty":
        failing = bool(profile.get("last_error"))
        yield Verdict(CRITICAL if failing else WARNING, f"no token yet{cause or ', the first login is under way'}")
    elif state not in ("fresh", "stale"):
        yield Verdict(UNKNOWN, f"the agent tells a state that this version does not know: {state}")


def _by_error(profile: Profile) -> Iterator[Verdict]:
    """A failure that goes on while the token is still good."""
    error = profile.get("last_error")
    if not isinstance(error, dict) or profile.get("state") not in ("fresh", "stale"):
        return
    left = f", the token is {validity(profile.get('valid_for'))}"
    if error.get("reason") in LASTING:
        yield Verdict(CRITICAL, f"it cannot be renewed{_cause(profile)}{left}")
    else:
        count = profile.get("failures") or 0
        yield Verdict(WARNING, f"{count} failed login{'s' * (count != 1)} in a row{_cause(profile)}{left}")


def _by_time(profile: Profile, limits: Limits) -> Iterator[Verdict]:
    left = profile.get("valid_for")
    if not isinstance(left, int):
        return
    for level, limit in ((CRITICAL, limits.critical), (WARNING, limits.warn)):
        if limit is not None and limit.alerts(left):
            yield Verdict(level, f"the token has {span(left)} left (range {limit.text})")
            return


def _by_sinks(profile: Profile) -> Iterator[Verdict]:
    for sink in profile.get("sinks", []):
        if not sink.get("ok"):
            yield Verdict(WARNING, f"always-fresh file {sink.get('path')}: {sink.get('error')}")


def _cause(profile: Profile) -> str:
    error = profile.get("last_error")
    if not isinstance(error, dict):
        return ""
    return f": {error.get('message') or error.get('reason')}"
