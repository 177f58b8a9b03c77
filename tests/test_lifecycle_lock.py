"""The lock: tokens wiped, nothing begun, nothing forgotten that D7 said."""

from d7agent.core import lifecycle
from d7agent.core.errors import Locked
from d7agent.core.states import (
    Forgotten,
    LockedUp,
    Pushed,
    Recall,
    Refused,
    Renewed,
    Started,
    Ticked,
    Unlocked,
    Wanted,
)
from tests.support.fakes import DOWN, WRONG_SECRET
from tests.support.machine import Rig, last_gone

HOUR = 3600.0


def aged(seconds: float = 600.0) -> Rig:
    """A rig whose token is this old."""
    rig = Rig()
    rig.settle()
    rig.run(seconds)
    return rig


def test_lock_wipes_and_silences() -> None:
    """No token, no sinks, no refresh, no answer but Locked, whatever comes."""
    rig = aged()
    waiting = rig.ask(min_validity=HOUR * 0.9)
    rig.feed(LockedUp())
    assert (rig.label, rig.state.grant, last_gone(rig), rig.state.remembered) == ("locked", None, True, False)
    assert isinstance(waiting.error, Locked)
    locked = rig.state
    logins, pushes = rig.logins, len(rig.all(Pushed))
    for event in (Wanted(), Wanted(fresh=True), Refused("x"), Renewed(), Ticked(), LockedUp()):
        rig.feed(event)
    rig.finish_late()
    rig.run(2 * 86400)
    assert rig.state is locked
    assert (rig.logins, len(rig.all(Pushed)), lifecycle.wake_at(rig.state)) == (logins, pushes, None)
    assert isinstance(rig.ask().error, Locked)
    assert isinstance(rig.reject("x").error, Locked)
    assert isinstance(rig.renew().error, Locked)


def test_unlock_begins_as_a_start_does() -> None:
    """The remembered token was deleted with the lock: a login follows at once."""
    rig = aged()
    rig.feed(LockedUp())
    rig.store.remembered = None
    before = rig.state.serial
    rig.run(100)
    rig.feed(Unlocked())
    caller = rig.ask()
    rig.settle()
    assert caller.token
    assert (rig.label, rig.state.serial) == ("fresh", before + 1)


def test_unlock_of_what_is_not_locked_changes_nothing() -> None:
    """The event is only heard in the lock."""
    rig = aged()
    before = rig.state
    rig.feed(Unlocked())
    assert rig.state is before


def test_a_rejection_outlives_the_lock() -> None:
    """No login is tried with a credential that D7 refused."""
    rig = Rig()
    rig.d7.fault = WRONG_SECRET
    rig.settle()
    rig.feed(LockedUp())
    rig.feed(Unlocked())
    rig.run(HOUR)
    assert (rig.label, rig.logins) == ("rejected", 1)


def test_the_backoff_outlives_the_lock() -> None:
    """Locking and unlocking is no way around it."""
    rig = Rig()
    rig.d7.fault = DOWN
    rig.run(HOUR)
    logins = rig.logins
    for _ in range(50):
        rig.feed(LockedUp())
        rig.feed(Unlocked())
        rig.run(1)
    assert rig.logins <= logins + 2  # one that was due, one cut short by the lock


def test_a_profile_made_while_locked_waits() -> None:
    """Started in the lock: nothing begins before Unlock."""
    rig = Rig(start=False)
    rig.feed(LockedUp())
    rig.feed(Started())
    rig.run(HOUR)
    assert (rig.label, rig.logins, rig.all(Recall)) == ("locked", 0, [])
    rig.feed(Unlocked())
    rig.settle()
    assert rig.label == "fresh"


def test_forgotten_in_the_lock_stays_locked() -> None:
    """`logout` under way when the lock came."""
    rig = aged()
    rig.begin_store(login=False)
    rig.job, rig.store.holds, rig.store.remembered = None, False, None
    rig.feed(LockedUp())
    rig.feed(Forgotten())
    assert rig.label == "locked"
    rig.feed(Unlocked())
    rig.settle()
    assert rig.label == "no_credential"


def test_a_credential_stored_when_the_lock_came_is_used_after_it() -> None:
    """The late result brings no token into the lock, but ends what was known of the former credential."""
    rig = Rig()
    rig.d7.fault = WRONG_SECRET
    rig.settle()
    rig.d7.fault = None
    rig.begin_store()
    rig.feed(LockedUp())
    rig.finish()
    assert (rig.label, rig.state.grant) == ("locked", None)
    rig.feed(Unlocked())
    rig.settle()
    assert rig.label == "fresh"
