"""A day of ten-minute tokens, and a week of every kind of token with faults at seeded random times."""

import random

import pytest

from tests.support.machine import Rig, within_budget
from tests.support.week import DAY, Week


def test_a_day_of_ten_minute_tokens() -> None:
    """24 h: between 70 and 80 % of each life one login, 180 to 206 in all; asked every minute, always a good token."""
    rig = Rig()
    rig.d7.lifetime = 600
    chance = random.Random(24)
    rig.settle()
    waited = 0
    while rig.clock.true < DAY:
        rig.draw = chance.random()
        caller = rig.ask()  # the rig holds that what is handed out is good by D7's own clock
        waited += caller.found is None
        rig.settle()
        assert rig.d7.good(caller.token)
        rig.run(60 - rig.latency if waited else 60)
    assert DAY / 480 <= rig.logins <= DAY / 420 + 1
    assert rig.state.serial == rig.logins
    assert waited == 0
    assert within_budget(rig.d7.logins)


@pytest.mark.parametrize("seed", range(10))
def test_a_week_of_trouble(seed: int) -> None:
    """Never a dead token, never more logins than the budget, and when the trouble ends a token comes by itself."""
    week = Week(seed)
    week.run(7 * DAY)
    week.end()
    assert week.rig.logins > 100
    assert week.rig.events > week.rig.logins
