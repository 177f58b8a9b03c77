"""Stepped clocks, suspends and wrong dates: the token's end stays where it is."""

import pytest

from d7agent.core.states import Ticked
from tests.support.fakes import DOWN
from tests.support.machine import Rig

HOUR = 3600.0
YEAR = 365 * 86400.0
STEPS = [-10 * YEAR, -HOUR, HOUR, 10 * YEAR]


def up(lifetime: float | None = HOUR) -> Rig:
    """A rig whose first token has come."""
    rig = Rig()
    rig.d7.lifetime = lifetime
    rig.settle()
    return rig


@pytest.mark.parametrize("step", STEPS)
def test_a_stepped_wall_clock_moves_nothing(step: float) -> None:
    """Refresh and expiry are pinned to the boot clock: same instants, no dead token, no early login."""
    rig = up()
    due, grant = rig.state.due, rig.state.grant
    rig.clock.step(step)
    rig.feed(Ticked())
    assert (rig.state.due, rig.state.grant, rig.logins) == (due, grant, 1)
    rig.d7.fault = DOWN
    rig.run(HOUR - 40)
    assert rig.ask().token
    rig.run(60)
    assert rig.label == "expired"


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("iat", [True, False])
def test_a_login_under_a_wrong_clock_goes_by_d7s_date(step: float, iat: bool) -> None:
    """A token received while our clock is off lives as long as D7 means it to."""
    rig = Rig()
    rig.d7.iat = iat
    rig.clock.step(step)
    rig.settle()
    assert rig.state.grant is not None
    assert rig.state.grant.expires is not None
    assert rig.state.grant.expires - rig.now.boot == pytest.approx(HOUR - 1, abs=1.01)
    rig.run(5 * HOUR)
    assert rig.label == "fresh"
    assert rig.logins <= 8


@pytest.mark.parametrize("skew", [-5 * YEAR, 5 * YEAR])
def test_an_absurd_date_does_not_stretch_a_token(skew: float) -> None:
    """A proxy's Date header is years off while our clock is right."""
    rig = Rig()
    rig.d7.skew = skew
    rig.run(5 * HOUR)
    assert rig.label == "fresh"
    assert rig.logins <= 8


def test_without_a_date_our_clock_counts() -> None:
    """No Date header and a clock that is right: as ever."""
    rig = Rig()
    rig.d7.skew = None
    rig.run(5 * HOUR)
    assert rig.label == "fresh"
    assert rig.state.grant is not None
    assert rig.state.grant.skew is None


def test_the_skew_is_kept_to_be_shown() -> None:
    """Our clock is five minutes slow: D7's Date says so."""
    rig = Rig()
    rig.clock.step(-300)
    rig.settle()
    assert rig.state.grant is not None
    assert rig.state.grant.skew == pytest.approx(300, abs=1)


def test_a_suspend_cannot_make_us_serve_a_dead_token() -> None:
    """BOOTTIME went on for two hours: a caller before the first tick waits for the new one."""
    rig = up()
    old = rig.got()
    rig.clock.advance(2 * HOUR)
    assert rig.got() != old


def test_a_suspend_past_the_refresh_is_made_up_at_once() -> None:
    """The machine wakes at 90 % of life: the token is good and served, the refresh begins with the first tick."""
    rig = up()
    old = rig.got()
    rig.clock.advance(HOUR * 0.9)
    assert rig.ask().token == old
    rig.feed(Ticked())
    rig.settle()
    assert rig.got() != old


def test_a_suspend_during_a_login() -> None:
    """The answer that came before the suspend may be dead after it: then it is not served but asked for again."""
    rig = Rig()
    rig.finish()
    token = rig.d7.issue()
    reply = rig.d7.granted(token)
    rig.clock.advance(2 * HOUR)
    rig.finish_with(reply)
    assert rig.label == "empty"
    rig.run(2)
    assert rig.got() != token


def test_a_reply_from_the_future_counts_as_now() -> None:
    """A helper whose stamp is ahead does not stretch the token."""
    rig = Rig()
    rig.finish()
    reply = rig.d7.granted(rig.d7.issue(), received=None)
    ahead = rig.d7.granted(reply.access_token.reveal(), received=type(reply.received)(9e9, rig.now.wall, "boot-1"))
    rig.finish_with(ahead)
    assert rig.state.grant is not None
    assert rig.state.grant.expires is not None
    assert rig.state.grant.expires - rig.now.boot <= HOUR


def test_of_two_estimates_of_an_end_the_earlier_holds() -> None:
    """The same bytes with another Date: a token's end is never put off."""
    for first, second in ((0.0, -600.0), (-600.0, 0.0)):
        rig = Rig()
        rig.d7.same, rig.d7.iat, rig.honest_times = True, False, False
        rig.d7.skew = first
        rig.settle()
        rig.d7.skew = second
        rig.run(20)
        rig.renew()
        rig.settle()
        assert (rig.logins, rig.state.serial) == (2, 1)
        assert rig.state.grant is not None
        assert rig.state.grant.expires is not None
        assert rig.clock.true_of(rig.state.grant.expires) == pytest.approx(HOUR - 1, abs=2)


def test_no_busy_loop_over_any_suspend() -> None:
    """After each tick the next wanted instant lies in the future (the rig holds it at every tick)."""
    rig = up(600)
    rig.d7.fault = DOWN
    for seconds in (100, 400, 1, 5000, 10**6, 0.001):
        rig.clock.advance(seconds)
        rig.feed(Ticked())
        rig.feed(Ticked())
        rig.settle()
