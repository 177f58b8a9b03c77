"""How a phase begins and ends, and what is wiped with it."""

from typing import Final

from msgspec.structs import replace

from d7agent.core import budget as budgets
from d7agent.core import schedule
from d7agent.core.model import Grant, Stamp
from d7agent.core.states import Cancel, Effect, Gone, Login, Phase, Prove, Recall, Save, State, Step

PROOF_PAUSE: Final = 60.0  # seconds between two proofs of one profile


def after(effects: tuple[Effect, ...], step: Step) -> Step:
    """The step, its effects preceded by those of what led to it."""
    return Step(step.state, effects + step.effects) if effects else step


def begin_recall(state: State, now: Stamp) -> Step:
    """Ask the store for a remembered token."""
    return Step(replace(state, phase="recall", started=now.boot, recalled=False), (Recall(state.generation),))


def begin_login(state: State, now: Stamp, *, prompt: bool = False, uid: int | None = None) -> Step:
    """Ask D7 for a token. It is written down before it is done: a crash must not forget a login."""
    state = replace(
        state,
        phase="login",
        started=now.boot,
        attempts=state.attempts + 1,
        budget=budgets.spent(state.budget, now.boot, uid),
    )
    return Step(state, (Save(), Login(state.generation, prompt)))


def begin_attempt(state: State, now: Stamp, uid: int | None = None) -> Step:
    """What has to come next: the store is asked for a remembered token before D7 is asked for a new one."""
    return begin_login(state, now, uid=uid) if state.recalled else begin_recall(state, now)


def may_prove(state: State, now: Stamp) -> bool:
    """At most one proof a minute, whatever its outcome: a reporter must not make us flood D7."""
    return state.verdict is None or now.boot >= state.verdict.at + PROOF_PAUSE


def begin_proof(state: State, token: Grant, now: Stamp) -> Step:
    """Ask D7 whether the token works: the one in force, or a candidate for it."""
    return Step(replace(state, phase="proof", started=now.boot), (Prove(state.generation, token),))


def ended(state: State, now: Stamp) -> State:
    """What was under way has come back."""
    return replace(state, phase=resting(state), ended_at=now.boot)


def resting(state: State) -> Phase:
    """The phase in which nothing of ours is under way."""
    if state.phase == "locked":
        return "locked"
    return "store" if state.stores else "idle"


def void(state: State) -> Step:
    """A new generation: what is under way no longer counts."""
    helper_runs = state.phase in ("recall", "login", "proof")
    state = replace(state, generation=state.generation + 1, phase=resting(state), suspect=None, candidate=None)
    return Step(state, (Cancel(),) if helper_runs else ())


def drop(state: State, now: Stamp) -> Step:
    """The token is no more. The next one is wanted at once, in so far as the state allows any."""
    if state.grant is None:
        return Step(state)
    state = replace(state, grant=None, suspect=None, unchanged=False, due=now.boot, due_why="no token")
    return Step(state, (Gone(),))


def begin_anew(state: State, now: Stamp) -> Step:
    """The store holds another credential: nothing learned about the former one counts."""
    dropped = drop(state, now)
    state = fitted(_unlearned(dropped.state), now)
    state = replace(state, edited=True, due=now.boot, due_why="the credential changed")
    begun = begin_recall(state, now) if state.phase == "idle" else Step(state)
    return after(dropped.effects, begun)


def forget(state: State, now: Stamp) -> Step:
    """The store holds no credential any more."""
    dropped = drop(state, now)
    return Step(fitted(_unlearned(dropped.state), now), dropped.effects)


def _unlearned(state: State) -> State:
    """As if nothing were known of the credential. What D7 has seen of us (the budget) stays."""
    return replace(
        state,
        due=None,
        due_why="",
        failure=None,
        failures=0,
        unauthorized=0,
        retry_at=0.0,
        refusal=None,
        missing=False,
        expired=False,
        recalled=False,
        remembered=False,
        login_at=None,
        verdict=None,
    )


def fitted(state: State, now: Stamp) -> State:
    """The budget refilled at what the profile wants or the token's schedule needs."""
    every = None if state.grant is None else schedule.interval(state.grant, state.policy.max_age)
    budget = budgets.fitted(state.budget, now.boot, state.policy.logins_per_hour, every)
    return replace(state, budget=budget)
