"""What a token says of its times, and how they are pinned to the boot clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d7agent.core import claims
from d7agent.core.claims import Claims, ExpiredOnArrival, read_claims
from d7agent.core.model import Grant, Secret, Stamp
from tests.support.fakes import EPOCH, jwt

HERE = Stamp(boot=5000.0, wall=EPOCH, boot_id="this boot")
HOUR = 3600.0
YEAR = 365 * 86400.0


def granted(token: str, received: Stamp = HERE, *, date: float | None = EPOCH, ready_made: bool = False) -> Grant:
    """The token as it came."""
    return claims.grant(Secret(token), received, date=date, ready_made=ready_made)


def left(grant: Grant) -> float:
    """Seconds from receipt to expiry."""
    assert grant.expires is not None
    return grant.expires - grant.received.boot


@pytest.mark.parametrize("parts", [2, 3])
def test_times_are_read_from_two_and_three_parts(parts: int) -> None:
    """D7's own sample has two parts; both forms name their times."""
    assert read_claims(jwt({"exp": 20, "iat": 10}, parts=parts)) == Claims(exp=20.0, iat=10.0)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "opaque",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "..",
        "é.é.é",
        jwt({"exp": 1})[:-9],
        "x.bnVsbA.x",  # null
        "x.W10.x",  # []
        "x." + "Ww" * 9000 + ".x",  # nested deeply
        "x._w.x",  # no UTF-8
    ],
)
def test_what_is_no_jwt_names_no_times(token: str) -> None:
    """Rubbish is a token without times, never an error."""
    assert read_claims(token) == Claims()


@pytest.mark.parametrize("exp", ["1790000000", True, None, [], {}, 1e300, -1e300, "NaN"])
def test_an_exp_that_is_no_sane_number_is_none(exp: object) -> None:
    """`exp` as a string, a truth value or beyond all years is as good as absent."""
    assert read_claims(jwt({"exp": exp, "iat": exp})) == Claims()


@given(st.text())
def test_no_text_upsets_the_reader(token: str) -> None:
    """Any token at all can be looked at."""
    assert isinstance(read_claims(token), Claims)


def test_with_iat_the_lifetime_is_exp_minus_iat() -> None:
    """lifetime = exp - iat; expiry is pinned to the boot clock, less the second that D7's rounding may hide."""
    grant = granted(jwt({"exp": EPOCH + HOUR, "iat": EPOCH}))
    assert (grant.lifetime, left(grant), grant.issued_at) == (HOUR, HOUR - 1, EPOCH)


def test_without_iat_the_lifetime_is_exp_minus_receipt() -> None:
    """lifetime = exp - receipt where the token does not say when it was made."""
    grant = granted(jwt({"exp": EPOCH + HOUR}))
    assert (grant.lifetime, left(grant), grant.issued_at) == (HOUR, HOUR - 1, EPOCH)


def test_a_token_handed_out_again_has_only_its_rest() -> None:
    """A token issued half an hour before it came is good for the other half."""
    grant = granted(jwt({"exp": EPOCH + HOUR / 2, "iat": EPOCH - HOUR / 2}))
    assert (grant.lifetime, left(grant)) == (HOUR, HOUR / 2 - 1)


def test_a_token_of_seconds_keeps_most_of_them() -> None:
    """The rounding takes a tenth of a short life at most."""
    assert left(granted(jwt({"exp": EPOCH + 4, "iat": EPOCH}))) == pytest.approx(3.6)


def test_without_exp_nothing_expires() -> None:
    """D7's public tokens have neither exp nor iat: they do not say when they end."""
    grant = granted(jwt({"aud": "auth-backend:app", "sub": "x"}))
    assert (grant.expires, grant.lifetime, grant.issued_at) == (None, None, EPOCH)


@pytest.mark.parametrize("skew", [-HOUR, -1.0, 0.0, 300.0, 23 * HOUR])
def test_a_sane_date_gives_the_skew(skew: float) -> None:
    """D7's clock by its Date header is what counts; ours may be off by hours."""
    grant = granted(jwt({"exp": EPOCH + skew + HOUR}), date=EPOCH + skew)
    assert (grant.skew, left(grant)) == (skew, HOUR - 1)


@pytest.mark.parametrize("off", [-10 * YEAR, 10 * YEAR])
def test_a_clock_of_ours_that_is_years_off_does_not_matter(off: float) -> None:
    """With a wall clock ten years wrong, the Date header still tells what is left."""
    here = Stamp(boot=5000.0, wall=EPOCH + off, boot_id="this boot")
    assert left(granted(jwt({"exp": EPOCH + HOUR}), here)) == HOUR - 1


@pytest.mark.parametrize("off", [-3 * YEAR, 3 * YEAR])
def test_an_absurd_date_does_not_stretch_a_token(off: float) -> None:
    """A Date header years off (a proxy's) gives way to our clock: the careful one of the two counts."""
    assert left(granted(jwt({"exp": EPOCH + HOUR}), date=EPOCH + off)) == HOUR - 1


