"""The token's life as a pure machine: `step(state, event, now)` gives the next state and the effects to carry out.

It alone decides when to refresh and when to give up; `core.answers` decides what to serve from its state. Nothing
here reads a clock, touches a file or knows a socket, so every rule of the design's section 5 is tested without waiting.
"""

from collections.abc import Callable
from typing import Any, Final, Literal

from msgspec.structs import replace

from d7agent.core import budget as budgets
from d7agent.core import claims, schedule
from d7agent.core.jobs import Done, Failed, Granted, Nothing, Proved
from d7agent.core.model import STORE_REASONS, Grant, Stamp
from d7agent.core.states import (
    Cancel,
    Configured,
    Effect,
    Event,
    Failure,
    Forgotten,
    Gone,
    Hooked,
    LockedUp,
    Logged,
    LoggedIn,
    Login,
    ProofCame,
    Prove,
    Pushed,
    Recall,
    Recalled,
    Refused,
    Renewed,
    Save,
    Started,
    State,
    StateSaved,
    Step,
    Stored,
    Storing,
    Suspect,
    Ticked,
    Unlocked,
    Verdict,
    Wanted,
)

UNAUTHORIZED_LIMIT: Final = 3  # logins answered 401 in a row are a refused credential, not a passing fault
YOUNG: Final = 60.0  # seconds; a token refused this soon is proved, not replaced: another would fare alike
PROOF_PAUSE: Final = 60.0  # seconds between two proofs of one profile
RENEW_PAUSE: Final = 10.0  # seconds; a login this recent is what RenewToken wants
ASK_STORE_PAUSE: Final = 2.0  # seconds after which a caller makes the agent look into a failed store again
NO_APPLICATION: Final = "APPLICATION_NOT_EXISTS"  # D7: the application was deleted, and every token with it


def step(state: State, event: Event, now: Stamp) -> Step:
    """The next state and the effects, in the order to carry them out."""
    return _TABLE[type(event)](state, event, now)


def wake_at(state: State) -> float | None:
    """The boot instant at which `Ticked` is wanted next, or None."""
    instants = [state.grant.expires] if state.grant is not None and state.grant.expires is not None else []
    attempt = next_attempt(state)
    return min([*instants, attempt] if attempt is not None else instants, default=None)


def next_attempt(state: State) -> float | None:
    """The boot instant of the next login the agent makes by itself, or None."""
    if state.locked or state.phase != "idle" or state.refusal is not None or state.due is None:
        return None
    wanted = max(state.due, state.retry_at)
    return max(wanted, budgets.next_login(state.budget, max(wanted, state.budget.at), asked=False))


def alive(grant: Grant | None, now: float) -> Grant | None:
    """The grant, if its token is good at `now`."""
    return grant if grant is not None and (grant.expires is None or now < grant.expires) else None


def _started(state: State, event: Started, now: Stamp) -> Step:
    if event.snapshot is not None:
        saved = event.snapshot
        retry = 0.0 if saved.retry_at is None else saved.retry_at - now.wall + now.boot
        state = replace(
            state,
            budget=budgets.restored(saved, now),
            failures=max(0, min(saved.failures, 100)),
            retry_at=min(retry, now.boot + schedule.RETRY_AFTER_CAP),
        )
    else:
        state = replace(state, budget=replace(state.budget, at=now.boot))
    return _begin_recall(_fit(state, now), now)


def _begin_recall(state: State, now: Stamp) -> Step:
    state = replace(state, due=now.boot, due_why="no token yet", recalled=False)
    return Step(state) if state.locked else _attempt(state, now)


def _attempt(state: State, now: Stamp) -> Step:
    """Start what has to come next: the store is asked for a remembered token before D7 is asked for a new one."""
    if state.recalled:
        return _begin_login(state, now)
    return Step(replace(state, phase="recall", started=now.boot), (Recall(state.generation),))


def _configured(state: State, event: Configured, now: Stamp) -> Step:
    state = replace(state, policy=event.policy)
    if event.other_credential:
        void = _void(state)
        step_ = _begin_recall(_fit(_cleared(void.state), now), now)
        return Step(step_.state, (*void.effects, Gone(), *step_.effects))
    if state.grant is not None and not state.grant.ready_made:
        due, why = schedule.refresh_due(state.grant, event.policy.max_age, 0.5)
        state = replace(state, due=due, due_why=why)
    return Step(_fit(state, now))


def _void(state: State) -> Step:
    """A new generation: what is under way no longer counts."""
    under_way = state.phase != "idle"
    state = replace(state, generation=state.generation + 1, phase="idle")
    return Step(state, (Cancel(),) if under_way else ())


