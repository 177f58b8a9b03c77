"""What a caller is told, decided from the machine's state alone: the token, an error, or nothing yet."""

import math
from typing import Final

from d7agent.core import budget as budgets
from d7agent.core import schedule
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
from d7agent.core.lifecycle import PROOF_PAUSE, RENEW_PAUSE, alive, next_attempt
from d7agent.core.model import STORE_REASONS, Grant, Stamp
from d7agent.core.model import State as Label
from d7agent.core.states import Ask, State, Wait

UNDER_WAY: Final = ("recall", "login", "store")  # phases whose end may bring a token
Answer = Grant | Wait | AgentError


def label(state: State, now: float) -> Label:
    """The profile's state in one word, as the wire has it."""
    if state.locked:
        return "locked"
    if alive(state.grant, now) is not None:
        return "stale" if state.refusal is not None or (state.due is not None and now >= state.due) else "fresh"
    if state.refusal is not None:
        return "rejected"
    if state.missing:
        return "no_credential"
    return "expired" if state.expired or state.grant is not None else "empty"


def answer(state: State, ask: Ask, now: Stamp) -> Answer:
    """The token to hand out at `now`, the error to answer with, or Wait. Never an expired token."""
    if state.locked:
        return Locked("the agent is locked", "unlock it with: d7agent unlock")
    held = alive(state.grant, now.boot)
    if ask.refused is not None:
        return _to_reject(state, held, ask, now)
    if ask.attempt is not None:
        return _to_renew(state, held, ask, now)
    return _to_get(state, held, ask, now)


def _to_get(state: State, held: Grant | None, ask: Ask, now: Stamp) -> Answer:
    if held is None:
        return _pending(state, ask, now)
    if held.expires is None or held.lifetime is None:
        return held
    if ask.min_validity is not None and ask.min_validity > held.lifetime:
        return _too_long(state, ask.min_validity, held.lifetime)
    wanted = schedule.leeway(held) if ask.min_validity is None else ask.min_validity
    if held.expires - now.boot >= wanted:
        return held
    pending = _pending(state, ask, now)
    if isinstance(pending, Wait) or ask.min_validity is not None:
        return pending
    return held  # the good token is served until its last second


def _too_long(state: State, wanted: float, lifetime: float) -> AgentError:
    return InvalidParameter(
        f"min_validity of {wanted:.0f} s is more than the whole life ({lifetime:.0f} s) of the tokens here",
        f"ask for less than {lifetime:.0f} s",
        parameter="min_validity",
    )


def _to_renew(state: State, held: Grant | None, ask: Ask, now: Stamp) -> Answer:
    if state.phase in UNDER_WAY:
        return _until(state, ask, now)
    lately = state.login_at is not None and state.login_at >= ask.asked.boot - RENEW_PAUSE
    if held is not None and state.failure is None and (lately or state.ended_at >= ask.asked.boot):
        return held
    if state.ended_at < ask.asked.boot:
        allowed = budgets.next_login(state.budget, now.boot, asked=True)
        return _budget_spent(state, max(allowed - now.boot, 1.0))
    return trouble(state, state.retry_at - now.boot)


def _to_reject(state: State, held: Grant | None, ask: Ask, now: Stamp) -> Answer:
    if held is None:
        return _pending(state, ask, now)
    if held.fingerprint != ask.refused:
        return held
    if state.refusal is not None:
        return trouble(state, None)
    if state.phase != "idle":
        return _until(state, ask, now)
    verdict = state.verdict
    proved = verdict is not None and verdict.fingerprint == held.fingerprint and verdict.works is True
    if proved and verdict is not None and verdict.at >= ask.asked.boot - PROOF_PAUSE:
        return held
    if state.failure is not None and state.ended_at >= ask.asked.boot:
        return trouble(state, state.retry_at - now.boot)
    return _not_now(state, ask, now)


