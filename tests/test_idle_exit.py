"""An agent that was started for a command leaves when nobody has used it for a while; whoever is connected uses it."""

import select
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from d7agent.sandbox import Sandbox, Settings
from tests.support.live import COMMAND, START_LIMIT, Live, notify_socket, wait_ready

IDLE = 0.4  # seconds after which the agent leaves
TURN = 0.08  # seconds between two looks of the agent; each is told by a WATCHDOG=1
WATCHDOG = str(int(3 * TURN * 1e6))


class Watched:
    """A running agent and what it tells its service manager."""

    def __init__(self, process: "subprocess.Popen[bytes]", listening: socket.socket) -> None:
        self.process = process
        self._listening = listening
        listening.settimeout(START_LIMIT)

    def turns(self) -> int:
        """How often it looked before it said that it ends."""
        count = 0
        while b"STOPPING=1" not in (told := self._listening.recv(4096)):
            count += told == b"WATCHDOG=1"
        assert self.process.wait(START_LIMIT) == 0
        return count

    def stays(self, seconds: float) -> None:
        """Fails unless it goes on looking for so long."""
        for _ in range(int(seconds / TURN)):
            assert b"STOPPING=1" not in self._listening.recv(4096)

    def catch_up(self) -> None:
        """Leave what was told so far behind."""
        while select.select([self._listening], [], [], 0)[0]:
            self._listening.recv(4096)


@pytest.fixture
def live() -> Iterator[Live]:
    """A home whose one profile has no credential, so that no keyring is looked for."""
    with Live() as home:
        (home.config / "profiles").mkdir(parents=True)
        (home.config / "profiles" / "default.toml").write_text('store = "directory:%h/credential"\n')
        yield home


@contextmanager
def agent(live: Live) -> Iterator[Watched]:
    """An agent that leaves after IDLE."""
    with notify_socket(live.root / "notify") as (path, listening), live.log.open("ab") as log:
        env = {**live.environment, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": WATCHDOG}
        argv = [COMMAND, "run", "--idle-exit", str(IDLE)]
        live.process = subprocess.Popen(argv, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_ready(listening, live.process, live.log)
        yield Watched(live.process, listening)


def test_an_unused_agent_leaves(live: Live) -> None:
    """After the idle time it ends by itself, in good order: status 0, a line in the log, no socket left."""
    with agent(live) as watched:
        assert watched.turns() >= IDLE / TURN / 2
    assert not live.socket.exists()
    assert "nobody has asked" in live.journal()


def test_a_subscriber_keeps_the_agent(live: Live) -> None:
    """An open stream is a use, however long it says nothing; the idle time begins when it ends."""
    with Sandbox(Settings(lifetime=600)) as box, agent(live) as watched, socket.socket(socket.AF_UNIX) as meanwhile:
        meanwhile.connect(str(live.socket))
        live.login(box.url, "--store", f"directory:{live.root}/cred")
        argv = [COMMAND, "watch"]
        with subprocess.Popen(argv, env=live.environment, stdout=subprocess.PIPE) as subscriber:
            assert subscriber.stdout is not None
            assert b"access_token" in subscriber.stdout.readline()
            meanwhile.close()
            watched.catch_up()
            watched.stays(2 * IDLE)
            subscriber.terminate()
        watched.catch_up()
        assert watched.turns() >= IDLE / TURN / 2


def test_a_connection_that_says_nothing_keeps_the_agent(live: Live) -> None:
    """A program that holds its connection means to ask again."""
    with agent(live) as watched, socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(live.socket))
        watched.stays(2 * IDLE)
        silent.close()
        watched.catch_up()
        assert watched.turns() >= IDLE / TURN / 2