def _cleared(state: State) -> State:
    """No token, no verdicts: as if nothing had been learned about the credential yet."""
    return replace(
        state,
        grant=None,
        due=None,
        failures=0,
        unauthorized=0,
        retry_at=0.0,
        failure=None,
        refusal=None,
        missing=False,
        expired=False,
        remembered=False,
        unchanged=False,
        suspect=None,
        verdict=None,
    )


def _fit(state: State, now: Stamp) -> State:
    interval = None
    if state.grant is not None and state.due is not None and state.grant.expires is not None:
        interval = max(state.due - state.grant.received.boot, 1.0)
    budget = budgets.fitted(state.budget, now.boot, state.policy.logins_per_hour, interval)
    return replace(state, budget=budget)


def _ticked(state: State, event: Ticked, now: Stamp) -> Step:
    effects: tuple[Effect, ...] = ()
    if state.grant is not None and alive(state.grant, now.boot) is None:
        died = _token_died(state, now, ready_made=state.grant.ready_made)
        state, effects = died.state, died.effects
    attempt = next_attempt(state)
    if attempt is None or now.boot < attempt:
        return Step(state, effects)
    begun = _attempt(state, now)
    return Step(begun.state, effects + begun.effects)


def _token_died(state: State, now: Stamp, *, ready_made: bool) -> Step:
    state = replace(state, grant=None, expired=True, suspect=None, due=now.boot if state.due is None else state.due)
    effects: list[Effect] = [Gone(), Logged("warning", "the access token has expired and there is no newer one yet")]
    if ready_made:
        failure = Failure("refused", "the ready-made token has expired", _NEW_TOKEN_HINT, at=now.wall)
        state = replace(state, due=None, refusal=failure, failure=failure)
    if state.refusal is not None:
        effects.append(Hooked("rejected", state.refusal.code or state.refusal.reason, state.refusal.message))
    return Step(state, tuple(effects))


_NEW_TOKEN_HINT: Final = "make a new token in D7's control panel and run: d7agent login --token"  # noqa: S105


def _begin_login(state: State, now: Stamp, *, prompt: bool = False, uid: int | None = None) -> Step:
    state = replace(
        state,
        phase="login",
        started=now.boot,
        attempts=state.attempts + 1,
        budget=budgets.spent(state.budget, now.boot, uid),
    )
    return Step(state, (Save(), Login(state.generation, prompt)))


def _wanted(state: State, event: Wanted, now: Stamp) -> Step:
    if state.locked or state.phase != "idle" or state.refusal is not None:
        return Step(state)
    if state.failure is not None and state.failure.reason in STORE_REASONS and alive(state.grant, now.boot) is None:
        if now.boot < state.ended_at + ASK_STORE_PAUSE or budgets.left(state.budget, now.boot) < 1:
            return Step(state)
        return _attempt(state, now)
    if event.fresh and now.boot >= state.retry_at and _may_ask(state, event.uid, now):
        return _begin_login(state, now, uid=event.uid)
    return _ticked(state, Ticked(), now)


def _may_ask(state: State, uid: int | None, now: Stamp) -> bool:
    if budgets.next_login(state.budget, now.boot, asked=True) > now.boot:
        return False
    return uid is None or budgets.next_for_peer(state.budget, uid, now.boot) <= now.boot


def _refused(state: State, event: Refused, now: Stamp) -> Step:
    held = alive(state.grant, now.boot)
    if held is None or state.locked:
        return _wanted(state, Wanted(uid=event.uid), now)
    if held.fingerprint != event.fingerprint or state.refusal is not None:
        return Step(state)
    if state.phase == "login":
        return Step(replace(state, suspect=Suspect(held.fingerprint)))
    if state.phase != "idle":
        return Step(state)
    if _proved_lately(state, held, now):
        return Step(replace(state, misreports=state.misreports + 1))
    young = now.boot < held.received.boot + YOUNG and state.login_at is not None
    if held.ready_made or young:
        return _begin_proof(replace(state, suspect=Suspect(held.fingerprint, login_first=False)), now)
    if now.boot < state.retry_at or not _may_ask(state, event.uid, now):
        return Step(state)
    begun = _begin_login(state, now, uid=event.uid)
    return replace(begun, state=replace(begun.state, suspect=Suspect(held.fingerprint)))


def _proved_lately(state: State, held: Grant, now: Stamp) -> bool:
    verdict = state.verdict
    return (
        verdict is not None
        and verdict.works is True
        and verdict.fingerprint == held.fingerprint
        and now.boot < verdict.at + PROOF_PAUSE
    )


