"""RejectToken in each of its endings: nobody's word alone brings a token down."""

import pytest

from d7agent.core.errors import AgentError, BudgetSpent, CredentialRejected, TokenUnavailable
from d7agent.core.jobs import Failed, Proved
from d7agent.core.states import Gone, Prove
from tests.support.fakes import DOWN, WRONG_SECRET
from tests.support.machine import PEER, Rig

HOUR = 3600.0


def aged(seconds: float = 600.0, *, same: bool = False) -> Rig:
    """A rig whose token is this old."""
    rig = Rig()
    rig.d7.same = same
    rig.settle()
    rig.run(seconds)
    return rig


def test_an_older_token_is_answered_with_the_newer_one() -> None:
    """The agent already has another token: that is the answer, and nothing is begun."""
    rig = aged()
    caller = rig.reject("a token of yesterday")
    assert caller.token == rig.got()
    assert (rig.logins, rig.d7.proofs) == (1, [])


def test_new_bytes_are_the_answer() -> None:
    """One login; its token is new."""
    rig = aged()
    old = rig.got()
    rig.d7.revoked.add(old)
    callers = [rig.reject(old) for _ in range(50)]
    rig.settle()
    assert {caller.token for caller in callers} == {rig.got()} != {old}
    assert (rig.logins, rig.d7.proofs) == (2, [])


def test_the_same_bytes_that_work_stay() -> None:
    """An app forgot the header: D7 gives the same token and accepts it; it is the answer, the report is counted."""
    rig = aged(same=True)
    old = rig.got()
    caller = rig.reject(old)
    rig.settle()
    assert caller.token == old
    assert (rig.logins, len(rig.d7.proofs), rig.state.misreports) == (2, 1, 1)
    assert (rig.label, rig.hooks(), rig.all(Gone)) == ("fresh", ["refreshed"], [])


def test_the_same_bytes_that_d7_refuses_are_rejected() -> None:
    """D7 itself says so: no token, no more logins, the cause with its code."""
    rig = aged(same=True)
    old = rig.got()
    caller = rig.reject(old)
    rig.finish()
    rig.d7.revoked.add(old)
    rig.settle()
    assert isinstance(caller.error, CredentialRejected)
    assert caller.error.fields == {"code": "ACCESS_TOKEN_SIGNATURE_VERIFICATION_FAILED"}
    rig.run(86400)
    assert (rig.label, rig.logins, rig.hooks()[-1]) == ("rejected", 2, "rejected")
    assert rig.all(Gone)


@pytest.mark.parametrize(
    "proof", [DOWN, Proved(works=False, refused=False, status=500), Proved(works=False, refused=False, status=403)]
)
def test_an_unknown_proof_brings_nothing_down(proof: Proved | Failed) -> None:
    """Nobody knows: the reporter is told so, everyone else is served on."""
    rig = aged(same=True)
    old = rig.got()
    rig.d7.proof = proof
    caller = rig.reject(old)
    rig.settle()
    assert isinstance(caller.error, TokenUnavailable)
    assert caller.error.fields["retry_after"] == 60
    assert (rig.got(), rig.label) == (old, "fresh")


def test_a_ready_made_token_is_proved_not_replaced() -> None:
    """There is nothing to log in with."""
    rig = ready_made()
    caller = rig.reject(rig.got())
    rig.settle()
    assert caller.token == rig.got()
    assert (rig.logins, len(rig.d7.proofs)) == (0, 1)
    rig.run(61)
    rig.d7.revoked.add(rig.got())
    caller = rig.reject(rig.got())
    rig.settle()
    assert isinstance(caller.error, CredentialRejected)
    assert "control panel" in caller.error.hint


def ready_made(*, lifetime: float | None = None) -> Rig:
    """A rig whose store holds a token made in the control panel."""
    rig = Rig(start=False)
    rig.store.ready = rig.d7.issue(lifetime)
    rig.store.remembered = rig.d7.granted(rig.store.ready, ready_made=True)
    rig.restart()
    rig.settle()
    return rig


def test_a_young_token_is_proved_not_replaced() -> None:
    """Refused within 60 s of its login: another would fare alike."""
    rig = aged(59)
    old = rig.got()
    assert rig.reject(old).found is None
    rig.settle()
    assert (rig.got(), rig.logins, len(rig.d7.proofs)) == (old, 1, 1)


def test_a_token_of_sixty_seconds_is_replaced() -> None:
    """From 60 s on a login is worth a try."""
    rig = aged(60.5)
    old = rig.got()
    rig.reject(old)
    rig.settle()
    assert (rig.got() != old, rig.logins, rig.d7.proofs) == (True, 2, [])


def test_a_remembered_token_is_replaced_however_young() -> None:
    """Over a restart nobody knows what came between."""
    rig = aged(5)
    old = rig.got()
    rig.restart()
    rig.settle()
    assert rig.got() == old
    rig.reject(old)
    rig.settle()
    assert (rig.got() != old, rig.logins, rig.d7.proofs) == (True, 2, [])


def test_one_proof_a_minute() -> None:
    """Within a minute the last proof is the answer; a reporter cannot make us flood D7."""
    rig = aged(same=True)
    old = rig.got()
    for _ in range(50):
        assert rig.reject(old).found is None or rig.reject(old).token == old
        rig.settle()
    assert (len(rig.d7.proofs), rig.logins) == (1, 2)
    assert rig.state.misreports >= 50
    rig.run(61)
    rig.reject(old)
    rig.settle()
    assert len(rig.d7.proofs) == 2


