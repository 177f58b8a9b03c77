"""The credential stored, edited and forgotten, and what comes late."""

import pytest

from d7agent.core.errors import NoCredential
from d7agent.core.jobs import Done, Failed, Nothing
from d7agent.core.states import (
    Cancel,
    Configured,
    Forgotten,
    Gone,
    LoggedIn,
    Login,
    Policy,
    Pushed,
    Recalled,
    Stored,
)
from tests.support.fakes import STORE_EMPTY, STORE_LOCKED, WRONG_SECRET
from tests.support.machine import Rig, last_gone

HOUR = 3600.0


def up() -> Rig:
    """A rig whose first token has come."""
    rig = Rig()
    rig.settle()
    return rig


def test_stored_and_proved() -> None:
    """`login`: the token of its proof is served, the former one is gone, and it counts as one login."""
    rig = up()
    old = rig.got()
    rig.begin_store()
    caller = rig.ask(min_validity=HOUR * 0.9)
    rig.settle()
    assert rig.got() != old
    assert caller.token
    assert rig.logins == 2
    assert not last_gone(rig)


def test_stored_unproved() -> None:
    """`verify` false: the old token is gone at once, the new credential is tried by an ordinary login."""
    rig = up()
    old = rig.got()
    rig.store.remembered = None
    rig.begin_store(login=False)
    rig.finish()
    assert last_gone(rig)
    assert rig.got() != old


def test_not_stored() -> None:
    """Wrong credentials at `login`: nothing changes for the profile that works."""
    rig = up()
    old, serial = rig.got(), rig.state.serial
    rig.d7.faults = [WRONG_SECRET]
    rig.begin_store()
    rig.settle()
    assert (rig.got(), rig.label, rig.state.serial, rig.state.refusal) == (old, "fresh", serial, None)


def test_a_login_that_never_reached_d7_is_given_back() -> None:
    """The keyring was locked, or the secret had a control character."""
    rig = up()
    level = rig.state.budget.level
    for reply in (STORE_LOCKED, Failed("refused", "control character", invalid="client_secret")):
        rig.begin_store()
        rig.finish_with(reply)
    assert rig.state.budget.level == pytest.approx(level, abs=0.1)


def test_stored_ends_what_is_under_way() -> None:
    """A refresh with the former credential is cancelled; its result, should it come, is thrown away."""
    rig = Rig()
    rig.finish()
    rig.begin_store()
    assert rig.all(Cancel)
    rig.settle()
    token = rig.got()
    rig.finish_late()
    assert rig.got() == token


def test_a_new_credential_ends_a_rejection() -> None:
    """`login` after a wrong secret."""
    rig = Rig()
    rig.d7.fault = WRONG_SECRET
    rig.settle()
    rig.d7.fault = None
    rig.begin_store()
    rig.settle()
    assert (rig.label, rig.hooks()) == ("fresh", ["rejected", "recovered", "refreshed"])


def test_an_edited_credential_leads_to_a_login() -> None:
    """The secret's file changed: what is remembered serves meanwhile, D7 is asked at once."""
    rig = up()
    old = rig.got()
    rig.configure(other=True)
    assert last_gone(rig)
    rig.finish()
    assert rig.ask().token == old
    rig.settle()
    assert (rig.got() != old, rig.logins) == (True, 2)


def test_another_base_url_begins_anew() -> None:
    """Nothing of the former profile counts: no token, no backoff, no rejection."""
    rig = Rig()
    rig.d7.fault = WRONG_SECRET
    rig.settle()
    rig.d7.fault = None
    rig.configure(Policy(max_age=HOUR), other=True)
    assert rig.label == "empty"
    rig.settle()
    assert (rig.label, rig.state.policy.max_age) == ("fresh", HOUR)


def test_late_results_are_thrown_away() -> None:
    """What was begun for the former configuration neither serves nor fails nor counts."""
    rig = Rig()
    rig.finish()
    rig.feed(Configured(rig.state.policy, other_credential=True))
    rig.finish_late()
    assert rig.label == "empty"
    assert not rig.all(Pushed)
    rig.settle()
    assert rig.label == "fresh"


def test_a_late_login_is_not_taken_for_the_one_under_way() -> None:
    """The helper of the former configuration answers while the new one's login runs."""
    rig = Rig()
    rig.finish()
    former, rig.store.keeps = rig.d7.issue(), False
    (late,) = rig.all(Login)
    rig.configure(other=True)
    rig.finish()
    assert rig.state.phase == "login"
    rig.feed(LoggedIn(late.generation, rig.d7.granted(former)))
    assert (rig.state.phase, rig.state.grant) == ("login", None)
    rig.settle()
    assert rig.got() != former


@pytest.mark.parametrize("reply", [Nothing(), STORE_EMPTY, STORE_LOCKED])
def test_a_late_recall_is_thrown_away(reply: Nothing | Failed) -> None:
    """By generation and by phase."""
    rig = up()
    before = rig.state
    rig.feed(Recalled(rig.state.generation, reply))
    rig.feed(Recalled(rig.state.generation - 1, reply))
    assert rig.state is before


def test_a_credential_stored_while_the_profile_changed_is_found_again() -> None:
    """The result is late, its token is thrown away, but the store has it: everything begins anew."""
    rig = up()
    rig.begin_store()
    generation, job = rig.state.generation, rig.job
    rig.job = None
    rig.configure(other=True)
    rig.settle()
    assert job is not None
    rig.feed(Stored(generation, job.reply()))
    rig.settle()
    assert rig.label == "fresh"
    rig.feed(Stored(generation, STORE_LOCKED))
    assert rig.label == "fresh"


def test_two_logins_at_the_terminal_do_not_mix() -> None:
    """The first is late once the second began; the second decides."""
    rig = up()
    rig.begin_store()
    first, rig.job = rig.state.generation, None
    rig.begin_store()
    rig.feed(Stored(first, Done()))
    rig.settle()
    assert rig.label == "fresh"
    rig.begin_store()
    first, rig.job = rig.state.generation, None
    rig.begin_store()
    rig.feed(Stored(first, Done()))
    rig.finish_with(STORE_LOCKED)
    rig.settle()
    assert rig.label == "fresh"


def test_forgotten() -> None:
    """`logout`: the token is gone, there is no credential, nothing is tried."""
    rig = up()
    rig.begin_store(login=False)
    rig.job, rig.store.holds = None, False
    rig.feed(Forgotten())
    assert (rig.label, last_gone(rig)) == ("no_credential", True)
    assert isinstance(rig.refused(wait=0), NoCredential)
    rig.run(HOUR)
    assert rig.logins == 1
    assert rig.all(Gone)