def _begin_proof(state: State, now: Stamp) -> Step:
    held = alive(state.grant, now.boot)
    if held is None:
        return Step(replace(state, suspect=None))
    if state.verdict is not None and now.boot < state.verdict.at + PROOF_PAUSE:
        return Step(replace(state, suspect=None))
    state = replace(state, phase="proof", started=now.boot)
    return Step(state, (Prove(state.generation, held),))


def _renewed(state: State, event: Renewed, now: Stamp) -> Step:
    if state.locked or state.phase in ("login", "store"):
        return Step(state)
    if state.login_at is not None and now.boot < state.login_at + RENEW_PAUSE and alive(state.grant, now.boot):
        return Step(state)
    if budgets.next_login(state.budget, now.boot, asked=True) > now.boot:
        return Step(state)
    void = _void(state)
    begun = _begin_login(replace(void.state, refusal=None, unauthorized=0, suspect=None), now, prompt=True)
    return Step(begun.state, void.effects + begun.effects)


def _recalled(state: State, event: Recalled, now: Stamp) -> Step:
    if event.generation != state.generation or state.phase != "recall":
        return Step(state)
    away = isinstance(event.reply, Failed) and not event.reply.missing and event.reply.reason in STORE_REASONS
    state = replace(_ended(state, now), recalled=not away)
    match event.reply:
        case Granted() as reply:
            return _take_recalled(state, reply, now, event.draw)
        case Nothing(credential=False):
            return _no_credential(state, now, "the store holds no credential", _LOGIN_HINT)
        case Failed(missing=True) as reply:
            return _no_credential(state, now, reply.message, reply.hint or _LOGIN_HINT)
        case Failed() as reply if reply.reason in STORE_REASONS:
            return _store_failed(state, reply, now)
        case _:
            return _ticked(state, Ticked(), now)


_LOGIN_HINT: Final = "store one with: d7agent login"


def _ended(state: State, now: Stamp) -> State:
    return replace(state, phase="idle", ended_at=now.boot, finished=state.finished + 1)


def _take_recalled(state: State, reply: Granted, now: Stamp, draw: float) -> Step:
    received = claims.carried(reply.received, now)
    try:
        held = _grant(reply, received)
    except claims.ExpiredOnArrival:
        held = None
    if held is None or alive(held, now.boot) is None:
        if reply.ready_made:
            return _token_died(state, now, ready_made=True)
        return _ticked(state, Ticked(), now)
    taken = _adopt(replace(state, remembered=not reply.ready_made), held, now, draw)
    ticked = _ticked(taken.state, Ticked(), now)
    return Step(
        ticked.state, (*taken.effects, Logged("info", "serving the token remembered in the store"), *ticked.effects)
    )


def _grant(reply: Granted, received: Stamp) -> Grant:
    return claims.grant(
        reply.access_token,
        received,
        date=reply.date,
        token_type=reply.token_type,
        ready_made=reply.ready_made,
    )


def _adopt(state: State, held: Grant, now: Stamp, draw: float) -> Step:
    """The new token is in force."""
    due, why = schedule.refresh_due(held, state.policy.max_age, draw)
    state = replace(
        state,
        grant=held,
        serial=state.serial + 1,
        due=due,
        due_why=why,
        recalled=True,  # whatever the store still remembers is older
        expired=False,
        missing=False,
        unchanged=False,
        suspect=None,
    )
    return Step(_fit(state, now), (Pushed(),))


def _logged_in(state: State, event: LoggedIn, now: Stamp) -> Step:
    if event.generation != state.generation or state.phase != "login":
        return Step(state)
    state = _ended(state, now)
    if isinstance(event.reply, Failed):
        return _login_failed(state, event.reply, now, event.draw)
    return _login_worked(state, event.reply, now, event.draw, before=state)


def _login_worked(state: State, reply: Granted, now: Stamp, draw: float, *, before: State) -> Step:
    """A login gave a token. `before`: the state that tells whether this ends an outage."""
    try:
        fresh = _grant(reply, reply.received)
        dead = alive(fresh, now.boot) is None
    except claims.ExpiredOnArrival:
        fresh, dead = None, True
    if fresh is None or dead:
        if reply.ready_made:
            return _token_died(state, now, ready_made=True)
        return _login_failed(state, _DEAD_ON_ARRIVAL, now, draw)
    if state.grant is not None and state.grant.fingerprint == fresh.fingerprint:
        step_ = _same_bytes(_recovered_state(state, now, reply), fresh, now, draw)
    else:
        step_ = _adopt(_recovered_state(state, now, reply), fresh, now, draw)
        step_ = Step(step_.state, (*step_.effects, Hooked("refreshed")))
    return Step(step_.state, (Save(), *step_.effects, *_recovery(before)))


