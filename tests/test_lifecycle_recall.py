"""The store as a source: remembered and ready-made tokens, a keyring that is locked, away or empty."""

import pytest

from d7agent.core import lifecycle
from d7agent.core.errors import CredentialRejected, NoCredential, StoreUnavailable, TokenUnavailable
from d7agent.core.jobs import Failed
from d7agent.core.states import (
    Login,
    Recall,
)
from tests.support.fakes import DOWN
from tests.support.machine import Rig, last_gone

HOUR = 3600.0


def up() -> Rig:
    """A rig whose first token has come."""
    rig = Rig()
    rig.settle()
    return rig


def locked_store() -> Rig:
    """A rig that started on a locked keyring."""
    rig = Rig(start=False)
    rig.store.locked = True
    rig.restart()
    rig.settle()
    return rig


def test_a_restart_serves_the_remembered_token_at_once() -> None:
    """Without a login, without the network, with its expiry and its refresh as before."""
    rig = up()
    token, grant = rig.got(), rig.state.grant
    rig.d7.fault = DOWN
    rig.restart(off=60)
    assert rig.got() == token
    assert (rig.logins, rig.label, rig.state.remembered) == (1, "fresh", True)
    assert rig.state.grant is not None
    assert grant is not None
    assert rig.state.grant.expires == grant.expires
    assert rig.hooks() == ["refreshed"]


def test_after_a_reboot_the_remembered_token_keeps_its_age() -> None:
    """Ten minutes off are ten minutes less."""
    rig = up()
    token = rig.got()
    rig.restart(off=600, reboot=True)
    assert rig.got() == token
    assert rig.state.grant is not None
    assert rig.state.grant.expires is not None
    assert rig.state.grant.expires - rig.now.boot == pytest.approx(HOUR - 601, abs=2)


@pytest.mark.parametrize("reboot", [False, True])
def test_an_expired_remembered_token_is_replaced(reboot: bool) -> None:
    """It is not served for a moment."""
    rig = up()
    old = rig.got()
    rig.restart(off=2 * HOUR, reboot=reboot)
    assert rig.ask().found is None
    assert rig.got() != old
    assert rig.logins == 2


def test_a_remembered_token_from_the_future_is_not_trusted_after_a_reboot() -> None:
    """The wall clock went back by a year over the reboot: nobody knows the token's age, so D7 is asked."""
    rig = up()
    old = rig.got()
    rig.clock.step(-365 * 86400)
    rig.restart(off=600, reboot=True)
    assert rig.got() != old


def test_in_one_boot_a_stepped_clock_does_not_matter_to_a_remembered_token() -> None:
    """The boot clock knows."""
    rig = up()
    old = rig.got()
    rig.clock.step(-365 * 86400)
    rig.restart()
    assert rig.got() == old


def test_nothing_remembered_means_a_login() -> None:
    """The usual first start."""
    rig = Rig()
    assert [type(effect) for effect in rig.effects] == [Recall]
    rig.finish()
    assert isinstance(rig.all(Login)[0], Login)


def test_a_recall_that_fails_in_the_helper_is_followed_by_a_login() -> None:
    """The store may be well; the login will show."""
    rig = Rig()
    rig.finish_with(Failed("helper_failed", "it died"))
    rig.settle()
    assert (rig.label, rig.logins) == ("fresh", 1)


def test_a_ready_made_token_is_served_and_never_renewed() -> None:
    """No login, no refresh; at its end the state is rejected, with what to do next."""
    rig = Rig(start=False)
    rig.store.ready = rig.d7.issue(HOUR)
    rig.store.remembered = rig.d7.granted(rig.store.ready, ready_made=True)
    rig.restart()
    assert rig.got() == rig.store.ready
    assert (lifecycle.next_attempt(rig.state), rig.state.remembered) == (None, False)
    assert isinstance(rig.refused(min_validity=HOUR - 1), TokenUnavailable)
    rig.run(HOUR)
    error = rig.ask().error
    assert isinstance(error, CredentialRejected)
    assert "login --token" in error.hint
    assert (rig.logins, rig.hooks(), last_gone(rig)) == (0, ["rejected"], True)


def test_a_ready_made_token_without_exp_is_served_for_ever() -> None:
    """It does not say when it ends."""
    rig = Rig(start=False)
    rig.store.ready = rig.d7.issue(None)
    rig.store.remembered = rig.d7.granted(rig.store.ready, ready_made=True)
    rig.restart()
    rig.run(90 * 86400)
    assert (rig.got(), rig.label) == (rig.store.ready, "fresh")


