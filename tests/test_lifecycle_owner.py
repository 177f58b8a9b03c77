"""What the owner does: renew and restart; and the budget that outlives it all."""

import pytest
from msgspec.structs import replace

from d7agent.core import budget as budgets
from d7agent.core import lifecycle
from d7agent.core.errors import BudgetSpent, CredentialRejected, StoreUnavailable, TokenUnavailable
from d7agent.core.model import Stamp
from d7agent.core.states import (
    Charged,
    Forgotten,
    Gone,
    LockedUp,
    Login,
    Policy,
    Refused,
    Renewed,
    Save,
    Started,
    State,
    StateSaved,
    Ticked,
    Uncharged,
    Unlocked,
    Wanted,
)
from tests.support.fakes import DOWN, HTML_403, STORE_AWAY, WRONG_SECRET
from tests.support.machine import Rig, within_budget

HOUR = 3600.0


def aged(seconds: float = 600.0) -> Rig:
    """A rig whose token is this old."""
    rig = Rig()
    rig.settle()
    rig.run(seconds)
    return rig


def test_renew_makes_a_login_and_may_prompt() -> None:
    """The owner gets a new token; the store may ask the person who is there."""
    rig = aged()
    old = rig.got()
    caller = rig.renew()
    rig.settle()
    assert caller.token != old
    assert [login.prompt for login in rig.all(Login)] == [False, True]


def test_renew_within_ten_seconds_of_a_login_answers_with_its_token() -> None:
    """A looping script gets the same token again."""
    rig = aged(9)
    assert rig.renew().token == rig.got()
    assert rig.logins == 1
    rig.run(2)
    assert rig.renew().found is None
    rig.settle()
    assert rig.logins == 2


def test_renew_joins_a_login_under_way() -> None:
    """Single flight holds for the owner too."""
    rig = Rig()
    rig.finish()
    caller = rig.renew()
    rig.settle()
    assert caller.token
    assert rig.logins == 1


def test_renew_ends_a_rejection() -> None:
    """Someone looked at the control panel: D7 is asked again."""
    rig = Rig()
    rig.d7.fault = WRONG_SECRET
    rig.settle()
    assert rig.label == "rejected"
    caller = rig.renew()
    rig.settle()
    assert isinstance(caller.error, CredentialRejected)
    rig.d7.fault = None
    caller = rig.renew()
    rig.settle()
    assert caller.token
    assert rig.label == "fresh"


def test_renew_out_of_rejected_into_an_outage_is_tried_on() -> None:
    """The refusal is lifted: what fails for now is tried again by itself."""
    rig = aged()
    rig.d7.fault = WRONG_SECRET
    rig.run(HOUR)
    assert rig.label == "rejected"
    rig.d7.fault = DOWN
    caller = rig.renew()
    rig.settle()
    assert isinstance(caller.error, TokenUnavailable)
    rig.d7.fault = None
    rig.run(3)
    assert rig.label == "fresh"


def test_renew_does_not_wait_for_the_backoff() -> None:
    """A person at the terminal may try now."""
    rig = Rig()
    rig.d7.fault = DOWN
    rig.run(HOUR)
    rig.d7.fault = None
    caller = rig.renew()
    rig.settle()
    assert caller.token


def test_renew_leaves_the_reserve() -> None:
    """A third is for the agent: then BudgetSpent, with the time to wait."""
    rig = Rig()
    rig.settle()
    error = None
    for _ in range(40):
        rig.run(11)
        caller = rig.renew()
        rig.settle()
        error = caller.found if isinstance(caller.found, BudgetSpent) else error
    assert isinstance(error, BudgetSpent)
    assert isinstance(error.fields["retry_after"], int)
    assert 0 < error.fields["retry_after"] <= 120
    assert rig.state.budget.level >= 9
    assert within_budget(rig.d7.logins)


def test_renew_opens_a_locked_store() -> None:
    """The prompt is answered: the token comes, though the background probes found it locked."""
    rig = Rig(start=False)
    rig.store.locked = True
    rig.restart()
    rig.settle()
    caller = rig.renew()
    rig.settle()
    assert isinstance(caller.error, StoreUnavailable)
    rig.store.person = True
    caller = rig.renew()
    rig.settle()
    assert caller.token


def test_renew_ends_a_recall() -> None:
    """It does not wait for a store that is asked for something else."""
    rig = Rig()
    caller = rig.renew()
    rig.settle()
    assert caller.token
    rig.finish_late()
    assert rig.logins == 1


def test_a_stored_credential_without_a_first_look() -> None:
    """A profile made by `login`: the budget of the state file counts, nothing is recalled before it is stored."""
    rig = Rig()
    for _ in range(15):
        rig.renew()
        rig.run(11)
    saved = rig.saved
    assert saved is not None
    other = Rig(start=False)
    other.clock = other.d7.clock = rig.clock
    other.feed(Started(saved, recall=False))
    assert (other.job, other.effects, other.label) == (None, [], "empty")
    assert other.state.budget.level == pytest.approx(rig.state.budget.level, abs=1)
    other.begin_store()
    other.settle()
    assert other.label == "fresh"


