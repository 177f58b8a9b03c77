"""The table of faults: what may be in the socket's way when an agent starts."""

import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from d7agent.client.blocking import Agent
from d7agent.sandbox import Sandbox, Settings
from tests.support.agents import is_root
from tests.support.live import START_LIMIT, Live
from tests.support.scene import Scene
from tests.support.system_agent import SystemAgent

NOBODY = 65534


@pytest.fixture
def live() -> Iterator[Live]:
    with Live() as home:
        yield home


def bound(path: Path) -> None:
    """A socket at the path that nobody listens on, as a killed agent leaves it."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def given_away(path: Path) -> None:
    bound(path)
    os.chown(path, NOBODY, NOBODY)


class Row(NamedTuple):
    """What is done to the socket's folder or path before the start, and words of the refusal."""

    name: str
    fault: Callable[[Path], object]
    words: tuple[str, ...]
    as_root: bool = False


ROWS = (
    Row("a folder", Path.mkdir, ("is a folder", "--socket")),
    Row("a file", Path.touch, ("is not a socket", "--socket")),
    Row("a link to a file", lambda path: path.symlink_to("/etc/passwd"), ("is not a socket",)),
    Row("a pipe", os.mkfifo, ("is not a socket",)),
    Row("someone else's socket", given_away, ("belongs to uid 65534", "remove it"), True),
    Row("a folder that others write", lambda path: path.parent.chmod(0o777), ("others can write it", "chmod go-w")),
    Row("a folder the group writes", lambda path: path.parent.chmod(0o770), ("others can write it", "chmod go-w")),
    Row("someone else's folder", lambda path: os.chown(path.parent, NOBODY, NOBODY), ("belongs to uid 65534",), True),
    Row("a lock file that is a link", lambda path: path.with_suffix(".lock").symlink_to("/etc/x"), ("symbolic link",)),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name.replace(" ", "-"))
def test_socket_in_the_way(live: Live, row: Row) -> None:
    """The agent refuses to start (exit 1), names the path and what to do, and removes nothing; then it starts."""
    if row.as_root and not is_root():
        pytest.skip("NOT TESTED: other users' files; run the tests as root")
    live.socket.parent.mkdir(mode=0o700)
    row.fault(live.socket)
    before = {path: path.lstat() for path in live.socket.parent.iterdir() if path.suffix == ".sock"}
    live.start(ready=False)
    assert live.process is not None
    assert live.process.wait(START_LIMIT) == 1
    said = live.journal()
    assert [words for words in (*row.words, str(live.socket.parent)) if words not in said] == [], said
    assert "Traceback" not in said
    for path, found in before.items():
        assert (path.lstat().st_ino, path.lstat().st_mode) == (found.st_ino, found.st_mode)
    os.rename(live.socket.parent, live.root / "aside")
    live.start()
    assert live.run("status").returncode == 0


def test_path_too_long(live: Live) -> None:
    """A path that no socket can have is told with its length (exit 1)."""
    path = live.root / ("x" * 120) / "agent.sock"
    live.start("--socket", str(path), ready=False)
    assert live.process is not None
    assert live.process.wait(START_LIMIT) == 1
    assert "too long for a socket" in live.journal()
    assert not path.parent.exists()


def test_live_agent_there(live: Live) -> None:
    """A second agent on the same path refuses to start (exit 1), and the first serves on."""
    live.start()
    first = live.process
    live.start(ready=False)
    assert live.process is not None
    assert live.process.wait(START_LIMIT) == 1
    assert "already runs" in live.journal()
    live.process = first
    with Agent(str(live.socket)) as agent:
        assert agent.status()["agent"]["pid"] == live.pid


def test_stopped_agent_there(live: Live) -> None:
    """An agent that is stopped (SIGSTOP) is not taken for dead: the second one refuses to start."""
    live.start()
    first = live.process
    assert first is not None
    first.send_signal(signal.SIGSTOP)
    live.start(ready=False)
    assert live.process is not None
    assert live.process.wait(START_LIMIT) == 1
    live.process = first
    first.send_signal(signal.SIGCONT)
    assert live.run("status").returncode == 0


