"""Caps and limits: who has to make room for whom, and what a small machine allows."""

import resource
import subprocess
import sys

import pytest

from d7agent.agent.limits import SPARE_FILES, Limits, fit
from d7agent.agent.roster import MOST_UIDS, Roster, Share


class Guest:
    """A connection that remembers being evicted."""

    def __init__(self, roster: "Roster[Guest]", uid: int) -> None:
        self.roster = roster
        self.evicted = False
        self.share = roster.join(self, uid)

    def evict(self) -> None:
        self.evicted = True
        self.leave()

    def leave(self) -> None:
        assert self.share is not None
        self.roster.leave(self.share, self)

    def rest(self) -> "Guest":
        """Become idle."""
        assert self.share is not None
        self.share.idle[self] = None
        return self

    def half(self) -> "Guest":
        """Leave a request unfinished."""
        assert self.share is not None
        self.share.halves[self] = None
        return self

    def refused(self) -> "Guest":
        """Be found to be one who may not ask."""
        self.roster.judged(self, refused=True)
        return self


@pytest.fixture
def roster() -> Roster[Guest]:
    """Five places, three for a uid, two for all who may not ask."""
    return Roster(Limits(connections=5, per_uid=3, refused=2))


def test_a_uid_makes_room_itself(roster: Roster[Guest]) -> None:
    """At its own cap a uid's longest idle connection goes, and nobody else's."""
    other = Guest(roster, 2).rest()
    first, second, third = (Guest(roster, 1).rest() for _ in range(3))
    assert Guest(roster, 1).share
    assert [guest.evicted for guest in (other, first, second, third)] == [False, True, False, False]
    assert roster.count == 4


def test_a_busy_uid_gets_no_more(roster: Roster[Guest]) -> None:
    """With none of its connections idle, a uid at its cap is refused while others still get in."""
    for _ in range(3):
        Guest(roster, 1)
    assert Guest(roster, 1).share is None
    assert Guest(roster, 2).share


def test_at_the_cap_for_all_the_largest_holder_makes_room(roster: Roster[Guest]) -> None:
    """A newcomer takes the place of an idle connection of the uid that holds most."""
    few = [Guest(roster, 2).rest() for _ in range(2)]
    many = [Guest(roster, 1).rest() for _ in range(3)]
    assert Guest(roster, 3).share
    assert [guest.evicted for guest in (*few, *many)] == [False, False, True, False, False]


def test_when_the_largest_holder_is_busy_the_next_makes_room(roster: Roster[Guest]) -> None:
    """Open calls are never cut for a newcomer; with nothing but open calls it is refused."""
    idle = [Guest(roster, 2).rest() for _ in range(2)]
    busy = [Guest(roster, 1) for _ in range(3)]
    assert Guest(roster, 3).share
    assert Guest(roster, 4).share
    assert all(guest.evicted for guest in idle)
    assert Guest(roster, 5).share is None
    assert not any(guest.evicted for guest in busy)


def test_an_unfinished_request_makes_room_before_an_idle_client(roster: Roster[Guest]) -> None:
    """At a uid's cap the oldest half request goes first, so that its user's clients stay whatever one of them does."""
    idle, first, second = Guest(roster, 1).rest(), Guest(roster, 1).half(), Guest(roster, 1).half()
    Guest(roster, 1)
    Guest(roster, 1)
    assert [guest.evicted for guest in (idle, first, second)] == [False, True, True]
    assert Guest(roster, 1).share
    assert idle.evicted


def test_the_refused_have_few_places_together(roster: Roster[Guest]) -> None:
    """However many uids they have, those who may not ask hold so many places; the one that is here longest goes."""
    strangers = [Guest(roster, uid).refused() for uid in (11, 12, 13, 14)]
    assert [guest.evicted for guest in strangers] == [True, True, False, False]
    assert roster.count == 2


def test_at_the_cap_for_all_the_refused_make_room_first(roster: Roster[Guest]) -> None:
    """Whoever may ask gets the place of one who may not, even of one that keeps us busy."""
    few = [Guest(roster, 1).rest(), Guest(roster, 2).rest(), Guest(roster, 3).rest()]
    strangers = [Guest(roster, 11).refused(), Guest(roster, 12).refused()]
    assert Guest(roster, 4).share
    assert [guest.evicted for guest in (*few, *strangers)] == [False, False, False, True, False]


def test_who_is_let_in_is_a_stranger_no_more(roster: Roster[Guest]) -> None:
    """One that was refused and may ask now is not among those who go first; one that has left is forgotten."""
    let_in, gone = Guest(roster, 11).refused(), Guest(roster, 12).refused()
    roster.judged(let_in, refused=False)
    gone.leave()
    strangers = [Guest(roster, uid).refused() for uid in (13, 14, 15)]
    assert [guest.evicted for guest in (let_in, *strangers)] == [False, True, False, False]


def test_places_are_given_back(roster: Roster[Guest]) -> None:
    """When all have left, none is listed."""
    guests = [Guest(roster, uid) for uid in (1, 1, 2)]
    assert set(roster) == set(guests)
    for guest in guests:
        guest.leave()
    assert roster.count == 0
    assert list(roster) == []
    assert not any(share.idle or share.halves or share.members for share in roster._shares.values())


def test_ever_new_uids_take_no_more_room(roster: Roster[Guest]) -> None:
    """Only so many uids are remembered; one that is connected never falls out."""
    there = Guest(roster, 1)
    for uid in range(100_000, 100_000 + 3 * MOST_UIDS):
        Guest(roster, uid).leave()
    assert len(roster._shares) <= MOST_UIDS
    assert list(roster) == [there]
    there.leave()


def test_a_single_place_goes_round() -> None:
    """With one place for a uid, each newcomer takes it over from the one before."""
    roster: Roster[Guest] = Roster(Limits(per_uid=1))
    guests = [Guest(roster, 1).rest() for _ in range(3)]
    assert [guest.evicted for guest in guests] == [True, True, False]
    assert isinstance(guests[-1].share, Share)
    assert roster.count == 1


@pytest.mark.parametrize(
    ("files", "fitted"),
    [
        (1 << 20, (16_384, 8_192, 512)),
        (20_000, (16_384, 8_192, 512)),
        (1_024, (960, 480, 240)),
        (SPARE_FILES, (1, 1, 1)),
        (0, (1, 1, 1)),
    ],
)
def test_caps_fit_the_machine(files: int, fitted: tuple[int, int, int]) -> None:
    """No more connections than descriptors, 64 of which are kept for other ends; half for a uid, a quarter refused."""
    limits = fit(Limits(), files)
    assert (limits.connections, limits.per_uid, limits.refused) == fitted


def test_the_descriptor_limit_is_raised() -> None:
    """raise_nofile lifts the soft limit to the hard one and says what is in force."""
    program = (
        "import resource\n"
        "from d7agent.agent.limits import raise_nofile\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 500))\n"
        "print(raise_nofile(), *resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 500
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout
    assert output == "500 500 500\n"