def test_no_second_proof_for_another_token_within_the_minute() -> None:
    """A young token cannot be proved again at once: the reporter has to come back, the token stays."""
    rig = aged(10)
    rig.reject(rig.got())
    rig.settle()
    rig.renew()
    rig.settle()
    young = rig.got()
    error = rig.reject(young).error
    assert isinstance(error, TokenUnavailable)
    assert (rig.got(), len(rig.d7.proofs)) == (young, 1)


def test_a_peer_has_three_logins_an_hour() -> None:
    """A peer that rejects whatever it gets is told to wait; the owner still has logins, and everyone a token."""
    rig = aged(61)
    for _ in range(3):
        old = rig.got()
        rig.reject(old, uid=PEER)
        rig.settle()
        assert rig.got() != old
        rig.run(61)
    error = rig.reject(rig.got(), uid=PEER).error
    assert isinstance(error, BudgetSpent)
    assert rig.logins == 4
    rig.reject(rig.got())
    rig.settle()
    assert rig.logins == 5


def test_peers_together_cannot_spend_the_reserve() -> None:
    """Twenty uids that reject in turn leave ten logins in the bucket."""
    rig = aged(61)
    errors: list[AgentError] = []
    for uid in range(2000, 2060):
        caller = rig.reject(rig.got(), uid=uid)
        rig.settle()
        errors += [caller.error] if isinstance(caller.found, AgentError) else []
        rig.run(61)
        assert rig.state.budget.level >= 9
        assert rig.ask().token
    assert any(isinstance(error, BudgetSpent) for error in errors)


def test_a_login_under_way_is_joined() -> None:
    """The reject comes while a refresh runs: its new token is the answer, without a second login."""
    rig = aged()
    old = rig.got()
    rig.renew()
    caller = rig.reject(old)
    rig.settle()
    assert caller.token == rig.got() != old
    assert rig.logins == 2


def test_a_login_under_way_that_gives_the_same_bytes_is_followed_by_a_proof() -> None:
    """The report is not forgotten over it."""
    rig = aged(same=True)
    old = rig.got()
    rig.renew()
    caller = rig.reject(old)
    rig.settle()
    assert caller.token == old
    assert (rig.logins, len(rig.d7.proofs)) == (2, 1)


def test_a_login_that_fails_tells_the_reporter_only() -> None:
    """D7 is down: the reporter gets the cause, the token is served on."""
    rig = aged()
    old = rig.got()
    rig.d7.fault = DOWN
    caller = rig.reject(old)
    rig.settle()
    assert caller.error.fields["reason"] == "connect"
    assert rig.got() == old


def test_in_backoff_no_login_is_made() -> None:
    """The reporter is told when to come back."""
    rig = aged()
    rig.d7.fault = DOWN
    rig.reject(rig.got())
    rig.settle()
    assert isinstance(rig.reject(rig.got()).error, TokenUnavailable)
    assert rig.logins == 2


def test_with_a_refused_credential_the_token_is_proved() -> None:
    """No login is left to try; D7 says whether the token that is served to its end is dead already."""
    rig = aged()
    old = rig.got()
    rig.d7.fault = WRONG_SECRET
    rig.renew()
    rig.settle()
    assert rig.label == "stale"
    assert rig.reject(old).found is None
    rig.settle()
    assert rig.got() == old
    rig.run(61)
    rig.d7.revoked.add(old)
    caller = rig.reject(old)
    rig.settle()
    assert isinstance(caller.error, CredentialRejected)
    assert rig.label == "rejected"


def test_without_a_token_a_report_is_a_question() -> None:
    """The token has expired meanwhile: the reporter waits for the next one like anyone."""
    rig = aged()
    old = rig.got()
    rig.clock.advance(2 * HOUR)
    caller = rig.reject(old)
    rig.settle()
    assert caller.token != old


def test_a_token_that_was_refused_is_proved_before_it_is_served_again() -> None:
    """After `renew` D7 hands out the refused bytes again: nobody gets them unless D7 accepts them now."""
    rig = aged(same=True)
    old = rig.got()
    rig.reject(old)
    rig.finish()
    rig.d7.proof = Proved(works=False, refused=True, status=401, code="ACCESS_TOKEN_EXPIRED")
    rig.settle()
    assert rig.label == "rejected"
    rig.run(61)
    caller, bystander = rig.renew(), rig.ask()
    rig.settle()
    assert isinstance(caller.error, CredentialRejected)
    assert isinstance(bystander.error, CredentialRejected)
    rig.run(61)
    rig.d7.proof = None
    caller = rig.renew()
    rig.settle()
    assert caller.token == old
    assert rig.label == "fresh"


def test_a_refused_token_is_not_recalled() -> None:
    """The state file names the refused token: a restart does not serve it from the store."""
    rig = aged(same=True)
    old = rig.got()
    rig.reject(old)
    rig.finish()
    rig.d7.revoked.add(old)
    rig.settle()
    assert rig.label == "rejected"
    rig.restart()
    caller = rig.ask()
    rig.settle()
    assert caller.token != old


def test_the_proof_is_of_the_token_in_force() -> None:
    """The helper is asked about the token that was reported."""
    rig = aged(10)
    rig.reject(rig.got())
    (proof,) = rig.all(Prove)
    assert proof.grant is rig.state.grant


def test_a_proof_for_a_token_that_ended_meanwhile_is_no_matter() -> None:
    """The token runs out while D7 is asked: the next login comes."""
    rig = Rig(latency=30)
    rig.d7.lifetime = 40
    rig.run(60.1)
    rig.reject(rig.got())
    rig.clock.advance(45)
    rig.finish()
    rig.run(31)
    assert rig.label in ("fresh", "stale")
