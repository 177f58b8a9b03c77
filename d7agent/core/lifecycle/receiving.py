"""A recall or a login came back."""

from msgspec.structs import replace

from d7agent.core import claims, schedule
from d7agent.core.jobs import Failed, Granted, Nothing
from d7agent.core.lifecycle.failing import (
    DEAD_ON_ARRIVAL,
    login_failed,
    no_credential,
    ready_made_over,
    store_failed,
    token_refused,
)
from d7agent.core.lifecycle.phases import after, begin_proof, ended, fitted, may_prove
from d7agent.core.lifecycle.refreshing import look
from d7agent.core.lifecycle.when import alive, in_store_trouble
from d7agent.core.model import STORE_REASONS, Grant, Stamp
from d7agent.core.states import Effect, Hooked, Logged, LoggedIn, Pushed, Recalled, Save, State, Step


def recalled(state: State, event: Recalled, now: Stamp) -> Step:
    """The store was asked for a remembered token."""
    state = ended(state, now)
    match event.reply:
        case Granted() as reply:
            return _remembered(_store_answered(state, now), reply, now, event.draw)
        case Nothing(credential=True):
            return look(_store_answered(state, now), now)
        case Nothing():
            return no_credential(state, now, "the store holds no credential")
        case Failed() as reply if reply.missing or reply.reason in STORE_REASONS:
            return store_failed(state, reply, now)
        case _:  # the helper failed, the store may be well: the login will show
            return look(replace(state, recalled=True), now)


def _store_answered(state: State, now: Stamp) -> State:
    """The store works: its former trouble no longer holds back a login. D7's backoff does."""
    state = replace(state, recalled=True, missing=False, due=now.boot if state.due is None else state.due)
    return replace(state, failure=None, failures=0, retry_at=0.0) if in_store_trouble(state) else state


def _remembered(state: State, reply: Granted, now: Stamp, draw: float) -> Step:
    """The store holds a token: a remembered one, or a ready-made one that is the credential itself."""
    try:
        held = _recalled(reply, now)
    except claims.ExpiredOnArrival:
        return ready_made_over(state, now) if reply.ready_made else look(state, now)
    if reply.ready_made:
        return in_force(state, held, now, draw)
    if alive(state.grant, now.boot) is not None or _refused_before(state, held):
        return look(state, now)
    taken = in_force(replace(state, remembered=True), held, now, draw)
    note = Logged("info", "serving the token remembered in the store")
    return after((*taken.effects, note), look(taken.state, now))


def _recalled(reply: Granted, now: Stamp) -> Grant:
    """A token out of the store. Raises claims.ExpiredOnArrival."""
    made = _grant(reply, claims.recalled(reply.received, now, reply.access_token))
    return _living(made if claims.same_boot(reply.received, now) else claims.not_beyond(made, now), now)


def _grant(reply: Granted, received: Stamp) -> Grant:
    return claims.grant(
        reply.access_token, received, date=reply.date, token_type=reply.token_type, ready_made=reply.ready_made
    )


def _living(made: Grant, now: Stamp) -> Grant:
    """Raises claims.ExpiredOnArrival for a token that ran out on its way here."""
    if alive(made, now.boot) is None:
        raise claims.ExpiredOnArrival
    return made


def logged_in(state: State, event: LoggedIn, now: Stamp) -> Step:
    """A login came back."""
    state = ended(state, now)
    if isinstance(event.reply, Failed):
        return login_failed(state, event.reply, now, event.draw)
    return login_worked(state, event.reply, now, event.draw)


def login_worked(state: State, reply: Granted, now: Stamp, draw: float) -> Step:
    """D7 gave a token (or the store a ready-made one)."""
    try:
        fresh = _living(_grant(reply, claims.not_later(reply.received, now)), now)
    except claims.ExpiredOnArrival:
        return ready_made_over(state, now) if reply.ready_made else login_failed(state, DEAD_ON_ARRIVAL, now, draw)
    state = replace(
        state,
        failure=None,
        failures=0,
        unauthorized=0,
        retry_at=0.0,
        refusal=None,
        missing=False,
        recalled=True,
        edited=False,
        remembered=reply.remembered,
        login_at=now.boot,
        login_wall=state.login_wall if reply.ready_made else now.wall,
    )
    taken = in_force(state, fresh, now, draw)
    news: tuple[Effect, ...] = () if taken.state.serial == state.serial else (Hooked("refreshed"),)
    return Step(taken.state, (Save(), *taken.effects, *news))


def in_force(state: State, fresh: Grant, now: Stamp, draw: float) -> Step:
    """A token that came is served from now on, unless it is the one we have, or one that D7 has refused."""
    held = alive(state.grant, now.boot)
    if held is not None and held.fingerprint == fresh.fingerprint:
        return _same_bytes(state, held, fresh, now, draw)
    if _refused_before(state, fresh):
        return _in_doubt(state, fresh, now)
    return adopt(state, fresh, now, draw)


def adopt(state: State, fresh: Grant, now: Stamp, draw: float) -> Step:
    """The token is in force."""
    due, why = schedule.refresh_due(fresh, state.policy.max_age, draw)
    if state.edited and not fresh.ready_made:
        due, why = now.boot, "the credential changed"
    state = replace(
        state,
        grant=fresh,
        serial=state.serial + 1,
        draw=draw,
        due=due,
        due_why=why,
        expired=False,
        unchanged=False,
        suspect=None,
    )
    return after((Pushed(),), _recovered(fitted(state, now)))


def _same_bytes(state: State, held: Grant, fresh: Grant, now: Stamp, draw: float) -> Step:
    """D7 gave the token we have: a success, never a loop. Of two estimates of its end the earlier holds."""
    ends = [at for at in (held.expires, fresh.expires) if at is not None]
    kept = replace(held, skew=fresh.skew, expires=min(ends, default=None))
    due, why = schedule.same_bytes_due(kept, state.policy.max_age, now.boot, draw)
    state = replace(state, grant=kept, due=None if held.ready_made else due, due_why=why, draw=draw, unchanged=True)
    recovered = _recovered(state)
    if state.suspect != held.fingerprint or not may_prove(state, now):
        return Step(replace(recovered.state, suspect=None), recovered.effects)
    return after(recovered.effects, begin_proof(recovered.state, kept, now))


def _refused_before(state: State, token: Grant) -> bool:
    verdict = state.verdict
    return verdict is not None and verdict.works is False and verdict.fingerprint == token.fingerprint


def _in_doubt(state: State, token: Grant, now: Stamp) -> Step:
    """A token that D7 refused the last time it was asked is proved before it is served."""
    if may_prove(state, now):
        return begin_proof(replace(state, candidate=token), token, now)
    return token_refused(state, token, None, now)


def _recovered(state: State) -> Step:
    if state.outage is None:
        return Step(state)
    text = "working again"
    return Step(replace(state, outage=None), (Hooked("recovered", state.outage, text), Logged("info", text)))
