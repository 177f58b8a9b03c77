"""The credential is replaced or forgotten."""

from msgspec.structs import replace

from d7agent.core import budget as budgets
from d7agent.core.jobs import Done, Failed
from d7agent.core.lifecycle.failing import no_credential
from d7agent.core.lifecycle.phases import after, begin_anew, drop, forget, void
from d7agent.core.lifecycle.phases import ended as phase_ended
from d7agent.core.lifecycle.receiving import login_worked
from d7agent.core.lifecycle.refreshing import look
from d7agent.core.model import STORE_REASONS, Stamp
from d7agent.core.states import Forgotten, Gone, Save, State, Step, Stored, Storing


def storing(state: State, event: Storing, now: Stamp) -> Step:
    """A helper is about to change the store; what else is under way ends first."""
    voided = void(state)
    state = replace(voided.state, phase="store", started=now.boot)
    if not event.login:
        return Step(state, voided.effects)
    return Step(replace(state, budget=budgets.spent(state.budget, now.boot)), (*voided.effects, Save()))


def stored(state: State, event: Stored, now: Stamp) -> Step:
    """The helper is done."""
    state = phase_ended(state, now)
    if isinstance(event.reply, Failed):
        return look(_refunded(state, event.reply, now), now)
    if isinstance(event.reply, Done):
        return begin_anew(state, now)
    dropped = drop(state, now)
    return after(dropped.effects, login_worked(forget(dropped.state, now).state, event.reply, now, event.draw))


def _refunded(state: State, reply: Failed, now: Stamp) -> State:
    """A login that was paid for and never reached D7 is given back."""
    paid = state.budget.starts[-1:] == (state.started,)
    kept_home = reply.reason in STORE_REASONS or reply.invalid is not None
    return replace(state, budget=budgets.refunded(state.budget, now.boot)) if paid and kept_home else state


def stored_late(state: State, event: Stored, now: Stamp) -> Step:
    """The profile changed meanwhile, and so did the store: the token is thrown away, the store asked anew."""
    if isinstance(event.reply, Failed):
        return Step(state)
    voided = Step(state) if state.phase == "store" else void(state)
    return after(voided.effects, begin_anew(voided.state, now))


def forgotten(state: State, event: Forgotten, now: Stamp) -> Step:
    """The store is empty now, by the owner's wish."""
    voided = void(state)
    wiped = forget(voided.state, now)
    empty = no_credential(wiped.state, now, "the credential was forgotten")
    return Step(empty.state, (*voided.effects, Gone(), Save(), *empty.effects))