def test_a_ready_made_token_found_dead_is_rejected() -> None:
    """The store holds one that has expired."""
    rig = Rig(start=False)
    rig.store.ready = rig.d7.issue(HOUR, age=2 * HOUR)
    rig.store.remembered = rig.d7.granted(rig.store.ready, ready_made=True)
    rig.restart()
    rig.settle()
    assert isinstance(rig.ask().error, CredentialRejected)
    assert rig.label == "rejected"


def test_a_locked_store_is_probed_without_a_prompt() -> None:
    """After 5, 10, 20, 30, 30 s; callers are told at once; opening it is enough, and the remembered token is served."""
    rig = up()
    token = rig.got()
    rig.store.locked = True
    rig.restart()
    rig.settle()
    assert isinstance(rig.refused(wait=0), StoreUnavailable)
    before = len(rig.all(Recall))
    rig.run(100)
    assert len(rig.all(Recall)) - before == 5
    assert not [login for login in rig.all(Login) if login.prompt]
    rig.store.locked = False
    rig.run(31)
    assert (rig.ask().token, rig.label, rig.logins) == (token, "fresh", 1)
    assert rig.hooks()[-1] == "recovered"


def test_a_locked_store_costs_no_budget() -> None:
    """A night with a locked desktop leaves all logins for the morning."""
    rig = up()
    rig.store.locked = True
    rig.run(12 * HOUR)
    assert rig.state.budget.level == pytest.approx(30, abs=1)
    assert rig.logins == 1
    rig.store.locked = False
    rig.run(31)
    assert rig.label == "fresh"


def test_a_caller_makes_the_agent_look_again() -> None:
    """Two seconds after the last look a caller is reason enough for another: unlock, ask, have it."""
    rig = locked_store()
    rig.run(200)
    rig.store.locked = False
    rig.run(2.1 - (rig.now.boot - rig.state.ended_at) if rig.now.boot - rig.state.ended_at < 2 else 0)
    assert rig.got()


def test_store_trouble_does_not_count_for_d7() -> None:
    """A long locked night does not make the first D7 hiccup wait five minutes."""
    rig = locked_store()
    rig.run(HOUR)
    rig.d7.fault = DOWN
    rig.store.locked = False
    rig.run(31)
    first, second, *_ = rig.d7.logins
    assert second - first < 2


def test_a_night_of_locked_refreshes_does_not_count_for_d7_either() -> None:
    """The same where the store is read for a refresh: the first failure of D7's is the first."""
    rig = up()
    rig.store.locked = True
    rig.run(HOUR * 0.9)
    assert rig.state.failures > 5
    rig.d7.fault, rig.store.locked = DOWN, False
    rig.run(31)
    assert (rig.logins, rig.state.failures) == (2, 1)


def test_looking_into_the_store_waits_for_no_budget() -> None:
    """All logins are spent and the keyring opens: the remembered token is served, which costs none."""
    rig = up()
    while rig.state.budget.level >= 1:
        rig.store.keeps = False
        rig.store.remembered = None
        rig.restart(off=0.1)
        rig.settle()
    rig.store.remembered = rig.d7.granted(rig.d7.issue())
    rig.store.locked = True
    rig.restart(off=0.1)
    rig.settle()
    rig.store.locked = False
    rig.run(6)
    assert rig.label == "fresh"


def test_d7s_backoff_outlives_a_look_into_the_store() -> None:
    """A restart during D7's Retry-After does not log in early."""
    rig = Rig()
    rig.d7.faults = [Failed("rate_limited", "later", status=429, retry_after=600)]
    rig.settle()
    rig.restart()
    rig.run(590)
    assert rig.logins == 1
    rig.run(15)
    assert rig.logins == 2


def test_a_store_that_is_found_empty_does_not_kill_the_token() -> None:
    """The item was deleted by hand: the good token is served to its end as stale, then there is no credential."""
    rig = up()
    token = rig.got()
    rig.store.holds, rig.store.remembered = False, None
    rig.run(HOUR * 0.8)
    assert (rig.ask().token, rig.label) == (token, "stale")
    rig.run(HOUR)
    assert rig.label == "no_credential"
    assert isinstance(rig.refused(wait=0), NoCredential)
    rig.store.holds = True
    rig.run(3)
    assert rig.got() != token
