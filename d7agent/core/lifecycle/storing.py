"""The credential is replaced or forgotten. Each `Storing` is followed by one `Stored` or `Forgotten`, come what may."""

from msgspec.structs import replace

from d7agent.core import budget as budgets
from d7agent.core.jobs import Done, Failed
from d7agent.core.lifecycle.failing import no_credential
from d7agent.core.lifecycle.phases import after, begin_anew, drop, ended, forget, void
from d7agent.core.lifecycle.receiving import login_worked
from d7agent.core.lifecycle.refreshing import look
from d7agent.core.model import STORE_REASONS, Stamp
from d7agent.core.states import Charged, Forgotten, Gone, Save, State, Step, Stored, Storing, Uncharged


def storing(state: State, event: Storing, now: Stamp) -> Step:
    """A helper is about to change the store; what else is under way ends first."""
    voided = void(replace(state, stores=state.stores + 1))
    state = replace(voided.state, started=now.boot)
    if not event.login:
        return Step(state, voided.effects)
    return Step(replace(state, budget=budgets.spent(state.budget, now.boot)), (*voided.effects, Save()))


def stored(state: State, event: Stored, now: Stamp) -> Step:
    """The helper is done. If the profile changed meanwhile, its token is thrown away and the store asked anew."""
    if not state.stores:
        return Step(state)
    state = replace(state, stores=state.stores - 1)
    if state.locked or state.stores:
        return Step(state) if isinstance(event.reply, Failed) else begin_anew(state, now)
    on_time = event.generation == state.generation
    state = ended(state, now)
    if isinstance(event.reply, Failed):
        return look(_refunded(state, event.reply, now) if on_time else state, now)
    if isinstance(event.reply, Done) or not on_time:
        return begin_anew(state, now)
    dropped = drop(state, now)
    return after(dropped.effects, login_worked(forget(dropped.state, now).state, event.reply, now, event.draw))


def _refunded(state: State, reply: Failed, now: Stamp) -> State:
    """A login that was paid for and never reached D7 is given back."""
    paid = state.budget.starts[-1:] == (state.started,)
    return replace(state, budget=budgets.refunded(state.budget, now.boot)) if paid and _kept_home(reply) else state


def _kept_home(reply: Failed) -> bool:
    return reply.reason in STORE_REASONS or reply.invalid is not None


def charged(state: State, event: Charged, now: Stamp) -> Step:
    """A new name's login, paid for by all of them."""
    return Step(replace(state, budget=budgets.spent(state.budget, now.boot)), (Save(),))


def uncharged(state: State, event: Uncharged, now: Stamp) -> Step:
    """As `_refunded`; each Uncharged follows a Charged of its own, so that it was paid for."""
    if not _kept_home(event.reply) or not state.budget.starts:
        return Step(state)
    return Step(replace(state, budget=budgets.refunded(state.budget, now.boot)), (Save(),))


def forgotten(state: State, event: Forgotten, now: Stamp) -> Step:
    """The store is empty now, by the owner's wish."""
    voided = void(replace(state, stores=max(0, state.stores - 1)))
    wiped = forget(voided.state, now)
    empty = no_credential(wiped.state, now, "the credential was forgotten")
    return Step(empty.state, (*voided.effects, Gone(), Save(), *empty.effects))