def test_without_a_date_our_clock_counts() -> None:
    """No Date header: no skew, and the wall clock tells what is left."""
    grant = granted(jwt({"exp": EPOCH + HOUR}), date=None)
    assert (grant.skew, left(grant)) == (None, HOUR - 1)


def test_iat_bounds_a_life_that_a_wrong_clock_would_stretch() -> None:
    """No token is held for longer than exp - iat, whatever the clocks say."""
    here = Stamp(boot=5000.0, wall=EPOCH - YEAR, boot_id="this boot")
    assert left(granted(jwt({"exp": EPOCH + HOUR, "iat": EPOCH}), here, date=None)) == HOUR - 1


@pytest.mark.parametrize("exp", [EPOCH - 10, EPOCH, 0, -5, -1e14])
def test_a_token_that_came_dead_is_refused(exp: float) -> None:
    """`exp` in the past, zero or negative: ExpiredOnArrival."""
    with pytest.raises(ExpiredOnArrival):
        granted(jwt({"exp": exp}))


def test_an_iat_after_exp_is_refused() -> None:
    """A token that ends before it begins was dead when it came."""
    with pytest.raises(ExpiredOnArrival):
        granted(jwt({"exp": EPOCH + 10, "iat": EPOCH + 20}))


def test_the_year_9999_is_capped() -> None:
    """`exp` in the year 9999 counts as ten years, so that sums of instants stay exact."""
    assert left(granted(jwt({"exp": 253_402_300_799}))) == claims.FAR - 1


def test_a_ready_made_token_does_not_say_when_it_was_made() -> None:
    """Receipt is not issue for a token made in the control panel."""
    assert granted("opaque", ready_made=True).issued_at is None


def test_a_remembered_token_of_this_boot_keeps_its_instant() -> None:
    """In one boot the boot clock says when the token came, however the wall clock was set since."""
    former = Stamp(boot=4000.0, wall=EPOCH + YEAR, boot_id="this boot")
    assert claims.recalled(former, HERE, Secret(jwt({"exp": 1}))) == former


def test_a_remembered_token_of_another_boot_goes_by_the_wall_clock() -> None:
    """After a reboot the wall clock tells how old the token is."""
    former = Stamp(boot=9000.0, wall=EPOCH - 600, boot_id="last boot")
    assert claims.recalled(former, HERE, Secret("opaque")) == Stamp(4400.0, EPOCH - 600, "this boot")


def test_a_stamp_from_the_future_counts_as_now() -> None:
    """A boot instant still to come, or a wall time still to come on a token without exp, is taken as now."""
    ahead = Stamp(boot=6000.0, wall=EPOCH, boot_id="this boot")
    assert claims.recalled(ahead, HERE, Secret(jwt({"exp": 1}))) == HERE
    assert claims.not_later(ahead, HERE) == HERE
    assert claims.recalled(Stamp(1.0, EPOCH + 9, "last boot"), HERE, Secret("opaque")) == HERE


def test_after_a_reboot_into_the_past_a_token_with_exp_is_not_trusted() -> None:
    """A machine that wakes without a clock cannot know whether the remembered token is long dead."""
    with pytest.raises(ExpiredOnArrival):
        claims.recalled(Stamp(1.0, EPOCH + 9, "last boot"), HERE, Secret(jwt({"exp": EPOCH + HOUR})))


@pytest.mark.parametrize("off", [0.0, -3000.0])
def test_over_a_reboot_the_clock_of_now_bounds_a_token(off: float) -> None:
    """Our clock was 50 min slow when the token came, without a Date, and is right now: no life is gained by it."""
    token = Secret(jwt({"exp": EPOCH + 600}))
    received = Stamp(9000.0, EPOCH - 60 + off, "last boot")
    made = claims.grant(token, claims.recalled(received, HERE, token), date=None)
    bounded = claims.not_beyond(made, HERE)
    assert bounded.expires is not None
    assert bounded.expires - HERE.boot <= 600
    assert claims.not_beyond(granted("opaque"), HERE).expires is None


def test_without_boot_ids_the_wall_clock_counts() -> None:
    """Two unknown boots are not the same boot."""
    assert claims.recalled(Stamp(1.0, EPOCH - 60), Stamp(5000.0, EPOCH), Secret("opaque")).boot == 4940.0


@given(st.floats(-1e6, 1e6), st.one_of(st.none(), st.floats(-4e9, 4e9)), st.one_of(st.none(), st.floats(-1e6, 1e6)))
def test_no_clock_stretches_a_life(off: float, date: float | None, iat: float | None) -> None:
    """Whatever the Date header and our clock say, the time left never exceeds exp - iat nor ten years."""
    token = jwt({"exp": EPOCH + HOUR} | ({} if iat is None else {"iat": EPOCH + iat}))
    try:
        grant = granted(token, Stamp(5000.0, EPOCH + off), date=date)
    except ExpiredOnArrival:
        return
    assert left(grant) <= (claims.FAR if iat is None else HOUR - iat)