@pytest.mark.parametrize("reboot", [False, True])
def test_restarts_cannot_storm_d7(reboot: bool) -> None:
    """`Restart=always` with a D7 that is down: backoff and budget count on over two hundred restarts."""
    rig = Rig()
    rig.d7.fault = HTML_403
    for _ in range(200):
        rig.settle()
        rig.restart(off=1.0, reboot=reboot)
    assert rig.logins <= 10
    assert within_budget(rig.d7.logins)


def test_restarts_with_successes_stay_within_the_budget() -> None:
    """A store that remembers nothing: every start is a login, until the budget says no."""
    rig = Rig()
    rig.store.keeps = False
    for _ in range(200):
        rig.settle()
        rig.restart(off=1.0)
    assert within_budget(rig.d7.logins)
    assert rig.logins >= 30


def test_a_spent_budget_is_told_with_the_time_to_wait() -> None:
    """BudgetSpent at once where the next login lies beyond max_wait; a patient caller gets the token."""
    rig = Rig()
    rig.store.keeps = False
    while rig.state.budget.level >= 1:
        rig.settle()
        rig.restart(off=0.1)
    rig.settle()
    error = rig.ask(wait=5).error
    assert isinstance(error, BudgetSpent)
    assert isinstance(error.fields["retry_after"], int)
    assert 100 < error.fields["retry_after"] <= 120
    patient = rig.ask(wait=130)
    rig.run(125)
    assert patient.token


def test_stamps_from_the_future_count_as_now() -> None:
    """The wall clock went back ten years over a reboot: neither blocked for ten years nor refilled."""
    rig = Rig()
    rig.d7.fault = DOWN
    rig.run(HOUR)
    level = rig.state.budget.level
    rig.clock.step(-10 * 365 * 86400.0)
    rig.restart(reboot=True)
    assert rig.state.budget.level == pytest.approx(level, abs=1)
    rig.d7.fault = None
    rig.run(301)
    assert rig.label == "fresh"


def test_an_unwritable_state_means_one_login_in_two_minutes() -> None:
    """What cannot be remembered over a restart is spent slowly."""
    rig = Rig()
    rig.writable = False
    rig.d7.lifetime = 60
    rig.run(HOUR)
    gaps = [b - a for a, b in zip(rig.d7.logins, rig.d7.logins[1:], strict=False)]
    assert min(gaps) >= 119.9
    rig.writable = True
    rig.run(HOUR)
    assert rig.state.budget.writable
    assert rig.label == "fresh"


def test_the_configured_budget_holds() -> None:
    """`logins_per_hour = 5`: five at once, five an hour, whatever callers want."""
    rig = Rig(Policy(logins_per_hour=5))
    rig.d7.lifetime = 60
    rig.run(10 * HOUR)
    assert within_budget(rig.d7.logins, capacity=5, per_hour=5)
    assert rig.logins >= 50


def test_short_tokens_get_the_budget_they_need() -> None:
    """Tokens of 20 s need 360 logins an hour: every one is made, and no caller ever sees an expired one."""
    rig = Rig()
    rig.d7.lifetime = 20
    rig.settle()
    for _ in range(360):
        rig.run(10)
        assert rig.got()
    assert rig.label in ("fresh", "stale")


def test_state_saved_twice_changes_nothing() -> None:
    """Only the change of writability is a change."""
    state = State(profile="x")
    now = Stamp(1.0, 1.0)
    assert lifecycle.step(state, StateSaved(True), now).state is state
    unwritable = lifecycle.step(state, StateSaved(False), now).state
    assert unwritable is not state
    assert lifecycle.step(unwritable, StateSaved(False), now).state is unwritable


def test_a_login_of_a_new_name_is_paid_for_in_advance() -> None:
    """And given back only where it never reached D7; nothing else changes, whatever the phase."""
    now = Stamp(1000.0, 1.79e9, "b")
    bare = State(profile="_new")
    charged = lifecycle.step(bare, Charged(), now)
    assert charged.effects == (Save(),)
    assert replace(charged.state, budget=bare.budget) == bare
    assert budgets.left(charged.state.budget, now.boot) == 29
    assert lifecycle.step(charged.state, Uncharged(WRONG_SECRET), now).state is charged.state
    back = lifecycle.step(charged.state, Uncharged(STORE_AWAY), now)
    assert (back.effects, budgets.left(back.state.budget, now.boot)) == ((Save(),), 30)
    assert lifecycle.step(back.state, Uncharged(STORE_AWAY), now).state is back.state


def test_every_event_is_heard_somewhere_and_none_breaks_a_bare_state() -> None:
    """The table knows every event; in a state without anything each of them is survived."""
    from typing import get_args

    from d7agent.core.lifecycle import table
    from d7agent.core.states import Event

    assert set(get_args(Event)) == set(table._TABLE)
    now = Stamp(1000.0, 1.79e9, "b")
    for event in (Started(), Ticked(), Wanted(), Refused("x"), Renewed(), LockedUp(), Unlocked(), Forgotten()):
        step = lifecycle.step(State(profile="x"), event, now)
        assert step.state.grant is None
    assert Gone() in lifecycle.step(State(profile="x"), LockedUp(), now).effects
