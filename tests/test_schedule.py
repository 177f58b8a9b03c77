"""When a token is refreshed and how long a failure waits: the numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d7agent.core import schedule
from d7agent.core.model import Grant, Secret, Stamp

AT = Stamp(boot=10_000.0, wall=1.79e9)
AGE = 12 * 3600.0
draws = st.floats(0, 1, exclude_max=True)


def token(life: float | None, *, used: float = 0.0, ready_made: bool = False) -> Grant:
    """A token of this lifetime, `used` seconds old when it came."""
    expires = None if life is None else AT.boot + life - used
    return Grant(Secret("t"), "f", AT, expires=expires, lifetime=life, ready_made=ready_made)


def after(grant: Grant, draw: float, max_age: float = AGE) -> float:
    """Seconds from receipt to refresh."""
    due, _ = schedule.refresh_due(grant, max_age, draw)
    assert due is not None
    return due - AT.boot


@pytest.mark.parametrize(("draw", "share"), [(0.0, 0.70), (0.5, 0.75), (1.0, 0.80)])
def test_refresh_is_at_three_quarters_give_or_take(draw: float, share: float) -> None:
    """75 % of life, 5 % either way by the draw."""
    assert after(token(3600), draw) == pytest.approx(3600 * share)


@given(st.floats(240, 1e8), draws)
def test_refresh_is_never_later_than_a_minute_before_expiry(life: float, draw: float) -> None:
    """Whatever the jitter, a minute is left."""
    assert after(token(life), draw) <= life - 60


@given(st.floats(1, 239.9), draws)
def test_short_tokens_are_refreshed_at_half_life(life: float, draw: float) -> None:
    """Below 4 min half of life, with the same jitter."""
    assert 0.45 * life - 1e-6 <= after(token(life), draw) <= 0.55 * life + 1e-6


@given(st.floats(1, 1e8), st.floats(60, 1e6), draws)
def test_max_age_caps_every_life(life: float, max_age: float, draw: float) -> None:
    """max_age (with its 5 %) comes first where it is shorter."""
    assert after(token(life), draw, max_age) <= max_age * 1.05 + 1e-6


@pytest.mark.parametrize(("draw", "hours"), [(0.0, 11.4), (0.5, 12.0), (1.0, 12.6)])
def test_without_exp_refresh_is_at_max_age(draw: float, hours: float) -> None:
    """12 h, 5 % either way."""
    assert after(token(None), draw) == pytest.approx(hours * 3600)


@pytest.mark.parametrize("life", [None, 3600.0])
def test_a_ready_made_token_is_never_due(life: float | None) -> None:
    """There is nothing to renew it with."""
    assert schedule.refresh_due(token(life, ready_made=True), AGE, 0.5)[0] is None


@given(st.floats(1, 1e8), st.floats(0, 0.999), draws)
def test_a_token_in_hand_is_never_due_at_once(life: float, used: float, draw: float) -> None:
    """A token that came old (or with an absurd iat) is not refreshed the moment it came: no login loop."""
    assert 0 < after(token(life, used=life * used), draw) <= life


@given(st.floats(0.1, 1e8), draws)
def test_same_bytes_wait_half_of_what_is_left(left: float, draw: float) -> None:
    """Half of what is left, at least a minute, at most to the end, and max_age caps it."""
    now = AT.boot + 100
    grant = token(left + 100)
    due, _ = schedule.same_bytes_due(grant, AGE, now, draw)
    assert due - now == pytest.approx(min(max(60, left / 2), left, AGE * (1 + 0.05 * (2 * draw - 1))))


def test_same_bytes_without_exp_wait_for_max_age() -> None:
    """The same bytes without an end are a success: the next login is max_age away."""
    assert schedule.same_bytes_due(token(None), AGE, AT.boot + 5, 0.5) == (AT.boot + 5 + AGE, "max_age")


@pytest.mark.parametrize(("life", "seconds"), [(None, 30), (3600, 30), (300, 30), (100, 10), (10, 1)])
def test_leeway_is_half_a_minute_or_a_tenth(life: float | None, seconds: float) -> None:
    """min(30 s, 10 % of life)."""
    assert schedule.leeway(token(life)) == seconds


def test_backoff_doubles_up_to_five_minutes() -> None:
    """1, 2, 4 … 256, 300, 300 s where the draw cuts nothing."""
    waits = [schedule.backoff(n, 0.0, None, 0.0) for n in range(1, 12)]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


@given(st.integers(1, 10**6), draws)
def test_backoff_is_cut_by_a_quarter_at_most(failures: int, draw: float) -> None:
    """Each delay lies between three quarters and the whole of its step, at any count of failures."""
    whole = schedule.backoff(failures, 0.0, None, 0.0)
    assert whole * 0.75 <= schedule.backoff(failures, draw, None, 0.0) <= whole <= 300


@pytest.mark.parametrize(("said", "waited"), [(None, 1), (-5.0, 1), (0.0, 1), (90.0, 90), (86400.0, 3600)])
def test_retry_after_is_honoured_up_to_an_hour(said: float | None, waited: float) -> None:
    """D7's wish counts if it is longer than ours, capped at 1 h."""
    assert schedule.backoff(1, 0.0, said, 0.0) == waited


def test_a_good_token_gives_d7_more_rest() -> None:
    """The pause for a good token is a floor under the backoff."""
    assert schedule.backoff(1, 0.9, None, 30.0) == 30.0


def test_a_store_is_probed_every_five_to_thirty_seconds() -> None:
    """5, 10, 20, 30, 30 s: unlocking the desktop is noticed within half a minute."""
    assert [schedule.store_backoff(n) for n in (1, 2, 3, 4, 99)] == [5, 10, 20, 30, 30]


@pytest.mark.parametrize(("life", "every"), [(None, AGE), (600, 450), (120, 60), (1e9, AGE)])
def test_the_interval_is_that_of_the_kind(life: float | None, every: float) -> None:
    """What the budget is fitted to: the kind of token, not how much was left of this one."""
    assert schedule.interval(token(life), AGE) == every
    assert schedule.interval(token(life, ready_made=True), AGE) is None
