"""The machine's table: which event is heard in which phase, and by whom. What is not in it changes nothing."""

from collections.abc import Callable, Mapping
from typing import Any, Final, get_args

from d7agent.core.lifecycle import governing, receiving, refreshing, rejecting, storing
from d7agent.core.model import Stamp
from d7agent.core.states import (
    Charged,
    Configured,
    Event,
    Forgotten,
    LockedUp,
    LoggedIn,
    Phase,
    ProofCame,
    Recalled,
    Refused,
    Renewed,
    Started,
    State,
    StateSaved,
    Step,
    Stored,
    Storing,
    Ticked,
    Uncharged,
    Unlocked,
    Wanted,
)

Handler = Callable[[State, Any, Stamp], Step]
Row = Mapping[Phase, Handler]

PHASES: Final[tuple[Phase, ...]] = get_args(Phase)
UNLOCKED: Final[tuple[Phase, ...]] = tuple(phase for phase in PHASES if phase != "locked")


def step(state: State, event: Event, now: Stamp) -> Step:
    """The next state and the effects, in the order to carry them out. What changes nothing gives the same object."""
    handler = _TABLE[type(event)].get(state.phase)
    return Step(state) if handler is None else handler(state, event, now)


def _during(phases: tuple[Phase, ...], handler: Handler) -> Row:
    return dict.fromkeys(phases, handler)


def _result(phase: Phase, handler: Handler) -> Row:
    """A helper's answer counts while its phase lasts and for its own generation; a late one is thrown away."""

    def judged(state: State, event: Any, now: Stamp) -> Step:
        return handler(state, event, now) if event.generation == state.generation else Step(state)

    return {phase: judged}


_TABLE: Final[Mapping[type, Row]] = {
    # what people and files do
    Started: _during(("idle", "locked"), governing.started),
    Configured: _during(PHASES, governing.configured),
    Storing: _during(PHASES, storing.storing),
    Stored: _during(PHASES, storing.stored),
    Forgotten: _during(PHASES, storing.forgotten),
    Charged: _during(PHASES, storing.charged),
    Uncharged: _during(PHASES, storing.uncharged),
    LockedUp: _during(UNLOCKED, governing.locked_up),
    Unlocked: _during(("locked",), governing.unlocked),
    Renewed: _during(("idle", "recall", "proof"), refreshing.renewed),
    # what callers do: one login serves them all, so that nothing begins while something is under way
    Wanted: _during(("idle",), refreshing.wanted),
    Refused: {"idle": rejecting.refused, "login": rejecting.refused_during_login},
    # what helpers bring
    Recalled: _result("recall", receiving.recalled),
    LoggedIn: _result("login", receiving.logged_in),
    ProofCame: _result("proof", rejecting.proof_came),
    # what time and disk do
    Ticked: _during(UNLOCKED, refreshing.ticked),
    StateSaved: _during(PHASES, governing.state_saved),
}
