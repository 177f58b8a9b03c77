"""The table of faults: tokens of every form D7 may issue, redirects that lead elsewhere, answers without an end."""

import itertools
from collections.abc import Iterator

import pytest

from d7agent.sandbox import Sandbox, Settings
from tests.support import d7client
from tests.support.live import Live
from tests.support.scene import Scene, failed_once, is_fresh

MIB = 1 << 20
TAKEN = 16 * MIB  # bytes at most: the helper stops after one MiB, what the kernel's buffers hold comes on top
names = (f"p{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """One agent for all rows."""
    with Live() as live:
        live.start()
        yield Scene(live)


def works(box: Sandbox, scene: Scene, name: str) -> bool:
    """Whether the agent's token is one that D7 accepts."""
    with scene.agent() as agent:
        return d7client.balance(box, agent.token(name)).status == 200


FORMS: dict[str, dict[str, object]] = {
    "no exp": {"no_exp": True},
    "no exp and no iat": {"no_exp": True, "no_iat": True},
    "two parts": {"token_form": "two-part"},
    "no JWT": {"token_form": "opaque"},
    "the same bytes every time": {"same_token": True},
    "the same bytes every time, no exp": {"same_token": True, "no_exp": True},
}


@pytest.mark.parametrize("form", FORMS)
def test_tokens_of_every_form(scene: Scene, form: str) -> None:
    """A token of any form is served after one login, and a second login that `renew` asks for is no fault either."""
    name = next(names)
    with Sandbox(Settings(lifetime=600, **FORMS[form])) as box:  # type: ignore[arg-type]
        scene.add(name, box.url)
        scene.wait(name, is_fresh)
        assert works(box, scene, name)
        assert box.stats.logins == 1
        assert scene.status(name)["failures"] == 0
        with scene.agent() as agent:
            agent.call("RenewToken", {"profile": name})
        assert works(box, scene, name)
    scene.nothing_lost()


def test_redirect_to_another_host(scene: Scene) -> None:
    """A redirect that keeps method and body, to a D7 elsewhere: that one is not asked for anything."""
    name = next(names)
    with Sandbox(Settings(lifetime=600)) as box, Sandbox(Settings(host="127.0.0.2")) as other:
        box.faults.add("redirect", to=f"{other.url}/auth/v1/login/application", status=307, times=1)
        scene.add(name, box.url)
        assert "not followed" in scene.wait(name, failed_once)["last_error"]["message"]
        scene.wait(name, is_fresh)
        assert works(box, scene, name)
        assert (box.stats.logins, other.stats.connections) == (2, 0)
    scene.nothing_lost()


@pytest.mark.parametrize("fault", ["too-large", "too-large:announce=yes"])
def test_a_gibibyte_is_not_taken(scene: Scene, fault: str) -> None:
    """Of an answer of 1 GiB the helper takes little more than the megabyte it can use, and leaves."""
    name = next(names)
    with Sandbox(Settings(lifetime=600)) as box:
        box.faults.add(fault, times=1)
        scene.add(name, box.url)
        scene.wait(name, failed_once)
        sent = box.wait_for(lambda stats: stats.bytes_sent > 0).bytes_sent
        assert MIB < sent < TAKEN
        scene.wait(name, is_fresh)
    scene.nothing_lost()
