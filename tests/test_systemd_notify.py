"""What the agent tells a service manager, and what it takes from one: sd_notify(3) and sd_listen_fds(3) by hand."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from d7agent.agent.systemd import Notifier, passed_sockets
from d7agent.client.blocking import Agent
from d7agent.core.clock import monotonic_usec
from d7agent.sandbox import Sandbox, Settings
from tests.support.live import COMMAND, Live, notify_socket


class Watched:
    """An agent in a throw-away home whose every word to the manager is heard."""

    def __init__(self, live: Live, listening: socket.socket) -> None:
        self.live = live
        self._listening = listening
        listening.settimeout(15)

    def next(self) -> dict[str, str]:
        """The next message."""
        lines = self._listening.recv(4096).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def until(self, name: str) -> dict[str, str]:
        """The next message that has this."""
        while name not in (message := self.next()):
            pass
        return message

    def signal(self, number: signal.Signals) -> None:
        """Send the agent a signal."""
        os.kill(self.live.pid, number)


@pytest.fixture
def watched() -> Iterator[Watched]:
    with ExitStack() as stack:
        live = stack.enter_context(Live())
        path, listening = stack.enter_context(notify_socket(live.root / "watched"))
        (live.root / "cred").mkdir(mode=0o700)
        (live.config / "profiles").mkdir(parents=True)
        (live.config / "profiles" / "default.toml").write_text(f'store = "directory:{live.root}/cred"\n')
        live.start(ready=False, NOTIFY_SOCKET=path, WATCHDOG_USEC="1500000")
        yield Watched(live, listening)


def test_ready_means_that_the_socket_answers(watched: Watched) -> None:
    """READY=1 comes with the profiles' state, and by then a call is answered; STOPPING=1 comes at SIGTERM."""
    ready = watched.next()
    assert ready["READY"] == "1"
    assert ready["STATUS"].startswith("default: ")
    with Agent(str(watched.live.socket), timeout=5) as agent:
        agent.status()
    watched.signal(signal.SIGTERM)
    assert watched.until("STOPPING")["STATUS"] == "ending"


def test_a_reload_is_told_from_begin_to_end(watched: Watched) -> None:
    """SIGHUP, and a call of Reload: RELOADING=1 with the instant it began, then READY=1, good configuration or bad."""
    watched.until("READY")
    before = monotonic_usec()
    watched.signal(signal.SIGHUP)
    begun = watched.until("RELOADING")
    assert before <= int(begun["MONOTONIC_USEC"]) <= monotonic_usec()
    assert watched.until("READY")
    (watched.live.config / "config.toml").write_text("wrong = 1\n")
    assert watched.live.run("reload").returncode == 1
    watched.until("RELOADING")
    assert "wrong" in watched.until("READY")["STATUS"]


def test_the_status_line_follows_the_profile(watched: Watched) -> None:
    """A login changes the line: the profile is fresh, and the next refresh has a date."""
    watched.until("READY")
    with Sandbox(Settings(lifetime=600)) as box:
        watched.live.login(box.url)
        while not (line := watched.until("STATUS")["STATUS"]).startswith("default: fresh"):
            pass
    assert "next refresh 2" in line


def test_the_watchdog_is_fed_by_the_refresh_loop(watched: Watched) -> None:
    """WATCHDOG=1 comes at least three times within the manager's limit, here 1.5 s."""
    watched.until("READY")
    watched.until("WATCHDOG")
    began = monotonic_usec()
    for _ in range(3):
        watched.until("WATCHDOG")
    assert monotonic_usec() - began < 3_000_000


def test_who_was_accepted_is_answered_at_the_end(watched: Watched) -> None:
    """A client that had connected and asks only after STOPPING=1 gets its answer, not a closed connection."""
    watched.until("READY")
    with Agent(str(watched.live.socket), timeout=5) as early, Agent(str(watched.live.socket), timeout=5) as late:
        late.connect()
        while early.status()["agent"]["connections"] < 2:
            pass
        watched.signal(signal.SIGTERM)
        watched.until("STOPPING")
        assert late.status()["agent"]["pid"] == watched.live.pid


def test_who_waits_for_a_login_is_answered_at_the_end(watched: Watched) -> None:
    """GetToken waiting for D7 when the end comes still gets the token, if D7 answers soon."""
    watched.until("READY")
    slow = Settings(lifetime=600, faults=("slow:delay=0.5",))
    with Sandbox(slow) as box, ThreadPoolExecutor() as pool, Agent(str(watched.live.socket), timeout=10) as agent:
        agent.connect()
        watched.live.login(box.url, "--no-verify")
        asking = pool.submit(agent.token)
        box.wait_for(lambda stats: stats.logins >= 1)
        watched.signal(signal.SIGTERM)
        assert asking.result()


def test_without_a_manager_nothing_is_said() -> None:
    """No NOTIFY_SOCKET: not active; a watchdog meant for another process is none."""
    assert not Notifier({}).active
    environment = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid() + 1)}
    notifier = Notifier(environment)
    assert (notifier.active, notifier.watchdog, environment) == (True, None, {})


def adopted(folder: Path, *, names: str, pid: str = "$$") -> str:
    """What a process makes of a socket passed to it as descriptor 3 under this name."""
    program = (
        "import os; from d7agent.agent.systemd import passed_sockets as p; s = p(os.environ); "
        "print([x.getsockname() for x in s], [n for n in os.environ if n.startswith('LISTEN_')])"
    )
    script = f'LISTEN_PID={pid} LISTEN_FDS=1 LISTEN_FDNAMES={names} exec "$0" -P -c "$1" 3<&0'
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(folder / "s"))
        sock.listen()
        done = subprocess.run(
            ["sh", "-c", script, sys.executable, program],
            stdin=sock.fileno(), capture_output=True, text=True, check=True, timeout=20,
        )  # fmt: skip
    (folder / "s").unlink()
    return done.stdout.strip()


def test_passed_sockets_are_adopted_by_name_and_pid(tmp_path: Path) -> None:
    """A socket called `agent` and passed to this pid is taken, any other is not; the variables go in any case."""
    taken = f"[{str(tmp_path / 's')!r}] []"
    assert adopted(tmp_path, names="agent") == taken
    assert adopted(tmp_path, names="d7agent.socket") == taken
    assert adopted(tmp_path, names="varlink") == "[] []"
    assert adopted(tmp_path, names="agent", pid="1") == "[] []"


def test_rubbish_in_the_variables_is_no_socket() -> None:
    """A count that is no number, and descriptors that are not there, give nothing and raise nothing."""
    assert passed_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "three"}) == []
    assert passed_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": ""}) == []


def test_an_inherited_socket_is_never_removed(tmp_path: Path) -> None:
    """Started by a passed socket the agent serves there, binds nothing of its own, and leaves the file at its end."""
    path = tmp_path / "passed.sock"
    script = 'LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=agent exec "$0" run 3<&0'
    with Live() as live, socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        with subprocess.Popen(["sh", "-c", script, COMMAND], stdin=sock.fileno(), env=live.environment) as process:
            with Agent(str(path), timeout=20) as agent:
                agent.call("Shutdown")
            assert process.wait(20) == 0
        assert path.exists()
        assert not live.socket.exists()
