import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from d7agent.cli.doctor import sockets
from d7agent.cli.doctor.command import examine
from d7agent.sandbox import Sandbox, Settings
from tests.support import cli
from tests.support.doctor import bad, config, d7agent, folder, look, nearby, only
from tests.support.fakeagent import FakeAgent
from tests.support.live import COMMAND, Live
from tests.support.terminal import Terminal

__all__ = ["config", "d7agent", "folder", "nearby"]  # fixtures


@pytest.mark.system
def test_a_healthy_agent_leaves_nothing_to_mend(tmp_path: Path) -> None:
    """All findings are ok but for the agents that other tests run; D7 saw one call without a token; no file changed."""
    credential = tmp_path / "credential"
    credential.mkdir(mode=0o700)
    with Sandbox(Settings()) as box, Live() as live:
        live.start()
        live.login(box.url, "--store", f"directory:{credential}")
        before, files = box.stats, snapshot(live.home, credential)
        done = live.run("doctor", "--json")
        document = json.loads(done.stdout)
        assert (done.stderr, document["version"]) == ("", 1)
        ids = {one["id"] for one in document["findings"]}
        assert {"runtime-folder", "socket", "agent", "version", "lock", "units", "config", "file-mode"} < ids
        assert {"profile", "network", "clock"} < ids
        sick = [one for one in document["findings"] if one["level"] != "ok"]
        assert [one for one in sick if one["id"] != "other-agents"] == []
        assert (document["ok"], done.returncode) == (not sick, int(bool(sick)))
        assert snapshot(live.home, credential) == files
        assert (box.stats.logins, box.stats.balances) == (before.logins, before.balances + 1)
        assert live.run("token", check=True).stdout.strip() not in done.stdout


def snapshot(*folders: Path) -> dict[str, tuple[int, int]]:
    every = [path for folder in folders for path in [folder, *folder.rglob("*")]]
    return {str(path): (path.lstat().st_mode, path.lstat().st_mtime_ns) for path in every}


@pytest.mark.usefixtures("nearby")
def test_nothing_is_started_or_made(folder: Path, d7agent: cli.Inside) -> None:
    """With no agent there is still none afterwards; the answer says what to start, status 1, two kinds of lines."""
    before = snapshot(folder)
    found = d7agent("doctor")
    assert (found.status, snapshot(folder)) == (1, before)
    assert f"ERROR    agent: no agent answers at {cli.own_socket(folder)}" in found.out
    assert "-> " in found.out


@pytest.mark.usefixtures("nearby")
def test_a_terminal_gets_a_table(folder: Path) -> None:
    """On a terminal there is a table, its remedies below each finding."""
    env = cli.environment(folder)
    with Terminal([COMMAND, "doctor"], env, columns=120) as terminal:
        assert terminal.wait() == 1
    assert "What was found" in terminal.shown
    assert "→ d7agent start" in terminal.shown


@pytest.mark.parametrize("arguments", [["--scan"], ["/tmp"], ["--nonsense"]])
def test_bad_usage(d7agent: cli.Inside, arguments: list[str]) -> None:
    """--scan and PATH belong together."""
    found = d7agent("doctor", *arguments)
    assert (found.status, found.out, cli.is_two_lines(found.err)) == (2, "", True)


@pytest.mark.usefixtures("nearby")
def test_one_check_that_breaks_leaves_the_others() -> None:
    """An unforeseen reply (a list in place of the agent's status) costs the checks that trip over it, and no other."""
    broken: Any = {"agent": [1], "profiles": 7}
    found = examine(replace(look(), status=broken, failure=None, used="/x"))
    assert {one.id for one in found} >= {"doctor", "units"}
    assert all("unexpected" not in one.text for one in found)


def test_no_agent_names_what_to_start(folder: Path, d7agent: cli.Inside) -> None:
    """The remedy fits the machine: the runtime folder is live, so that a command or `d7agent start` may start one."""
    found = only(sockets.check, look())
    assert (found.id, found.level) == ("agent", "error")
    assert "d7agent start" in found.remedy


def test_who_listens_is_told(folder: Path, d7agent: cli.Inside) -> None:
    """Path, pid and uid of the server, owner and mode of the file."""
    with FakeAgent(cli.own_socket(folder)):
        os.chmod(cli.own_socket(folder), 0o600)
        found = {one.id: one for one in sockets.check(look())}
    assert f"pid {os.getpid()}, uid {os.geteuid()} listens (in use)" in found["socket"].text
    assert {one.level for one in found.values()} == {"ok"}


def test_a_socket_that_an_agent_left(folder: Path, d7agent: cli.Inside) -> None:
    """A file nobody listens at is told apart from no file."""
    cli.own_socket(folder).parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(cli.own_socket(folder)))
    found = {one.id: one for one in bad(sockets.check, look())}
    assert "nobody listens" in found["socket"].text


def test_a_file_in_the_sockets_place(folder: Path, d7agent: cli.Inside) -> None:
    """What is no socket is said to be none."""
    cli.own_socket(folder).parent.mkdir(mode=0o700)
    cli.own_socket(folder).write_text("")
    assert "is no socket" in bad(sockets.check, look())[0].text


@pytest.mark.parametrize(("path", "check"), [("/nowhere/x.sock", "socket"), ("/tmp/" + "x" * 120, "socket-length")])
def test_a_variable_that_leads_nowhere(
    d7agent: cli.Inside, monkeypatch: pytest.MonkeyPatch, path: str, check: str
) -> None:
    """D7AGENT_SOCK that names nothing, or more than a socket can be called."""
    monkeypatch.setenv("D7AGENT_SOCK", path)
    assert check in [one.id for one in bad(sockets.check, look())]


def test_open_modes(folder: Path, d7agent: cli.Inside) -> None:
    """A socket or a folder that others may use or change."""
    with FakeAgent(cli.own_socket(folder)):
        os.chmod(cli.own_socket(folder), 0o666)
        assert only(sockets.check, look()).id == "socket-mode"
        os.chmod(cli.own_socket(folder).parent, 0o777)
        assert (only(sockets.check, look()).level, only(sockets.check, look()).id) == ("error", "socket-mode")


def test_a_second_agent_behind_the_first(folder: Path, d7agent: cli.Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both listen, one is used: somebody should know which."""
    other = folder / "other" / "agent.sock"
    monkeypatch.setenv("D7AGENT_SOCK", str(other))
    with FakeAgent(cli.own_socket(folder)), FakeAgent(other):
        os.chmod(cli.own_socket(folder), 0o600)
        os.chmod(other, 0o600)
        found = only(sockets.check, look())
    assert str(cli.own_socket(folder)) in found.text
    assert "not in use" in found.text


def test_the_runtime_folder_of_another(folder: Path, d7agent: cli.Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `su` leaves in the environment: a folder that is not the user's, not there, or open to all."""
    cases = {"/": "runtime-folder", "/nowhere": "runtime-folder"}
    for value, check in cases.items():
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        assert check in [one.id for one in bad(sockets.check, replace(look(), uid=12345))], value
    (folder / "run").chmod(0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder / "run"))
    assert "chmod 700" in bad(sockets.check, look())[0].remedy
