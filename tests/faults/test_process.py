"""The table of faults: signals to the agent at bad moments, and an agent that runs out of descriptors."""

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from d7agent.client.blocking import Agent
from d7agent.core.clock import boot_time
from d7agent.sandbox import Sandbox, Settings
from tests.support import d7client
from tests.support.live import Live
from tests.support.scene import Scene, is_fresh
from tests.support.staging import Staged, helpers_of

NO_AGENT, UNAVAILABLE = 3, 6  # exit statuses


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(Settings(lifetime=600)) as sandbox:
        yield sandbox


@pytest.fixture
def scene() -> Iterator[Scene]:
    with Live() as live:
        live.start()
        yield Scene(live)


def works(scene: Scene, box: Sandbox, name: str = "default") -> bool:
    with scene.agent() as agent:
        return d7client.balance(box, agent.token(name)).status == 200


def helper_at_work(scene: Scene, box: Sandbox) -> int:
    """A pidfd of the helper of a login that D7 does not answer."""
    box.faults.add("hang", times=1)
    scene.add("default", box.url)
    box.wait_for(lambda stats: stats.open_logins == 1)
    (pid,) = helpers_of(scene.live.pid)
    return os.pidfd_open(pid)


def callers(agent: Agent) -> int:
    """Open connections besides our own."""
    return int(agent.status()["agent"]["connections"]) - 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_ended_during_a_login(scene: Scene, box: Sandbox, number: signal.Signals) -> None:
    """The helper goes with its agent; a caller is told that the agent is gone (exit 3); the next start logs in once."""
    helper = helper_at_work(scene, box)
    with ThreadPoolExecutor() as pool, Agent(str(scene.live.socket)) as agent:
        agent.status()
        waiting = pool.submit(scene.live.run, "token", "--no-start")
        while not callers(agent):
            pass
        assert scene.live.process is not None
        scene.live.process.send_signal(number)
        assert scene.live.process.wait(20) == (-number if number == signal.SIGKILL else 0)
        done = waiting.result()
    assert (done.returncode, "gone" in done.stderr) == (NO_AGENT, True), done.stderr
    assert select.select([helper], [], [], 10)[0], "the helper outlives its agent"
    os.close(helper)
    assert scene.live.socket.exists() is (number == signal.SIGKILL)
    assert scene.live.run("token", "--no-start").returncode == NO_AGENT
    spent = json.loads((scene.live.state / "default.state").read_bytes())["level"]
    assert 28.9 < spent < 29.1  # the login was written down before it was made
    scene.live.start()
    scene.wait("default", is_fresh)
    assert works(scene, box)
    assert box.stats.logins == 2
    scene.nothing_lost()


def test_killed_with_a_token(scene: Scene, box: Sandbox) -> None:
    """SIGKILL at rest: the next agent serves the same token, without a login."""
    scene.add("default", box.url)
    scene.wait("default", is_fresh)
    token = scene.live.run("token", check=True).stdout
    scene.live.kill()
    scene.live.start()
    assert scene.live.run("token", check=True).stdout == token
    assert box.stats.logins == 1
    scene.nothing_lost()


def test_stopped_and_continued(scene: Scene, box: Sandbox) -> None:
    """While it is stopped callers give up in time (exit 3) and are told so; continued, it serves at once."""
    scene.add("default", box.url)
    scene.wait("default", is_fresh)
    assert scene.live.process is not None
    scene.live.process.send_signal(signal.SIGSTOP)
    begun = boot_time()
    done = scene.ask("default")
    assert boot_time() - begun < 15
    assert (done.returncode, done.stdout) == (NO_AGENT, "")
    assert "did not answer within" in done.stderr
    scene.live.process.send_signal(signal.SIGCONT)
    assert works(scene, box)
    assert box.stats.logins == 1


def test_stopped_past_expiry() -> None:
    """Stopped until its token is dead, and continued: the first caller gets a new one, not the dead one."""
    with Live() as live, Sandbox(Settings(lifetime=3)) as box:
        live.start()
        scene = Scene(live)
        scene.add("default", box.url)
        scene.wait("default", is_fresh)
        with Agent(str(live.socket)) as agent:
            old = agent.get()
            assert live.process is not None
            live.process.send_signal(signal.SIGSTOP)
            time.sleep(old["valid_for"] + 1)  # real time: a stopped process has no clock of ours
            live.process.send_signal(signal.SIGCONT)
            new = agent.token()
        assert new != old["access_token"]
        assert d7client.balance(box, new).status == 200


FILES = 88  # descriptors: 64 are kept for the agent's own work, half of the rest is what one uid may hold


def test_out_of_descriptors(box: Sandbox) -> None:
    """With every descriptor a client may have taken, others are served by closing idle ones, and logins still work."""
    with Staged(["prlimit", f"--nofile={FILES}"]) as live, contextlib.ExitStack() as stack:
        live.start()
        scene = Scene(live)
        scene.add("default", box.url)
        scene.wait("default", is_fresh)
        for _ in range(200):
            idle = stack.enter_context(socket.socket(socket.AF_UNIX))
            idle.connect(str(live.socket))
        assert works(scene, box)
        assert len(os.listdir(f"/proc/{live.pid}/fd")) < FILES
        scene.add("second", box.url)
        scene.wait("second", is_fresh)
        assert works(scene, box, "second")
        stack.close()
        assert works(scene, box)
        assert box.stats.logins == 2
        scene.nothing_lost()


def test_not_a_descriptor_to_spare(box: Sandbox) -> None:
    """With hardly any descriptors at all the agent answers, says what it lacks, and goes on when it has them again."""
    with Staged(["prlimit", "--nofile=48"]) as live:
        live.start()
        scene = Scene(live)
        scene.add("default", box.url)
        with contextlib.ExitStack() as stack:
            for _ in range(40):
                idle = stack.enter_context(socket.socket(socket.AF_UNIX))
                idle.settimeout(1)
                idle.connect(str(live.socket))
        scene.wait("default", is_fresh)
        assert works(scene, box)
        assert "Traceback" not in live.journal()
        scene.nothing_lost()
