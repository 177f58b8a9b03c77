"""The table of faults: a wall clock that is set, and a machine that was asleep, while an agent serves.

The agent runs under a preloaded shim; D7 and the helpers have the machine's own clock.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from d7agent.client.blocking import Agent
from d7agent.sandbox import Sandbox, Settings
from tests.support import d7client
from tests.support.clockshim import Clocks, compiled
from tests.support.live import Live
from tests.support.scene import Scene, is_fresh

HOUR = 3600.0
YEAR = 365.25 * 24 * HOUR
UNAVAILABLE = 6  # exit status
LIFE = 3600  # seconds of a token
STEPS = {"+1h": HOUR, "-1h": -HOUR, "+10y": 10 * YEAR, "-10y": -10 * YEAR}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("clocks"))


@pytest.fixture
def clocks(library: Path, tmp_path: Path) -> Clocks:
    return Clocks(library, tmp_path)


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(Settings(lifetime=LIFE)) as sandbox:
        yield sandbox


@pytest.fixture
def scene(clocks: Clocks, box: Sandbox) -> Iterator[Scene]:
    """An agent with a token, whose alarm turns every second because a watchdog of 3 s wants so."""
    with Live() as live:
        start(live, clocks)
        scene = Scene(live)
        scene.add("default", box.url)
        scene.wait("default", is_fresh)
        yield scene


def start(live: Live, clocks: Clocks) -> None:
    live.environment |= {"WATCHDOG_USEC": "3000000", **clocks.environment}
    live.start()


@pytest.mark.parametrize("name", STEPS)
def test_wall_clock_set(scene: Scene, box: Sandbox, clocks: Clocks, name: str) -> None:
    """The token is served on with the same time left, without a login, also after a restart; only shown times move."""
    with Agent(str(scene.live.socket)) as agent:
        before = agent.get()
        clocks.step(STEPS[name])
        after = agent.get()
    assert after["access_token"] == before["access_token"]
    assert before["valid_for"] - 10 <= after["valid_for"] <= before["valid_for"]
    moved = scene.wait("default", lambda profile: abs(profile["expires_at"] - before["expires_at"]) > 60)
    assert abs(moved["expires_at"] - before["expires_at"] - STEPS[name]) < 10
    scene.live.kill()
    start(scene.live, clocks)
    done = scene.live.run("token", check=True)
    assert done.stdout.strip() == before["access_token"]
    assert box.stats.logins == 1
    scene.nothing_lost()


def test_login_with_the_wall_clock_off(scene: Scene, box: Sandbox, clocks: Clocks) -> None:
    """With a clock that is years off a login still gives a token with its true time left; the skew is shown."""
    clocks.step(-10 * YEAR)
    scene.add("second", box.url)
    status = scene.wait("second", is_fresh)
    assert LIFE - 30 <= status["valid_for"] <= LIFE
    assert abs(status["skew"]) > 9 * YEAR


def test_suspend_beyond_expiry(scene: Scene, box: Sandbox, clocks: Clocks) -> None:
    """After two hours of sleep the dead token is not handed out: who asks waits for the one new login."""
    with Agent(str(scene.live.socket)) as agent:
        old = agent.token()
        clocks.suspend(2 * HOUR)
        new = agent.token()
    assert new != old
    assert d7client.balance(box, new).status == 200
    assert box.stats.logins == 2
    scene.nothing_lost()


def test_suspend_is_noticed_by_itself(scene: Scene, box: Sandbox, clocks: Clocks) -> None:
    """Nobody asks: the agent finds by itself that it slept, and has a new token."""
    clocks.suspend(2 * HOUR)
    scene.wait("default", lambda profile: profile["serial"] == 2)
    assert box.stats.logins == 2


def test_suspend_without_network(scene: Scene, box: Sandbox, clocks: Clocks) -> None:
    """Awake again and D7 not reachable: an error (exit 6), never the dead token; with the network back, a token."""
    box.stop()
    clocks.suspend(2 * HOUR)
    scene.wait("default", lambda profile: bool(profile["failures"]))
    done = scene.ask("default")
    assert (done.returncode, done.stdout) == (UNAVAILABLE, "")
    assert "cannot be connected to" in done.stderr
    box.start()
    scene.wait("default", is_fresh)
    assert box.stats.logins == 2


def test_suspend_within_life(scene: Scene, box: Sandbox, clocks: Clocks) -> None:
    """A nap of half an hour: the token is served on, with that much less time left."""
    with Agent(str(scene.live.socket)) as agent:
        before = agent.get()
        clocks.suspend(HOUR / 2)
        after = agent.get()
    assert after["access_token"] == before["access_token"]
    assert 0 <= before["valid_for"] - after["valid_for"] - HOUR / 2 < 10
    assert box.stats.logins == 1


def test_suspend_while_stopped(scene: Scene, box: Sandbox, clocks: Clocks) -> None:
    """Killed before the sleep and started after it: the remembered token is known to be dead."""
    old = scene.live.run("token", check=True).stdout
    scene.live.kill()
    clocks.suspend(2 * HOUR)
    start(scene.live, clocks)
    assert scene.live.run("token", check=True).stdout != old
    assert box.stats.logins == 2
