"""What callers are told: min_validity, waiting, single flight, and the errors."""

import pytest

from d7agent.core import answers, lifecycle
from d7agent.core.errors import BudgetSpent, CredentialRejected, InvalidParameter, TokenUnavailable
from d7agent.core.model import Stamp
from d7agent.core.states import Ask, Wait, Wanted
from tests.support.fakes import DOWN, WRONG_SECRET
from tests.support.machine import PEER, Rig

HOUR = 3600.0


def up() -> Rig:
    """A rig whose first token, of an hour, has come."""
    rig = Rig()
    rig.settle()
    return rig


def aged(seconds: float, *, down: bool = False) -> Rig:
    """A rig whose token has this many seconds left, because D7 was down for all its refreshes."""
    rig = up()
    rig.d7.fault = DOWN
    assert rig.state.grant is not None
    assert rig.state.grant.expires is not None
    rig.run(rig.state.grant.expires - seconds - rig.now.boot)
    while rig.job is not None:
        rig.finish()
    if not down:
        rig.d7.fault = None
    return rig


def test_any_number_of_callers_one_login() -> None:
    """Single flight: a thousand callers on an empty agent share one login and get the same token."""
    rig = Rig()
    callers = [rig.ask() for _ in range(1000)]
    rig.settle()
    assert rig.logins == 1
    assert len({caller.token for caller in callers}) == 1


def test_a_caller_that_leaves_cancels_nothing() -> None:
    """The login goes on for the others."""
    rig = Rig()
    leaver, stayer = rig.ask(), rig.ask()
    rig.callers.remove(leaver)
    rig.settle()
    assert (stayer.token != "", rig.logins) == (True, 1)


def test_a_caller_waits_as_long_as_it_said() -> None:
    """max_wait over, login still under way: TokenUnavailable at that very second."""
    rig = Rig(latency=60)
    caller = rig.ask(wait=20)
    rig.run(19.9)
    assert caller.found is None
    rig.run(0.2)
    assert isinstance(caller.error, TokenUnavailable)
    assert caller.error.fields == {"reason": "timeout", "retry_after": 1}


def test_no_wait_still_begins_the_login() -> None:
    """max_wait 0: the error at once, the token for the next one."""
    rig = up()
    rig.clock.advance(2 * HOUR)
    assert isinstance(rig.ask(wait=0).error, TokenUnavailable)
    rig.settle()
    assert rig.ask(wait=0).token


def test_beyond_max_wait_the_error_comes_at_once() -> None:
    """The next attempt is known to be too late: no use in waiting."""
    rig = Rig()
    rig.d7.fault = DOWN
    rig.run(200)
    caller = rig.ask(wait=5)
    assert isinstance(caller.error, TokenUnavailable)
    retry_after = caller.error.fields["retry_after"]
    assert isinstance(retry_after, int)
    assert retry_after > 5


def test_within_max_wait_the_next_attempt_is_waited_for() -> None:
    """A caller with patience gets the token of the attempt after the failed one."""
    rig = Rig()
    rig.d7.faults = [DOWN, DOWN]
    caller = rig.ask(wait=30)
    rig.run(10)
    assert caller.token


def test_a_good_token_is_served_at_once_without_a_wish() -> None:
    """More than the default leeway left: no wait, no login."""
    rig = up()
    rig.run(HOUR / 2)
    assert rig.ask().token
    assert rig.logins == 1


def test_less_than_the_leeway_waits_for_the_refresh_under_way() -> None:
    """20 s left: the refresh that begins now is waited for, and its token handed out."""
    rig = aged(20)
    old = rig.state.grant
    assert old is not None
    rig.run(max(0.0, rig.state.retry_at - rig.now.boot) + 1)
    assert rig.got() != old.access_token.reveal()


def test_less_than_the_leeway_in_an_outage_is_served_at_once() -> None:
    """D7 is down and the next try is not now: a good token is served until its last second, without a wait."""
    rig = aged(2, down=True)
    assert rig.state.retry_at > rig.now.boot
    assert rig.ask().token


def test_a_wait_for_a_refresh_that_fails_still_ends_with_the_good_token() -> None:
    """The refresh under way fails: the old token is still good, so it is the answer."""
    rig = aged(25, down=True)
    rig.run(max(0.0, rig.state.retry_at - rig.now.boot))
    while rig.job is None and rig.state.grant is not None and rig.now.boot < (rig.state.grant.expires or 0) - 1:
        rig.run(0.5)
    caller = rig.ask()
    rig.settle()
    assert caller.found is not None


def test_min_validity_is_a_promise() -> None:
    """Half an hour is asked for and only a quarter is left: one login, one new token."""
    rig = up()
    first = rig.got()
    rig.run(HOUR * 0.6)
    assert rig.got(min_validity=HOUR * 0.3) == first
    assert rig.got(min_validity=HOUR * 0.5) != first
    assert rig.logins == 2


