"""What a failure of D7, of the store or of the token leads to."""

from typing import Final

from msgspec.structs import replace

from d7agent.core import budget as budgets
from d7agent.core import schedule
from d7agent.core.jobs import Failed
from d7agent.core.lifecycle.phases import after, drop
from d7agent.core.lifecycle.when import alive, in_store_trouble
from d7agent.core.model import STORE_REASONS, Grant, Stamp
from d7agent.core.states import Effect, Failure, Hooked, Logged, Save, State, Step, Verdict

UNAUTHORIZED_LIMIT: Final = 3  # logins answered 401 in a row are a refused credential, not a passing fault
NO_APPLICATION: Final = "APPLICATION_NOT_EXISTS"  # D7: the application was deleted, and every token with it
LOGIN_HINT: Final = "store one with: d7agent login"
NEW_TOKEN_HINT: Final = "make a new token in D7's control panel and run: d7agent login --token"  # noqa: S105  words
RENEW_HINT: Final = "look at the application in D7's control panel, then run: d7agent renew"
DEAD_ON_ARRIVAL: Final = Failed(
    reason="bad_reply",
    message="D7 sent a token that had already expired",
    hint="if this goes on, compare this machine's clock with D7's: d7agent doctor",
)
REFUSED_ON_ARRIVAL: Final = Failed(
    reason="bad_reply",
    message="D7 gave a token that it refuses itself",
    hint="nothing to do: the older token is served, and another login follows",
)


def login_failed(state: State, reply: Failed, now: Stamp, draw: float) -> Step:
    """A login failed: before it reached D7, for now, or for good."""
    state = replace(state, suspect=None)
    if reply.missing or reply.reason in STORE_REASONS:
        state = replace(state, budget=budgets.refunded(state.budget, now.boot))
        return after((Save(),), store_failed(state, reply, now))
    state = replace(state, unauthorized=state.unauthorized + 1 if reply.unauthorized else 0)
    if reply.permanent or state.unauthorized >= UNAUTHORIZED_LIMIT:
        return _credential_refused(state, reply, now)
    return _try_again(state, reply, now, draw)


def store_failed(state: State, reply: Failed, now: Stamp) -> Step:
    """The store holds no credential, or it is locked or away and is asked again soon, without a prompt."""
    if reply.missing:
        return no_credential(state, now, reply.message, reply.hint)
    failure = failed(reply, now)
    failures = state.failures + 1 if in_store_trouble(state) else 1
    first = state.failure is None or state.failure.reason != reply.reason
    state = replace(
        state,
        failure=failure,
        failures=failures,
        outage=failure.reason,
        retry_at=now.boot + schedule.store_backoff(failures),
        due=_wanted_from(state, now),
    )
    text = f"the store cannot be read ({reply.reason}): {reply.message}"
    return Step(state, (Logged("warning" if first else "debug", text),))


def no_credential(state: State, now: Stamp, message: str, hint: str = "") -> Step:
    """The store works and is empty. `login`, an edit, a caller or the token's end make us look again."""
    failure = Failure("store_missing", message, hint or LOGIN_HINT, at=now.wall)
    known = state.missing
    state = replace(
        state,
        failure=failure,
        failures=0,
        retry_at=0.0,
        missing=True,
        recalled=False,
        due=None,
        due_why="no credential",
    )
    return Step(state, (Logged("debug" if known else "info", f"no credential: {message}"),))


def _try_again(state: State, reply: Failed, now: Stamp, draw: float) -> Step:
    """A passing fault: wait twice as long as the last time. A good token gives D7 more rest."""
    failures = 1 if in_store_trouble(state) else state.failures + 1
    held = alive(state.grant, now.boot)
    pause = 0.0 if held is None else schedule.leeway(held)
    wait = schedule.backoff(failures, draw, reply.retry_after, pause)
    state = replace(
        state,
        failure=failed(reply, now),
        failures=failures,
        outage=reply.reason,
        retry_at=now.boot + wait,
        due=_wanted_from(state, now),
    )
    again = max(wait, (state.due or 0.0) - now.boot)  # an early `renew` that failed does not bring the refresh forward
    text = f"login failed ({reply.reason}): {reply.message}; trying again in {again:.0f} s"
    return Step(state, (Save(), Logged("warning", text)))


def _wanted_from(state: State, now: Stamp) -> float:
    """A good token keeps its time; without one, the next is wanted now."""
    return now.boot if state.due is None or alive(state.grant, now.boot) is None else state.due


def _credential_refused(state: State, reply: Failed, now: Stamp) -> Step:
    """D7 refuses the credential. A good token is served to its end, unless D7 says that the application is gone."""
    failure = replace(failed(reply, now), reason="refused")
    held = alive(state.grant, now.boot)
    if held is None:
        return refuse(state, failure, now)
    if reply.code == NO_APPLICATION:
        verdict = Verdict(held.fingerprint, works=False, at=now.boot)
        return refuse(replace(state, verdict=verdict), failure, now)
    state = replace(state, failure=failure, failures=state.failures + 1, outage="refused", refusal=failure)
    text = f"D7 refuses the credential; the token in hand is served to its end: {reply.message}"
    return Step(replace(state, due_why="D7 refuses the credential"), (Save(), Logged("error", text)))


def refuse(state: State, failure: Failure, now: Stamp) -> Step:
    """No token and no login any more, until the credential changes or someone runs `renew`."""
    state = replace(state, failure=failure, failures=state.failures + 1, outage="refused", refusal=failure)
    dropped = drop(replace(state, suspect=None, candidate=None), now)
    told = (Save(), Logged("error", f"rejected: {failure.message}"), _rejected(failure))
    return Step(replace(dropped.state, due_why="D7 refuses it"), dropped.effects + told)


def token_refused(state: State, token: Grant, code: str | None, now: Stamp) -> Step:
    """D7 refuses a token: the one in force, or one that just came. `code`: D7's, where it was asked just now."""
    other = alive(state.grant, now.boot)
    if other is not None and other.fingerprint != token.fingerprint:
        return _try_again(state, REFUSED_ON_ARRIVAL, now, draw=0.0)
    hint = NEW_TOKEN_HINT if token.ready_made else RENEW_HINT
    text = "D7 refuses the token" if code is None else f"D7 refuses the token ({code})"
    return refuse(state, Failure("refused", text, hint, code, now.wall), now)


def expired(state: State, now: Stamp) -> Step:
    """The token in force has run out."""
    ready_made = state.grant is not None and state.grant.ready_made
    dropped = drop(replace(state, expired=True), now)
    if ready_made:
        return after(dropped.effects, ready_made_over(dropped.state, now))
    told: tuple[Effect, ...] = (Logged("warning", "the access token has expired and there is no newer one yet"),)
    if state.refusal is not None:
        told += (_rejected(state.refusal),)
    return Step(dropped.state, dropped.effects + told)


def ready_made_over(state: State, now: Stamp) -> Step:
    """A ready-made token has run out; only a person can make another."""
    return refuse(state, Failure("refused", "the ready-made token has expired", NEW_TOKEN_HINT, at=now.wall), now)


def failed(reply: Failed, now: Stamp) -> Failure:
    """The helper's words as the profile keeps them."""
    return Failure(reply.reason, reply.message, reply.hint, reply.code, now.wall)


def _rejected(failure: Failure) -> Hooked:
    return Hooked("rejected", failure.code or failure.reason, failure.message)