_DEAD_ON_ARRIVAL: Final = Failed(
    reason="bad_reply",
    message="D7 sent a token that had already expired",
    hint="if this goes on, compare this machine's clock with D7's: d7agent doctor",
)


def _recovered_state(state: State, now: Stamp, reply: Granted) -> State:
    return replace(
        state,
        failures=0,
        unauthorized=0,
        retry_at=0.0,
        failure=None,
        refusal=None,
        missing=False,
        remembered=reply.remembered,
        login_at=None if reply.ready_made else now.boot,
        login_wall=state.login_wall if reply.ready_made else now.wall,
    )


def _recovery(before: State) -> tuple[Effect, ...]:
    if before.failure is None or (before.failures == 0 and before.refusal is None):
        return ()
    text = f"working again after {before.failures} failures" if before.failures > 1 else "working again"
    return Hooked("recovered", before.failure.reason, text), Logged("info", text)


def _same_bytes(state: State, fresh: Grant, now: Stamp, draw: float) -> Step:
    """D7 gave the token we have: a success, never a loop. The first expiry stays: it was pinned first."""
    held = state.grant
    assert held is not None  # noqa: S101  the caller compared its fingerprint
    due, why = schedule.same_bytes_due(held, state.policy.max_age, now.boot, draw)
    kept = replace(held, skew=fresh.skew)
    state = replace(state, grant=kept, due=None if held.ready_made else due, due_why=why, unchanged=True)
    if state.suspect is not None and state.suspect.fingerprint == held.fingerprint:
        return _begin_proof(replace(state, suspect=replace(state.suspect, login_first=False)), now)
    return Step(state)


def _login_failed(state: State, reply: Failed, now: Stamp, draw: float) -> Step:
    state = replace(state, suspect=None)
    if reply.missing:
        budget = budgets.refunded(state.budget, now.boot)
        return _no_credential(replace(state, budget=budget), now, reply.message, reply.hint or _LOGIN_HINT)
    if reply.reason in STORE_REASONS:
        return _store_failed(replace(state, budget=budgets.refunded(state.budget, now.boot)), reply, now)
    state = replace(state, unauthorized=state.unauthorized + 1 if reply.unauthorized else 0)
    if reply.permanent or state.unauthorized >= UNAUTHORIZED_LIMIT:
        return _credential_refused(state, reply, now)
    return _try_again(state, reply, now, draw)


def _failure(reply: Failed, now: Stamp) -> Failure:
    return Failure(reply.reason, reply.message, reply.hint, reply.code, now.wall)


def _try_again(state: State, reply: Failed, now: Stamp, draw: float) -> Step:
    failures = state.failures + 1
    held = alive(state.grant, now.boot)
    pause = 0.0 if held is None else schedule.leeway(held)
    wait = schedule.backoff(failures, draw, reply.retry_after, pause)
    due = now.boot if state.due is None else state.due
    state = replace(state, failures=failures, failure=_failure(reply, now), retry_at=now.boot + wait, due=due)
    text = f"login failed ({reply.reason}): {reply.message}; trying again in {wait:.0f} s"
    return Step(state, (Save(), Logged("warning", text)))


def _credential_refused(state: State, reply: Failed, now: Stamp) -> Step:
    failure = replace(_failure(reply, now), reason="refused")
    state = replace(state, failures=state.failures + 1, failure=failure, refusal=failure, due_why="D7 refused")
    effects: tuple[Effect, ...] = (Save(), Logged("error", f"D7 refuses the credential: {reply.message}"))
    if alive(state.grant, now.boot) is not None and reply.code != NO_APPLICATION:
        return Step(state, effects)
    hook = Hooked("rejected", reply.code or "refused", reply.message)
    gone = (Gone(),) if state.grant is not None else ()
    return Step(replace(state, grant=None), (*effects, *gone, hook))


def _no_credential(state: State, now: Stamp, message: str, hint: str) -> Step:
    """The store works and is empty. It is not asked again by itself: `login`, an edit or a caller brings us back."""
    failure = Failure("store_missing", message, hint, at=now.wall)
    state = replace(state, failures=0, failure=failure, missing=True, due=None, due_why="")
    gone: tuple[Effect, ...] = (Gone(),) if state.grant is not None else ()
    return Step(replace(state, grant=None), (*gone, Logged("info", f"no credential: {message}")))