def test_dead_agents_leftover(live: Live) -> None:
    """The socket of an agent that was killed is replaced without a word from anyone."""
    live.start()
    live.kill()
    assert live.socket.exists()
    live.start()
    assert live.run("status").returncode == 0


SINK = '[[sinks]]\npath = "%t/made/for/default.env"\nformat = "env"\n'


@pytest.mark.parametrize("mask", [0o000, 0o777, 0o027])
def test_umask_changes_nothing(live: Live, mask: int) -> None:
    """Whatever the umask, folders are 0700; socket, lock, state, profile, credential, token and sink are 0600."""
    before = os.umask(mask)
    try:
        live.start()
    finally:
        os.umask(before)
    store = live.root / "made-by-us" / "cred"
    with Sandbox(Settings(lifetime=600)) as box:
        live.login(box.url, "--store", f"directory:{store}")
        (profile,) = live.config.rglob("*.toml")
        assert stat.S_IMODE(profile.stat().st_mode) == 0o600
        profile.write_text(f"{profile.read_text()}{SINK}")
        live.run("reload", check=True)
        Scene(live).wait("default", lambda found: found["remembered"] and found["sinks"] and found["sinks"][0]["ok"])
    sink = live.runtime / "made" / "for" / "default.env"
    made = [live.socket, live.socket.with_suffix(".lock"), *live.state.rglob("*"), *store.rglob("*")]
    made += [*live.config.rglob("*"), live.config, live.socket.parent, sink, *list(sink.parents)[:2]]
    made += [live.state, store, store.parent]
    names = {path.name for path in made}
    wanted = {"agent.sock", "agent.lock", "default.state", "default.toml", "client_secret", ".default.token"}
    assert wanted <= names, names
    for path in made:
        closed = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.lstat().st_mode) == closed, path


@pytest.fixture
def host() -> Iterator[SystemAgent]:
    with SystemAgent() as system:
        yield system


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("chown 65534 /run/d7agent", "belongs to uid 65534"),
        ("chmod 777 /run/d7agent", "others can write it: chmod go-w /run/d7agent"),
        ("chmod 775 /run/d7agent", "others can write it: chmod go-w /run/d7agent"),
        ("chmod 1777 /run/d7agent", "others can write it: chmod go-w /run/d7agent"),
        ("mkdir /run/d7agent/agent.sock", "is a folder"),
    ],
)
def test_the_hosts_folder_in_the_way(host: SystemAgent, fault: str, words: str) -> None:
    """The host's agent refuses a folder that others own or write, like a user's (exit 1), and says what to do."""
    assert host.run("sh", "-c", fault).returncode == 0
    done = host.d7agent("run", "--system")
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert host.run("sh", "-c", "rm -rf /run/d7agent").returncode == 0
    host.start()
    assert host.d7agent("status").returncode == 0


@pytest.mark.parametrize("mask", [0o000, 0o777])
def test_umask_changes_nothing_for_the_host(host: SystemAgent, mask: int) -> None:
    """Its socket is 0666 in a folder of 0755, on purpose; all else is closed to others."""
    assert host.run("sh", "-c", "rm -rf /run/d7agent").returncode == 0
    before = os.umask(mask)
    try:
        host.start()
    finally:
        os.umask(before)
    with Sandbox(Settings(lifetime=600)) as box:
        login = ("login", "--stdin", "--base-url", box.url, "--store", "directory:/var/lib/d7agent/made/credential")
        assert host.d7agent(*login, text="sandbox-id\nsandbox-secret\n").returncode == 0
    done = host.run("find", "/run/d7agent", "/var/lib/d7agent", "-printf", "%m %y %p\n")
    found = {path: (mode, kind) for mode, kind, path in (line.split(" ", 2) for line in done.stdout.splitlines())}
    assert found.pop("/run/d7agent") == ("755", "d")
    assert found.pop("/run/d7agent/agent.sock") == ("666", "s")
    assert {os.path.basename(path) for path in found} >= {
        *("agent.lock", "default.toml", "default.state", "client_id", "client_secret", "default.token")
    }
    assert [path for path, what in found.items() if what not in (("700", "d"), ("600", "f"))] == []
