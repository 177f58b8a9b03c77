"""The errors callers get: what happened and what to do next. `wait`: seconds to the next attempt, if there is one."""

import math

from d7agent.core.errors import (
    AgentError,
    BudgetSpent,
    CredentialRejected,
    InvalidParameter,
    Locked,
    NoCredential,
    StoreUnavailable,
    TokenUnavailable,
)
from d7agent.core.model import DEFAULT_PROFILE, STORE_REASONS
from d7agent.core.states import State


def locked() -> AgentError:
    """The agent is locked."""
    return Locked("the agent is locked", "unlock it with: d7agent unlock")


def too_long(wanted: float, lifetime: float) -> AgentError:
    """No token of this profile ever lives that long."""
    return InvalidParameter(
        f"min_validity of {wanted:.0f} s is more than the whole life ({lifetime:.0f} s) of the tokens here",
        f"ask for less than {lifetime:.0f} s",
        parameter="min_validity",
    )


def under_way(state: State) -> AgentError:
    """The caller's time is over before the attempt is."""
    return TokenUnavailable(
        f"no token for {state.profile} yet: a {state.phase} is under way",
        "try again in a moment, or allow more time with --max-wait",
        reason="timeout",
        retry_after=1,
    )


def budget_spent(state: State, wait: float) -> AgentError:
    """The bucket is empty, as far as this caller may empty it."""
    seconds = whole(wait)
    return BudgetSpent(
        f"the login budget of {state.profile} is spent",
        f"try again in {seconds} s; `logins_per_hour` in the profile changes the budget",
        retry_after=seconds,
    )


def no_better(state: State, wait: float) -> AgentError:
    """The token in hand is good, but not for as long as the caller wants, and another login would not change that."""
    return TokenUnavailable(
        f"D7 gives no token for {state.profile} that is good for as long as was asked for",
        "ask for a smaller min_validity",
        reason="backoff",
        retry_after=whole(wait),
    )


def reported(state: State, wait: float) -> AgentError:
    """The token was reported lately, and neither another nor a proof is to be had at once."""
    seconds = whole(wait)
    return TokenUnavailable(
        f"the token of {state.profile} was reported a moment ago and no better one is to be had yet",
        f"try again in {seconds} s; a request without the Authorization header gets the same answer from D7",
        reason="backoff",
        retry_after=seconds,
    )


def trouble(state: State, wait: float | None) -> AgentError:
    """The profile's trouble: D7 refuses, the store is empty or cannot be read, or the last login failed."""
    failure = state.refusal or state.failure
    if failure is None:
        return TokenUnavailable(
            f"no token for {state.profile} yet: the agent waits before it logs in again",
            "see `d7agent status` for the cause",
            reason="backoff",
            retry_after=whole(wait),
        )
    said = f"{state.profile}: {failure.message}"
    hint = for_profile(failure.hint, state.profile)
    if state.refusal is not None:
        hint = hint or for_profile(
            "check the application in D7's control panel, then run: d7agent login", state.profile
        )
        return CredentialRejected(said, hint, code=failure.code)
    if state.missing:
        return NoCredential(said, hint)
    if failure.reason in STORE_REASONS:
        return StoreUnavailable(said, hint, reason=failure.reason)
    return TokenUnavailable(said, hint, reason=failure.reason, retry_after=whole(wait))


def for_profile(hint: str, profile: str) -> str:
    """The hint with the profile in its commands: typed as it stands, it must not change another profile."""
    if profile == DEFAULT_PROFILE:
        return hint
    hint = hint.replace("d7agent login", f"d7agent login {profile}")
    return hint.replace("d7agent renew", f"d7agent renew -p {profile}")


def whole(wait: float | None) -> int | None:
    """Whole seconds, at least one; None for never."""
    return None if wait is None or not math.isfinite(wait) else max(1, math.ceil(wait))