def _store_failed(state: State, reply: Failed, now: Stamp) -> Step:
    failures = state.failures + 1
    due = now.boot if state.due is None else state.due
    retry_at = now.boot + schedule.store_backoff(failures)
    first = state.failure is None or state.failure.reason != reply.reason
    state = replace(state, failures=failures, failure=_failure(reply, now), retry_at=retry_at, due=due)
    level: Literal["warning", "debug"] = "warning" if first else "debug"
    return Step(state, (Logged(level, f"the store cannot be read ({reply.reason}): {reply.message}"),))


def _proof_came(state: State, event: ProofCame, now: Stamp) -> Step:
    if event.generation != state.generation or state.phase != "proof":
        return Step(state)
    state = replace(_ended(state, now), suspect=None)
    held = alive(state.grant, now.boot)
    if held is None:
        return _ticked(state, Ticked(), now)
    match event.reply:
        case Proved(works=True):
            verdict = Verdict(held.fingerprint, works=True, at=now.boot)
            return Step(replace(state, verdict=verdict, misreports=state.misreports + 1))
        case Proved(refused=True) as reply:
            return _token_refused(replace(state, verdict=Verdict(held.fingerprint, False, now.boot)), reply, now)
        case reply:
            return _proof_failed(replace(state, verdict=Verdict(held.fingerprint, None, now.boot)), reply, now)


def _token_refused(state: State, reply: Proved, now: Stamp) -> Step:
    ready_made = state.grant is not None and state.grant.ready_made
    message = f"D7 refuses the token ({reply.code or reply.status})"
    hint = _NEW_TOKEN_HINT if ready_made else "look at the application in D7's control panel, then run: d7agent renew"
    failure = Failure("refused", message, hint, reply.code, now.wall)
    state = replace(state, grant=None, refusal=failure, failure=failure, failures=state.failures + 1)
    return Step(state, (Gone(), Save(), Logged("error", message), Hooked("rejected", reply.code or "refused", message)))


def _proof_failed(state: State, reply: Proved | Failed, now: Stamp) -> Step:
    if isinstance(reply, Failed):
        failure = _failure(reply, now)
    else:
        text = f"the proof of a token answered {reply.status}"
        failure = Failure("http_status", text, "D7 may have a fault; try again later", reply.code, now.wall)
    return Step(replace(state, failure=failure), (Logged("warning", failure.message),))


def _storing(state: State, event: Storing, now: Stamp) -> Step:
    void = _void(state)
    budget = budgets.spent(state.budget, now.boot) if event.login else state.budget
    state = replace(void.state, phase="store", started=now.boot, suspect=None, budget=budget)
    return Step(state, (*void.effects, Save()) if event.login else void.effects)


def _stored(state: State, event: Stored, now: Stamp) -> Step:
    if event.generation != state.generation or state.phase != "store":
        return Step(state)
    state = _ended(state, now)
    match event.reply:
        case Failed():
            return _ticked(state, Ticked(), now)
        case Done():
            return _begin_recall(_cleared(state), now)
        case reply:
            gone: tuple[Effect, ...] = () if state.grant is None else (Gone(),)
            step_ = _login_worked(_cleared(state), reply, now, event.draw, before=state)
            return Step(step_.state, (*gone, *step_.effects))


def _forgotten(state: State, event: Forgotten, now: Stamp) -> Step:
    void = _void(state)
    failure = Failure("store_missing", "the credential was forgotten", _LOGIN_HINT, at=now.wall)
    state = replace(_cleared(void.state), missing=True, failure=failure)
    return Step(state, (*void.effects, Gone()))


def _locked_up(state: State, event: LockedUp, now: Stamp) -> Step:
    void = _void(state)
    state = replace(void.state, grant=None, locked=True, suspect=None, remembered=False, verdict=None)
    return Step(state, (*void.effects, Gone()))


def _unlocked(state: State, event: Unlocked, now: Stamp) -> Step:
    if not state.locked:
        return Step(state)
    return _begin_recall(replace(state, locked=False), now)


def _state_saved(state: State, event: StateSaved, now: Stamp) -> Step:
    return Step(replace(state, budget=replace(state.budget, writable=event.ok)))


_TABLE: Final[dict[type, Callable[[State, Any, Stamp], Step]]] = {
    Started: _started,
    Configured: _configured,
    Ticked: _ticked,
    Wanted: _wanted,
    Refused: _refused,
    Renewed: _renewed,
    Recalled: _recalled,
    LoggedIn: _logged_in,
    ProofCame: _proof_came,
    Storing: _storing,
    Stored: _stored,
    Forgotten: _forgotten,
    LockedUp: _locked_up,
    Unlocked: _unlocked,
    StateSaved: _state_saved,
}
