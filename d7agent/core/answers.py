"""What a caller is told, decided from the machine's state alone: the token, an error, or nothing yet."""

import math
from typing import Final

from d7agent.core import budget as budgets
from d7agent.core import explain, lifecycle, schedule
from d7agent.core.errors import AgentError, InvalidParameter
from d7agent.core.explain import trouble
from d7agent.core.lifecycle import PROOF_PAUSE, RENEW_PAUSE, alive, next_attempt
from d7agent.core.model import Grant, Stamp
from d7agent.core.model import State as Label
from d7agent.core.states import Ask, State, Wait, Wanted

__all__ = ["UNDER_WAY", "Answer", "answer", "label", "trouble", "wish"]

UNDER_WAY: Final = ("recall", "login", "store")  # phases whose end may bring a token
Answer = Grant | Wait | AgentError


def label(state: State, now: float) -> Label:
    """The profile's state in one word, as the wire has it."""
    if state.locked:
        return "locked"
    if alive(state.grant, now) is not None:
        refresh_due = state.due is not None and now >= state.due
        return "stale" if refresh_due or state.missing or state.refusal is not None else "fresh"
    if state.refusal is not None:
        return "rejected"
    if state.missing:
        return "no_credential"
    return "expired" if state.expired or state.grant is not None else "empty"


def answer(state: State, ask: Ask, now: Stamp) -> Answer:
    """The token to hand out at `now`, the error to answer with, or Wait. Never an expired token.

    After Wait something is bound to happen by itself, or by feeding what `wish` says.
    """
    if state.locked:
        return explain.locked()
    held = alive(state.grant, now.boot)
    if ask.refused is not None:
        return _to_reject(state, held, ask, now)
    if ask.attempt is not None:
        return _to_renew(state, held, ask, now)
    if held is None:
        return _without_token(state, ask, now)
    if held.expires is None or held.lifetime is None:
        return held
    return _with_lifetime(state, held, held.lifetime, held.expires - now.boot, ask, now)


def wish(state: State, ask: Ask, found: Answer, now: Stamp) -> Wanted | None:
    """The event to feed for a caller whose answer is `found`, where that would begin something; else None.

    To be looked at when the caller comes and, for those who wait, whenever something ended.
    """
    if state.phase != "idle" or ask.refused is not None or ask.attempt is not None:
        return None
    if isinstance(found, Grant | InvalidParameter):
        return None
    fresh = alive(state.grant, now.boot) is not None
    event = Wanted(uid=ask.uid, fresh=fresh, min_validity=ask.min_validity)
    return None if lifecycle.step(state, event, now).state is state else event


def _with_lifetime(state: State, held: Grant, life: float, left: float, ask: Ask, now: Stamp) -> Answer:
    """A good token that will end: is it good for long enough, and if not, is a better one to be had in time?"""
    if ask.min_validity is not None and ask.min_validity > life:
        return explain.too_long(ask.min_validity, life)
    wanted = schedule.leeway(held) if ask.min_validity is None else ask.min_validity
    if left >= wanted:
        return held
    if ask.min_validity is None:  # a good token is served until its last second
        return Wait() if now.boot < ask.deadline and _better_under_way(state, ask, now, wanted) else held
    return _insisting(state, ask, now, wanted)


def _better_under_way(state: State, ask: Ask, now: Stamp, wanted: float) -> bool:
    if state.phase in UNDER_WAY:
        return True
    return state.phase == "idle" and lifecycle.better_login(state, ask.uid, now.boot, wanted) <= now.boot


def _insisting(state: State, ask: Ask, now: Stamp, wanted: float) -> Wait | AgentError:
    """The caller named a min_validity that the good token in hand does not have."""
    if state.phase != "idle":
        return _until(state, ask, now)
    if state.refusal is not None or lifecycle.in_store_trouble(state):
        return trouble(state, None)
    own = next_attempt(state)
    asked = lifecycle.better_login(state, ask.uid, now.boot, wanted)
    soonest = min(math.inf if own is None else own, asked if asked <= now.boot else math.inf)
    if soonest <= ask.deadline and now.boot < ask.deadline:
        return Wait()
    wait = min(math.inf if own is None else own, asked) - now.boot
    if state.failures:
        return trouble(state, wait)
    if _by_budget(state, ask, now, asked):
        return explain.budget_spent(state, wait)
    return explain.no_better(state, wait)


def _by_budget(state: State, ask: Ask, now: Stamp, asked: float) -> bool:
    return math.isfinite(asked) and asked > max(now.boot, state.retry_at)


def _without_token(state: State, ask: Ask, now: Stamp) -> Wait | AgentError:
    """Wait where a token may come in time; else the cause."""
    if state.phase != "idle":
        return _until(state, ask, now)
    if state.refusal is not None or lifecycle.in_store_trouble(state):
        return trouble(state, None)
    soonest = next_attempt(state)
    if soonest is not None and soonest <= ask.deadline and now.boot < ask.deadline:
        return Wait()
    wait = math.inf if soonest is None else soonest - now.boot
    if state.recalled and budgets.next_login(state.budget, now.boot, asked=False) > max(now.boot, state.retry_at):
        return explain.budget_spent(state, wait)
    return trouble(state, wait)


def _until(state: State, ask: Ask, now: Stamp) -> Wait | AgentError:
    if now.boot < ask.deadline:
        return Wait()
    return explain.under_way(state) if state.failure is None else trouble(state, 0.0)


def _to_renew(state: State, held: Grant | None, ask: Ask, now: Stamp) -> Answer:
    if state.phase != "idle":
        return _until(state, ask, now)
    lately = state.login_at is not None and state.login_at >= ask.asked.boot - RENEW_PAUSE
    if held is not None and lately and state.refusal is None:
        return held
    tried = state.ended_at >= ask.asked.boot
    if tried and (state.failure is not None or state.refusal is not None):
        return trouble(state, state.retry_at - now.boot)
    allowed = lifecycle.caller_login(state, None, now.boot, backoff=False)
    if allowed > now.boot:
        return explain.budget_spent(state, allowed - now.boot)
    return trouble(state, state.retry_at - now.boot)


def _to_reject(state: State, held: Grant | None, ask: Ask, now: Stamp) -> Answer:
    if held is None:
        return _without_token(state, ask, now)
    if held.fingerprint != ask.refused:
        return held
    if state.phase != "idle":
        return _until(state, ask, now)
    if _proved_for(state, held, ask):
        return held
    paused = 0.0 if state.verdict is None else state.verdict.at + PROOF_PAUSE
    wait = max(state.retry_at, paused) - now.boot
    if state.refusal is not None or (state.failure is not None and state.ended_at >= ask.asked.boot):
        return trouble(state, wait)
    allowed = lifecycle.caller_login(state, ask.uid, now.boot, backoff=False)
    return explain.budget_spent(state, allowed - now.boot) if allowed > now.boot else explain.reported(state, wait)


def _proved_for(state: State, held: Grant, ask: Ask) -> bool:
    verdict = state.verdict
    if verdict is None or verdict.fingerprint != held.fingerprint or verdict.works is not True:
        return False
    return verdict.at >= ask.asked.boot - PROOF_PAUSE