def _not_now(state: State, ask: Ask, now: Stamp) -> AgentError:
    """Why a refused token is neither replaced nor proved at once."""
    allowed = budgets.next_login(state.budget, now.boot, asked=True)
    if ask.uid is not None:
        allowed = max(allowed, budgets.next_for_peer(state.budget, ask.uid, now.boot))
    if allowed > now.boot:
        return _budget_spent(state, allowed - now.boot)
    paused = 0.0 if state.verdict is None else state.verdict.at + PROOF_PAUSE
    wait = max(state.retry_at, paused, now.boot + 1) - now.boot
    return TokenUnavailable(
        f"the token of {state.profile} was reported a moment ago and no better one is to be had yet",
        f"try again in {math.ceil(wait)} s; a request without the Authorization header gets the same answer from D7",
        reason="backoff",
        retry_after=math.ceil(wait),
    )


def _pending(state: State, ask: Ask, now: Stamp) -> Wait | AgentError:
    """Wait where a token may come in time; else the cause."""
    if state.phase in UNDER_WAY:
        return _until(state, ask, now)
    if state.refusal is not None or state.missing or _store_trouble(state):
        return trouble(state, None)
    at = next_attempt(state)
    soonest = math.inf if at is None else at
    if alive(state.grant, now.boot) is not None:
        soonest = min(soonest, _when_asked(state, ask, now))
    if state.phase == "proof":
        soonest = now.boot
    if soonest <= ask.deadline and now.boot < ask.deadline:
        return Wait()
    return _too_late(state, soonest - now.boot)


def _when_asked(state: State, ask: Ask, now: Stamp) -> float:
    at = max(state.retry_at, budgets.next_login(state.budget, now.boot, asked=True))
    return at if ask.uid is None else max(at, budgets.next_for_peer(state.budget, ask.uid, now.boot))


def _store_trouble(state: State) -> bool:
    return state.failure is not None and state.failure.reason in STORE_REASONS


def _until(state: State, ask: Ask, now: Stamp) -> Wait | AgentError:
    if now.boot < ask.deadline:
        return Wait()
    reason = "timeout" if state.failure is None else state.failure.reason
    return TokenUnavailable(
        f"no token for {state.profile} yet: a login is under way",
        "try again in a moment, or allow more time with --max-wait",
        reason=reason,
        retry_after=1,
    )


def _too_late(state: State, wait: float) -> AgentError:
    """The next attempt lies beyond what the caller will wait for."""
    if state.failure is not None:
        return trouble(state, wait)
    if math.isfinite(wait) and wait > 0 and state.retry_at <= 0:
        return _budget_spent(state, wait)
    return TokenUnavailable(
        f"no token for {state.profile} yet: the agent waits before it logs in again",
        "see `d7agent status` for the cause",
        reason="backoff",
        retry_after=_whole(wait),
    )


def _whole(wait: float | None) -> int | None:
    return None if wait is None or not math.isfinite(wait) else max(1, math.ceil(wait))


def _budget_spent(state: State, wait: float) -> AgentError:
    return BudgetSpent(
        f"the login budget of {state.profile} is spent",
        f"try again in {math.ceil(wait)} s; `logins_per_hour` in the profile changes the budget",
        retry_after=max(1, math.ceil(wait)),
    )


def trouble(state: State, wait: float | None) -> AgentError:
    """The profile's trouble as the error a caller gets. `wait`: seconds until the next attempt, where there is one."""
    failure = state.refusal or state.failure
    if failure is None:
        return TokenUnavailable(f"no token for {state.profile} yet", "try again in a moment", reason="timeout")
    who = f"{state.profile}: {failure.message}"
    if state.refusal is not None:
        hint = failure.hint or "check client id and secret in D7's control panel, then run: d7agent login"
        return CredentialRejected(who, hint, code=failure.code)
    if state.missing:
        return NoCredential(who, failure.hint)
    if failure.reason in STORE_REASONS:
        return StoreUnavailable(who, failure.hint, reason=failure.reason)
    return TokenUnavailable(who, failure.hint, reason=failure.reason, retry_after=_whole(wait))