def test_more_than_a_whole_life_is_invalid() -> None:
    """No token of this profile lives that long: InvalidParameter, no login."""
    rig = up()
    caller = rig.ask(min_validity=HOUR + 1)
    assert isinstance(caller.error, InvalidParameter)
    assert caller.error.fields == {"parameter": "min_validity"}
    assert (rig.logins, rig.job) == (1, None)


def test_a_login_that_cannot_help_is_not_made() -> None:
    """D7 hands out the same token until it ends: asking for more than its rest costs one login, not one a call."""
    rig = up()
    rig.d7.same = True
    rig.run(HOUR / 2)
    for _ in range(5):
        error = rig.refused(min_validity=HOUR * 0.7)
        assert isinstance(error, TokenUnavailable)
    assert rig.logins == 2
    assert rig.ask().token


def test_a_token_as_long_as_asked_for_is_never_had() -> None:
    """Exactly a whole life cannot be promised: one try, then the reason."""
    rig = up()
    assert isinstance(rig.refused(min_validity=HOUR), TokenUnavailable)
    assert isinstance(rig.refused(min_validity=HOUR), TokenUnavailable)
    assert rig.logins <= 2


def test_a_caller_who_came_during_recall_gets_its_own_login() -> None:
    """The remembered token is too short for its wish: a login follows, and nobody waits for nothing."""
    rig = up()
    rig.run(HOUR * 0.6)
    rig.restart()
    caller = rig.ask(min_validity=HOUR * 0.8)
    rig.settle()
    assert caller.token
    assert rig.logins == 2


def test_without_exp_any_min_validity_is_met() -> None:
    """A token that does not say when it ends is good for all that is known."""
    rig = Rig()
    rig.d7.lifetime = None
    rig.settle()
    assert rig.ask(min_validity=10**6).token


def test_a_peer_causes_three_logins_an_hour() -> None:
    """By min_validity too: the fourth is told when to come back, the owner is not held up."""
    rig = Rig()
    rig.d7.lifetime = 400
    rig.settle()
    for _ in range(3):
        rig.run(100)
        assert rig.got(min_validity=399 - 50, uid=PEER)
    rig.run(100)
    error = rig.refused(min_validity=399 - 50, uid=PEER)
    assert isinstance(error, BudgetSpent)
    assert rig.got(min_validity=399 - 50)


def test_callers_cannot_spend_the_reserve() -> None:
    """An owner's script in a loop is stopped at ten left; the agent's own refreshes go on."""
    rig = Rig()
    rig.d7.lifetime = 300
    rig.settle()
    error = None
    for _ in range(40):
        rig.run(12)
        caller = rig.ask(min_validity=290)
        rig.settle()
        error = caller.found if caller.found is not None and isinstance(caller.found, BudgetSpent) else error
    assert isinstance(error, BudgetSpent)
    assert rig.state.budget.level >= 9
    rig.run(HOUR)
    assert rig.ask().token


def test_rejected_answers_at_once() -> None:
    """Nobody waits for a credential that D7 refuses."""
    rig = Rig()
    rig.d7.fault = WRONG_SECRET
    rig.settle()
    assert isinstance(rig.ask(wait=30).error, CredentialRejected)
    assert isinstance(rig.ask(wait=30, min_validity=5).error, CredentialRejected)


def test_an_expired_token_is_never_served() -> None:
    """Not in the millisecond after its end, whether or not the tick has come."""
    rig = up()
    assert rig.state.grant is not None
    expires = rig.state.grant.expires
    assert expires is not None
    ask = Ask(rig.now, expires + 30, min_validity=0)
    good = answers.answer(rig.state, ask, Stamp(expires - 0.001, 0.0))
    dead = answers.answer(rig.state, ask, Stamp(expires, 0.0))
    assert good is rig.state.grant
    assert isinstance(dead, Wait)
    assert answers.label(rig.state, expires) == "expired"


def test_a_wish_is_only_for_what_would_begin_something() -> None:
    """No event for a token in hand, for a login under way, or for a backoff that has to be sat out."""
    rig = Rig()
    ask = Ask(rig.now, rig.now.boot + 30)
    assert answers.wish(rig.state, ask, Wait(), rig.now) is None
    rig.settle()
    assert rig.state.grant is not None
    assert answers.wish(rig.state, ask, rig.state.grant, rig.now) is None
    rig.d7.fault = DOWN
    rig.run(2 * HOUR)
    assert answers.wish(rig.state, ask, Wait(), rig.now) is None


def test_the_keepers_plain_wish_is_understood() -> None:
    """`Wanted` without a min_validity means the default leeway."""
    rig = up()
    assert lifecycle.step(rig.state, Wanted(fresh=True), rig.now).state.phase == "login"


@pytest.mark.parametrize("wait", [0.0, 5.0, 30.0])
def test_the_hot_path_builds_nothing(wait: float) -> None:
    """The answer for a fresh token is the grant itself."""
    rig = up()
    assert answers.answer(rig.state, Ask(rig.now, rig.now.boot + wait), rig.now) is rig.state.grant
