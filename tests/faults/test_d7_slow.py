"""The table of faults: what takes its time. All rows of a test wait at once, in one agent, each at a D7 of its own."""

import contextlib
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from d7agent.core.clock import boot_time
from d7agent.sandbox import Sandbox, Settings
from tests.support import d7client
from tests.support.live import Live
from tests.support.scene import Profile, Scene, failed_once, is_fresh

FAST = 1.0  # seconds within which an untroubled profile is answered, on a machine at work


class Row(NamedTuple):
    """A fault without an end, words of what the caller reads, and the seconds after which the agent gives up."""

    fault: str
    words: str
    least: float
    most: float


LATE = "did not (answer in time|finish its answer within 15 s)"
ROWS = (
    Row("hang:where=before", LATE, 14, 25),
    Row("hang:where=headers", LATE, 14, 25),
    Row("hang:where=body", LATE, 14, 25),
    Row("drip:rate=1", LATE, 14, 25),
)


@pytest.fixture
def scene() -> Iterator[Scene]:
    with Live() as live:
        live.start()
        yield Scene(live)


@contextlib.contextmanager
def deaf_port() -> Iterator[int]:
    """A loopback port whose backlog is full: the kernel drops who connects, as a firewall does."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_servers_that_hang(scene: Scene, subtests: pytest.Subtests) -> None:
    """A D7 that hangs at any point, or drips, is given up after 15 s (connect: 5 s); others are served meanwhile.

    With the fault gone each profile gets its token by itself, with one more login.
    """
    with contextlib.ExitStack() as stack:
        healthy = stack.enter_context(Sandbox())
        scene.add("healthy", healthy.url)
        scene.wait("healthy", is_fresh)
        pool = stack.enter_context(ThreadPoolExecutor())
        boxes = {}
        for number, row in enumerate(ROWS):
            box = stack.enter_context(Sandbox(Settings(lifetime=600)))
            box.faults.add(row.fault, times=1)
            scene.add(f"slow{number}", box.url)
            boxes[row] = box, f"slow{number}", pool.submit(first_failure, scene, f"slow{number}")
        scene.add("deaf", f"http://127.0.0.1:{stack.enter_context(deaf_port())}")
        deaf = pool.submit(first_failure, scene, "deaf")
        nobody_waits(scene)
        with subtests.test(fault="connect is never answered"):
            check(Row("", "no connection to 127.0.0.1 within 5 s", 5, 12), deaf.result())
        for row, (_, _, failure) in boxes.items():
            with subtests.test(fault=row.fault):
                check(row, failure.result())
        for row, (box, name, _) in boxes.items():
            with subtests.test(fault=row.fault, when="after"):
                scene.wait(name, is_fresh)
                assert box.stats.logins == 2
        nobody_waits(scene)
    scene.nothing_lost()


def nobody_waits(scene: Scene) -> None:
    """While the others hang: tokens of another profile come at once, and so does the status."""
    begun = boot_time()
    with scene.agent() as agent:
        agent.token("healthy", max_wait=0)
        agent.status()
    assert boot_time() - begun < FAST


def first_failure(scene: Scene, name: str) -> tuple[Profile, float]:
    """The status when the first attempt was over, and the seconds until then."""
    begun = boot_time()
    status = scene.wait(name, failed_once)
    return status, boot_time() - begun


def check(row: Row, found: tuple[Profile, float]) -> None:
    status, took = found
    assert re.search(row.words, status["last_error"]["message"]), status
    assert status["last_error"]["reason"] == "timeout"
    assert row.least <= took <= row.most


class InHand(NamedTuple):
    """A fault that meets a profile with a good token: what the caller gets until it ends, and after that."""

    fault: str
    meanwhile: Callable[[Profile], bool]
    after: Callable[[Profile], bool]


def serves_on(profile: Profile) -> bool:
    return bool(profile["state"] == "stale" and profile["failures"])


def rejected(profile: Profile) -> bool:
    return bool(profile["state"] == "rejected")


IN_HAND = (
    InHand("unavailable", serves_on, is_fresh),
    InHand("rate-limited:form=none", serves_on, is_fresh),
    InHand("close", serves_on, is_fresh),
    InHand("not-json", serves_on, is_fresh),
    InHand("redirect", serves_on, is_fresh),
    InHand("token-control", serves_on, is_fresh),
    InHand("forbidden", serves_on, rejected),
    InHand("not-found", rejected, rejected),
)


def test_faults_with_a_good_token_in_hand(scene: Scene, subtests: pytest.Subtests) -> None:
    """A passing fault at the refresh: the good token is served on, then replaced by itself. A refusal: see the rows."""
    with contextlib.ExitStack() as stack:
        boxes = {}
        for number, row in enumerate(IN_HAND):
            box = boxes[row] = stack.enter_context(Sandbox(Settings(lifetime=9)))
            scene.add(f"held{number}", box.url)
        for number, (row, box) in enumerate(boxes.items()):
            scene.wait(f"held{number}", is_fresh)
            box.faults.add(row.fault, **({} if row.after is rejected else {"times": 1}))
        for number, (row, box) in enumerate(boxes.items()):
            with subtests.test(fault=row.fault, when="meanwhile"):
                name = f"held{number}"
                first = scene.wait(name, row.meanwhile)["serial"]
                if row.meanwhile is serves_on:
                    with scene.agent() as agent:
                        token = agent.get(name, max_wait=0)
                    assert token["serial"] == first
                    assert d7client.balance(box, token["access_token"]).status == 200
        for number, (row, box) in enumerate(boxes.items()):
            with subtests.test(fault=row.fault, when="after"):
                name = f"held{number}"
                status = scene.wait(name, row.after)
                if row.after is rejected:
                    assert scene.ask(name, "--max-wait", "20").returncode == 5
                    assert box.stats.logins == 2
                else:
                    assert status["serial"] == 2
                    assert box.stats.logins == 3
    scene.nothing_lost()
