"""The login budget as a token bucket, on its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from d7agent.core import budget as budgets
from d7agent.core.budget import Budget, Snapshot
from d7agent.core.model import Stamp
from tests.support.machine import within_budget

NOW = Stamp(boot=50_000.0, wall=1.79e9, boot_id="b")
YEAR = 365 * 86400.0
HOUR = 3600.0


def emptied(count: int, now: float = NOW.boot) -> Budget:
    """A bucket from which `count` logins were taken."""
    budget = Budget(at=now)
    for _ in range(count):
        budget = budgets.spent(budget, now)
    return budget


def unwritable(budget: Budget) -> Budget:
    """The same bucket with a state file that cannot be written."""
    return replace(budget, writable=False)


def test_it_begins_full() -> None:
    """30 logins."""
    assert budgets.left(Budget(), 0.0) == 30


def test_it_refills_at_thirty_an_hour() -> None:
    """One every two minutes, never beyond its size."""
    budget = emptied(30)
    assert [budgets.left(budget, NOW.boot + s) for s in (0, 119, 120, 1200, 1e9)] == [0, 0, 1, 10, 30]


def test_callers_leave_a_third() -> None:
    """The last ten are for the agent's own refreshes."""
    budget = emptied(20)
    assert budgets.next_login(budget, NOW.boot, asked=False) == NOW.boot
    assert budgets.next_login(budget, NOW.boot, asked=True) == NOW.boot + 120
    assert budgets.next_login(emptied(30), NOW.boot, asked=False) == NOW.boot + 120


@pytest.mark.parametrize(("per_hour", "reserve"), [(1, 0), (2, 0), (3, 1), (5, 1), (60, 20), (3600, 1200)])
def test_the_configured_budget_overrides(per_hour: int, reserve: int) -> None:
    """`logins_per_hour` sets size and refill; a third is kept of that as well."""
    budget = budgets.fitted(Budget(at=0.0, level=1e9, capacity=1e9), 0.0, per_hour, 2.0)
    assert (budget.capacity, budget.per_hour) == (per_hour, per_hour)
    taken = 0
    while budgets.next_login(budget, 0.0, asked=True) <= 0.0:
        budget, taken = budgets.spent(budget, 0.0), taken + 1
    assert taken == per_hour - reserve


@pytest.mark.parametrize(("interval", "per_hour"), [(None, 30), (43200, 30), (450, 30), (120, 60), (2, 3600)])
def test_the_schedule_gets_twice_what_it_needs(interval: float | None, per_hour: float) -> None:
    """30 an hour, or twice what this token's schedule needs, whichever is more."""
    assert budgets.fitted(Budget(), 0.0, None, interval).per_hour == per_hour


def test_fitting_gives_no_login_away() -> None:
    """What is in the bucket stays; only the refill changes."""
    assert budgets.left(budgets.fitted(emptied(30), NOW.boot, None, 2.0), NOW.boot) == 0


def test_a_peer_has_three_an_hour() -> None:
    """The fourth has to wait until an hour after the first; another uid does not."""
    budget = Budget(at=0.0)
    for at in (0.0, 600.0, 1200.0):
        assert budgets.next_for_peer(budget, 7, at) == at
        budget = budgets.spent(budget, at, 7)
    assert budgets.next_for_peer(budget, 7, 1300.0) == 3600.0
    assert budgets.next_for_peer(budget, 8, 1300.0) == 1300.0
    assert budgets.next_for_peer(budget, 7, 3600.0) == 3600.0


def test_a_refund_takes_back_all_that_was_noted() -> None:
    """A login that never reached D7 costs neither the bucket nor the peer."""
    before = budgets.spent(Budget(at=0.0), 10.0)
    assert budgets.refunded(budgets.spent(before, 20.0, 7), 20.0) == Budget(
        level=budgets.level(before, 20.0), at=20.0, starts=before.starts
    )
    assert budgets.refunded(Budget(), 20.0) == Budget()


def test_unwritable_means_one_login_in_two_minutes() -> None:
    """A budget that cannot be kept over a restart is not spent freely."""
    budget = unwritable(emptied(1))
    assert budgets.next_login(budget, NOW.boot + 1, asked=False) == NOW.boot + 120
    assert budgets.next_login(unwritable(Budget()), 5.0, asked=False) == 5.0


def test_it_survives_a_restart() -> None:
    """Level, logins of the last hour and backoff come back as they were, less the time between."""
    saved = budgets.saved(emptied(25), NOW, 4, NOW.boot + 100)
    later = Stamp(NOW.boot + 40, NOW.wall + 40, "b")
    assert budgets.left(budgets.restored(saved, later), later.boot) == 5
    assert budgets.in_last_hour(budgets.restored(saved, later), later.boot) == 25
    assert saved.failures == 4
    assert budgets.retry_left(saved, later) == pytest.approx(60, abs=0.01)


