"""The main job, end to end: a credential goes in, a process gets a valid token out."""

from collections.abc import Iterator

import pytest

from d7agent.sandbox import Sandbox, Settings
from tests.support import d7client
from tests.support.live import Live


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(Settings(lifetime=600)) as sandbox:
        yield sandbox


@pytest.fixture
def live() -> Iterator[Live]:
    with Live() as home:
        (home.root / "cred").mkdir(mode=0o700)
        yield home


def store(live: Live) -> tuple[str, str]:
    return "--store", f"directory:{live.root}/cred"


def test_login_then_token(live: Live, box: Sandbox) -> None:
    """After one login every process gets the same valid token, and D7 was asked once."""
    live.start()
    live.login(box.url, *store(live))
    tokens = {live.run("token", check=True).stdout for _ in range(3)}
    assert len(tokens) == 1
    assert d7client.balance(box, tokens.pop().strip()).status == 200
    assert box.stats.logins == 1
