"""Start, configuration, lock."""

from msgspec.structs import replace

from d7agent.core import budget as budgets
from d7agent.core import schedule
from d7agent.core.lifecycle.phases import PROOF_PAUSE, begin_anew, begin_recall, drop, fitted, void
from d7agent.core.model import Stamp
from d7agent.core.states import (
    Configured,
    Gone,
    LockedUp,
    Save,
    Started,
    State,
    StateSaved,
    Step,
    Unlocked,
    Verdict,
)


def started(state: State, event: Started, now: Stamp) -> Step:
    """The profile came to be: what was known of budget and backoff counts on, then the store is asked."""
    state = replace(state, budget=replace(state.budget, at=now.boot))
    if event.snapshot is not None:
        state = _restored(state, event.snapshot, now)
    state = fitted(state, now)
    return _first_look(state, now) if event.recall else Step(state)


def _restored(state: State, saved: budgets.Snapshot, now: Stamp) -> State:
    wait = min(budgets.retry_left(saved, now), schedule.RETRY_AFTER_CAP)
    refused = None if saved.refused is None else Verdict(saved.refused, works=False, at=now.boot - PROOF_PAUSE)
    return replace(
        state,
        budget=budgets.restored(saved, now, state.policy.logins_per_hour),
        failures=max(0, min(saved.failures, 100)),
        retry_at=now.boot + wait if wait else 0.0,
        verdict=refused,
    )


def _first_look(state: State, now: Stamp) -> Step:
    state = replace(state, due=now.boot, due_why="no token yet")
    return begin_recall(state, now) if state.phase == "idle" else Step(state)


def configured(state: State, event: Configured, now: Stamp) -> Step:
    """The configuration changed. Another credential begins anew; another policy shifts the next refresh."""
    if event.other_credential:
        voided = void(replace(state, policy=event.policy))
        begun = begin_anew(voided.state, now)
        return Step(begun.state, (*voided.effects, Save(), *begun.effects))
    if event.policy == state.policy:
        return Step(state)
    state = replace(state, policy=event.policy)
    return Step(fitted(_rescheduled(state), now))


def _rescheduled(state: State) -> State:
    """The token keeps the jitter it drew."""
    if state.grant is None or state.grant.ready_made or state.refusal is not None or state.missing:
        return state
    max_age = state.policy.max_age
    if state.unchanged and state.login_at is not None:
        due, why = schedule.same_bytes_due(state.grant, max_age, state.login_at, state.draw)
        return replace(state, due=due, due_why=why)
    later, why = schedule.refresh_due(state.grant, max_age, state.draw)
    return replace(state, due=later, due_why=why)


def locked_up(state: State, event: LockedUp, now: Stamp) -> Step:
    """The token is wiped; nothing begins until the agent is unlocked."""
    voided = void(state)
    dropped = drop(voided.state, now)
    state = replace(dropped.state, phase="locked", expired=False, remembered=False)
    return Step(state, (*voided.effects, Gone()))


def unlocked(state: State, event: Unlocked, now: Stamp) -> Step:
    """As after a start, with what is known of D7's refusal and backoff."""
    state = replace(state, phase="store" if state.stores else "idle")
    return Step(state) if state.refusal is not None else _first_look(state, now)


def state_saved(state: State, event: StateSaved, now: Stamp) -> Step:
    """Whether the state file could be written: if not, logins are far apart."""
    if event.ok == state.budget.writable:
        return Step(state)
    return Step(replace(state, budget=replace(state.budget, writable=event.ok)))
