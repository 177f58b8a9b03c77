"""The table of faults: helpers that are killed, cannot start, run out of memory, or say what they should not."""

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from d7agent.client.blocking import TokenUnavailable
from d7agent.core.clock import boot_time
from d7agent.sandbox import DEFAULT_SECRET, Sandbox, Settings
from tests.support import d7client
from tests.support.live import Live
from tests.support.scene import Scene, failed_once, is_fresh
from tests.support.staging import OwnPython, Staged, helpers_of


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> OwnPython:
    return OwnPython(tmp_path_factory.mktemp("venv") / "double")


@pytest.fixture(scope="module")
def scene(python: OwnPython) -> Iterator[Scene]:
    """One agent for all rows, with an interpreter that its helpers can be robbed of."""
    with Staged(command=python.command) as live:
        live.start()
        yield Scene(live)


class Row(NamedTuple):
    """What stands in the helper's place, words of what the caller reads, and the logins of which nobody hears."""

    name: str
    script: str | None
    words: str
    logins: int = 0


ROWS = (
    Row("cannot-start", None, "cannot be started: No such file"),
    Row("no-memory-to-start", 'ulimit -v 12000; exec "$@"', "ended with status 1 without a proper answer|signal"),
    Row(
        "no-memory-to-work",
        'ulimit -v 30000; exec "$@"',
        "ran out of memory|the helper failed with|ended with|was ended",
    ),
    Row("prints-before-it-is-ready", 'echo hello; exec "$@"', "without a proper answer"),
    Row("prints-before-its-answer", 'echo; echo hello; exec "$@"', "without a proper answer", 1),
    Row("prints-rubbish", "head -c 300000 /dev/zero", "without a proper answer"),
    Row("prints-another-answer", """echo '{"reply":"done"}'""", "to another question"),
    Row("ends-at-once", "exit 3", "ended with status 3"),
    Row("killed-at-once", "kill -9 $$", "was ended by signal 9"),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_helper(scene: Scene, python: OwnPython, row: Row) -> None:
    """A helper that fails is told as one (exit 6), other profiles are served, and with a good one all is well again."""
    with Sandbox(Settings(lifetime=600)) as box, contextlib.ExitStack() as stack:
        stack.callback(python.restore)
        scene.add(f"other-{row.name}", box.url)
        scene.wait(f"other-{row.name}", is_fresh)
        python.wrap(row.script) if row.script else python.remove()
        scene.add(row.name, box.url)
        status = scene.wait(row.name, failed_once)
        assert status["last_error"]["reason"] == "helper_failed"
        with scene.agent() as agent:
            with pytest.raises(TokenUnavailable, match=row.words) as told:
                agent.token(row.name, max_wait=0)
            assert told.value.hint
            assert agent.token(f"other-{row.name}", max_wait=0)
        python.restore()
        scene.wait(row.name, is_fresh)
        assert box.stats.logins == 2 + row.logins
    scene.nothing_lost()


def test_helper_out_of_memory_at_any_size(scene: Scene, python: OwnPython) -> None:
    """Whatever memory a helper is given, `login` works or fails with two plain lines, and the good token stays."""
    with Sandbox(Settings(lifetime=600)) as box, contextlib.ExitStack() as stack:
        stack.callback(python.restore)
        scene.add("memory", box.url)
        scene.wait("memory", is_fresh)
        for size in (45, 70, 100):
            python.wrap(f'ulimit -v {size}000; exec "$@"')
            done = scene.live.run("login", "memory", "--stdin", text="sandbox-id\nsandbox-secret\n")
            assert done.returncode in (0, 6), done.stderr
            assert "Traceback" not in done.stderr
            assert scene.ask("memory").returncode == 0
    assert DEFAULT_SECRET not in scene.live.journal()


POINTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)


@pytest.mark.parametrize("delay", POINTS)
def test_helper_killed_at_any_point(scene: Scene, delay: float) -> None:
    """SIGKILL at some instant of a login over the socket: the caller hears so, or it came too late; nothing is lost."""
    name = f"killed{delay:g}".replace(".", "-")
    with Sandbox(Settings(lifetime=600)) as box:
        folder = scene.add(name, box.url)
        scene.wait(name, is_fresh)
        with ThreadPoolExecutor() as pool:
            typed = "sandbox-id\nsandbox-secret\n"
            running = pool.submit(scene.live.run, "login", name, "--stdin", text=typed)
            killed = kill_after(scene.live.pid, delay)
            login = running.result()
        assert login.returncode in ((0, 6) if killed else (0,)), login.stderr
        assert not (login.returncode and "helper" not in login.stderr), login.stderr
        with scene.agent() as agent:
            token = agent.token(name)
        assert d7client.balance(box, token).status == 200
        assert (folder / "client_secret").read_text().strip() == "sandbox-secret"
        assert (folder / "client_id").read_text().strip() == "sandbox-id"
        assert scene.live.run("renew", "--profile", name).returncode == 0


def kill_after(agent: int, delay: float) -> bool:
    """SIGKILL the next helper of this agent so many seconds after its start; whether it still ran."""
    end = boot_time() + 10
    while not (found := helpers_of(agent)):
        assert boot_time() < end, "no helper was started"
    pidfd = os.pidfd_open(found[0])
    try:
        if select.select([pidfd], [], [], delay)[0]:
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return True
    finally:
        os.close(pidfd)


def test_helper_killed_while_d7_hangs(tmp_path: Path) -> None:
    """SIGKILL while D7 does not answer: the caller who waits is served by the next login, without an error."""
    with Live() as live, Sandbox(Settings(lifetime=600)) as box:
        live.start()
        scene = Scene(live)
        box.faults.add("hang", times=1)
        scene.add("hung", box.url)
        box.wait_for(lambda stats: stats.open_logins == 1)
        (pid,) = helpers_of(live.pid)
        os.kill(pid, signal.SIGKILL)
        assert scene.ask("hung", "--max-wait", "20").returncode == 0
        assert box.stats.logins == 2
        assert "was ended by signal 9" in live.journal()
        scene.nothing_lost()