@pytest.mark.parametrize("step", [-10 * YEAR, -3600.0, 3600.0, 10 * YEAR])
def test_a_stepped_clock_refills_nothing(step: float) -> None:
    """Within one boot the boot clock says how long ago the snapshot was made."""
    saved = budgets.saved(emptied(30), NOW, 1, NOW.boot + 100)
    later = Stamp(NOW.boot + 40, NOW.wall + 40 + step, "b")
    assert budgets.left(budgets.restored(saved, later), later.boot) == 0
    assert budgets.retry_left(saved, later) == pytest.approx(60, abs=0.01)


def test_a_snapshot_from_the_future_counts_as_now() -> None:
    """After a reboot into the past neither level nor backoff is older than nothing."""
    saved = budgets.saved(emptied(28), NOW, 1, NOW.boot + 100)
    earlier = Stamp(5.0, NOW.wall - YEAR, "c")
    assert budgets.left(budgets.restored(saved, earlier), earlier.boot) == 2
    assert budgets.retry_left(saved, earlier) == pytest.approx(100, abs=0.01)
    assert budgets.in_last_hour(budgets.restored(saved, earlier), earlier.boot) == 28


def test_after_a_reboot_the_wall_clock_tells_the_time_between() -> None:
    """An hour in which the machine was off refills the bucket like any other."""
    saved = budgets.saved(emptied(30), NOW, 1, None)
    later = Stamp(5.0, NOW.wall + 600, "c")
    assert budgets.left(budgets.restored(saved, later), later.boot) == 5


def test_a_restart_refills_at_the_configured_rate() -> None:
    """With five logins an hour, ten minutes are not five logins."""
    saved = Snapshot(level=0.0, wall=NOW.wall - 600)
    assert budgets.left(budgets.restored(saved, NOW, per_hour=5), NOW.boot) == 0


def test_the_newest_snapshot_counts() -> None:
    """By the boot clock; one of this boot before any of another; of two from the future the emptier one."""
    old, young = (Snapshot(level, NOW.wall, boot=boot, boot_id="b") for level, boot in ((1.0, 100.0), (9.0, 200.0)))
    foreign = Snapshot(5.0, NOW.wall + YEAR, boot=9e9, boot_id="a")
    assert budgets.newest([old, foreign, young], NOW) == young
    later = Stamp(50.0, NOW.wall, "c")
    assert budgets.newest([old, replace(young, wall=NOW.wall - 60)], later) == old
    assert budgets.newest([foreign, replace(foreign, level=4.0)], later) == replace(foreign, level=4.0)
    assert budgets.newest([], NOW) is None


def test_what_a_snapshot_says_is_past_after_two_hours() -> None:
    """An hour fills any bucket, another ends any backoff; what D7 refused stays refused."""
    snapshot = budgets.saved(emptied(30), NOW, 9, NOW.boot + HOUR)
    later = replace(NOW, boot=NOW.boot + budgets.PAST + 1)
    assert not budgets.is_past(snapshot, replace(NOW, boot=NOW.boot + budgets.PAST - 1))
    assert budgets.is_past(snapshot, later)
    assert budgets.left(budgets.restored(snapshot, later), later.boot) == 30
    assert budgets.retry_left(snapshot, later) == 0
    assert not budgets.is_past(replace(snapshot, refused="f" * 64), later)


@pytest.mark.parametrize("level", [-1e9, 1e9])
def test_absurd_levels_are_cut_to_the_bucket(level: float) -> None:
    """A state file edited by hand neither blocks the profile for ever nor opens it."""
    assert 0 <= budgets.left(budgets.restored(Snapshot(level, NOW.wall), NOW), NOW.boot) <= 30


@given(st.lists(st.tuples(st.floats(0, 4000), st.booleans()), max_size=200))
def test_no_window_holds_more_than_the_bucket(wishes: list[tuple[float, bool]]) -> None:
    """However logins are wished for, those let through fit bucket maths done from scratch."""
    budget, now, made = Budget(), 0.0, []
    for pause, asked in wishes:
        now += pause / 20
        if budgets.next_login(budget, now, asked=asked) <= now:
            budget = budgets.spent(budget, now)
            made.append(now)
    assert within_budget(made)


def test_the_judge_of_budgets_can_say_no() -> None:
    """The independent maths finds one login too many."""
    assert within_budget([0.0] * 30 + [120.0])
    assert not within_budget([0.0] * 31)
    assert not within_budget([0.0] * 30 + [110.0])
