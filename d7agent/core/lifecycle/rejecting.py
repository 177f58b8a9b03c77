"""Someone says that D7 refuses the token. It is replaced, or D7 itself is asked: nobody's word alone ends a token."""

from typing import Final

from msgspec.structs import replace

from d7agent.core.jobs import Failed, Proved
from d7agent.core.lifecycle.failing import failed, ready_made_over, token_refused
from d7agent.core.lifecycle.phases import PROOF_PAUSE, begin_login, begin_proof, ended, may_prove
from d7agent.core.lifecycle.receiving import adopt
from d7agent.core.lifecycle.refreshing import look, wanted
from d7agent.core.lifecycle.when import alive, caller_login
from d7agent.core.model import Grant, Stamp
from d7agent.core.states import Failure, Hooked, Logged, ProofCame, Refused, State, Step, Verdict, Wanted

YOUNG: Final = 60.0  # seconds; a token refused this soon is proved, not replaced: another would fare alike


def refused(state: State, event: Refused, now: Stamp) -> Step:
    """A report, while nothing is under way."""
    held = alive(state.grant, now.boot)
    if held is None:
        return wanted(state, Wanted(uid=event.uid), now)
    if held.fingerprint != event.fingerprint:
        return Step(state)
    if _proved_lately(state, held, now):
        return Step(replace(state, misreports=state.misreports + 1))
    if held.ready_made or state.refusal is not None or _young(state, held, now):
        return begin_proof(_suspected(state, held), held, now) if may_prove(state, now) else Step(state)
    if caller_login(state, event.uid, now.boot) > now.boot:
        return Step(state)
    return begin_login(_suspected(state, held), now, uid=event.uid)


def refused_during_login(state: State, event: Refused, now: Stamp) -> Step:
    """The login under way may bring another token. If not, there is a proof to make."""
    held = alive(state.grant, now.boot)
    known = held is None or held.fingerprint != event.fingerprint or state.suspect == held.fingerprint
    return Step(state) if held is None or known else Step(_suspected(state, held))


def _young(state: State, held: Grant, now: Stamp) -> bool:
    """One that was remembered over a restart is not young: nobody knows what came between."""
    return state.login_at is not None and now.boot < held.received.boot + YOUNG


def _suspected(state: State, held: Grant) -> State:
    return replace(state, suspect=held.fingerprint)


def _proved_lately(state: State, held: Grant, now: Stamp) -> bool:
    verdict = state.verdict
    works = verdict is not None and verdict.works is True and verdict.fingerprint == held.fingerprint
    return works and verdict is not None and now.boot < verdict.at + PROOF_PAUSE


def proof_came(state: State, event: ProofCame, now: Stamp) -> Step:
    """D7 was asked whether a token works."""
    candidate, held = state.candidate, state.grant
    state = replace(ended(state, now), suspect=None, candidate=None)
    token = alive(held if candidate is None else candidate, now.boot)
    if token is None:
        over = candidate is not None and candidate.ready_made
        return ready_made_over(state, now) if over else look(state, now)
    works = event.reply.works if isinstance(event.reply, Proved) else None
    if isinstance(event.reply, Proved) and not works and not event.reply.refused:
        works = None  # neither yes nor one of D7's codes for a bad token: nobody knows
    state = replace(state, verdict=Verdict(token.fingerprint, works, now.boot))
    if works is False and isinstance(event.reply, Proved):
        return token_refused(state, token, event.reply.code or str(event.reply.status), now)
    if candidate is not None:
        taken = adopt(state, candidate, now, 0.5)
        return Step(taken.state, (*taken.effects, Hooked("refreshed")))
    if works:
        return Step(replace(state, misreports=state.misreports + 1))
    return _nobody_knows(state, event.reply, now)


def _nobody_knows(state: State, reply: Proved | Failed, now: Stamp) -> Step:
    if isinstance(reply, Failed):
        failure = failed(reply, now)
    else:
        text = f"the proof of a token answered {reply.status}"
        failure = Failure("http_status", text, "D7 may have a fault; try again later", reply.code, now.wall)
    return Step(replace(state, failure=failure), (Logged("warning", failure.message),))
