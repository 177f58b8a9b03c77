"""What can be told from a state and an instant. Instants are boot seconds; nothing here changes anything."""

import math

from d7agent.core import budget as budgets
from d7agent.core import schedule
from d7agent.core.budget import Snapshot
from d7agent.core.model import STORE_REASONS, Grant, Stamp
from d7agent.core.states import State


def alive(grant: Grant | None, now: float) -> Grant | None:
    """The grant, if its token is good at `now`."""
    return grant if grant is not None and (grant.expires is None or now < grant.expires) else None


def next_attempt(state: State) -> float | None:
    """The instant of the next login (or first look into the store) that the agent begins by itself, or None."""
    if state.phase != "idle" or state.refusal is not None or state.due is None:
        return None
    wanted = max(state.due, state.retry_at)
    if not state.recalled:  # the store is asked before D7, which costs no login
        return wanted
    return max(wanted, budgets.next_login(state.budget, max(wanted, state.budget.at), asked=False))


def wake_at(state: State) -> float | None:
    """The instant at which `Ticked` is wanted next, or None. After a `Ticked` it lies in the future."""
    expires = None if state.grant is None else state.grant.expires
    attempt = next_attempt(state)
    return min((at for at in (expires, attempt) if at is not None), default=None)


def caller_login(state: State, uid: int | None, now: float, *, backoff: bool = True) -> float:
    """The instant from which a caller may cause a login. `uid`: a peer who may only ask, None: owner or root.

    A third of the budget is out of callers' reach; a peer has a share of its own. `backoff` false: an owner's wish, or
    a store that may have been opened, need not wait for D7's sake.
    """
    at = max(now, budgets.next_login(state.budget, now, asked=True))
    if backoff:
        at = max(at, state.retry_at)
    return at if uid is None else max(at, budgets.next_for_peer(state.budget, uid, now))


def better_login(state: State, uid: int | None, now: float, wanted: float) -> float:
    """The instant from which a caller may cause a login for a token that is good for `wanted` seconds more.

    Infinite where a login would not help: a ready-made token, a credential refused or gone, or tokens of which the
    latest login gave one that fell short as well (D7 may hand out the same token until it ends, which is why a login
    that gave the same bytes is not followed by another within a minute).
    """
    held = state.grant
    if held is None or held.expires is None or held.ready_made or state.refusal is not None or state.missing:
        return math.inf
    if state.login_at is not None and held.expires - state.login_at < wanted:
        return math.inf
    at = caller_login(state, uid, now)
    if state.unchanged and state.login_at is not None:
        at = max(at, state.login_at + schedule.SAME_BYTES_PAUSE)
    return at


def in_store_trouble(state: State) -> bool:
    """Whether the last thing that went wrong is the store: locked, away, or empty."""
    return state.failure is not None and state.failure.reason in STORE_REASONS


def snapshot(state: State, now: Stamp) -> Snapshot:
    """What the state file is to keep."""
    verdict = state.verdict
    refused = verdict.fingerprint if verdict is not None and verdict.works is False else None
    return budgets.saved(state.budget, now, state.failures, state.retry_at, refused)
