import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from d7agent import __version__
from d7agent.cli.doctor import agents, units
from d7agent.cli.doctor.scene import Scene
from tests.support import cli
from tests.support.doctor import bad, config, d7agent, folder, look, nearby, only
from tests.support.fakeagent import FakeAgent, profile, status

__all__ = ["config", "d7agent", "folder", "nearby"]  # fixtures


def told(folder: Path, **more: Any) -> Scene:
    """The scene with a fake agent that tells this of itself."""
    with FakeAgent(cli.own_socket(folder), GetStatus=status(profile(), **({"version": __version__} | more))):
        return replace(look(), proc=str(folder / "proc"))


@pytest.fixture
def proc(folder: Path) -> Path:
    """A /proc without processes."""
    path = folder / "proc"
    path.mkdir()
    return path


def test_an_older_agent_than_the_client(folder: Path, d7agent: cli.Inside, proc: Path) -> None:
    """After an upgrade the old agent still runs; another protocol is worse."""
    assert bad(agents.check, told(folder)) == []
    found = only(agents.check, told(folder, version="0.0.1"))
    assert (found.id, found.level, "0.0.1" in found.text) == ("version", "warn", True)
    assert only(agents.check, told(folder, protocol=2)).level == "error"


def test_a_locked_agent(folder: Path, d7agent: cli.Inside, proc: Path) -> None:
    """It hands out nothing until somebody unlocks it."""
    assert only(agents.check, told(folder, locked=True)).remedy == "d7agent unlock"


def process(proc: Path, pid: int, *words: str, uid: int | None = None) -> None:
    entry = proc / str(pid)
    entry.mkdir()
    (entry / "cmdline").write_bytes("\0".join([*words, ""]).encode())
    owner = os.geteuid() if uid is None else uid
    (entry / "status").write_text(f"Name:\tx\nUid:\t{owner}\t{owner}\t{owner}\t{owner}\n")


def test_other_agents_of_the_same_user(folder: Path, d7agent: cli.Inside, proc: Path) -> None:
    """Each way in which an agent is started is recognised; other users' and other programs are not."""
    process(proc, 11, "/usr/bin/python3", "/usr/bin/d7agent", "run")
    process(proc, 12, "/usr/bin/python3", "-P", "-m", "d7agent", "run", "--socket", "/x")
    process(proc, 13, "/usr/bin/d7agent", "run", uid=os.geteuid() + 1)
    process(proc, 14, "/usr/bin/d7agent", "watch")
    process(proc, 15, "/bin/sh", "run", "d7agent")
    found = only(agents.check, told(folder))
    assert (found.id, "pid 11, 12" in found.text) == ("other-agents", True)
    assert bad(agents.check, told(folder, pid=11))[0].text.endswith("pid 12")


def listen(path: Path) -> socket.socket:
    """A socket that listens at this path, whatever was there."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


def test_two_agents_at_one_path(folder: Path, d7agent: cli.Inside, proc: Path) -> None:
    """The kernel's table shows both, though the file leads to one."""
    scene = told(folder)
    with listen(cli.own_socket(folder)):
        assert bad(agents.check, scene) == []
        with listen(cli.own_socket(folder)):
            found = only(agents.check, scene)
    assert (found.id, found.text.startswith("2 processes listen")) == ("same-path", True)


ELSEWHERE = "import socket, sys; s = socket.socket(1); s.bind(sys.argv[1]); s.listen(); print(flush=True); input()"


def test_a_containers_agent_is_at_another_path(folder: Path, d7agent: cli.Inside, proc: Path) -> None:
    """Another mount namespace in our network namespace has its own /run: its agent at the same path is no rival."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: another mount namespace; run the tests as root")
    scene, path = told(folder), cli.own_socket(folder)
    script = 'mount -t tmpfs tmpfs "${3%/*}" && exec "$0" "$@"'
    apart = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    argv = [*apart, sys.executable, "-c", ELSEWHERE, str(path)]
    with listen(path), subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as container:
        assert container.stdout is not None
        assert container.stdout.readline() == b"\n"
        assert bad(agents.check, scene) == []
        container.communicate(b"\n")
    assert container.returncode == 0


SHOWN = """\
Id=d7agent.socket
LoadState={load}
ActiveState={socket}
UnitFileState={enabled}
FragmentPath=/etc/systemd/user/d7agent.socket
NeedDaemonReload={stale}

Id=d7agent.service
LoadState={load}
ActiveState={service}
UnitFileState=static
FragmentPath=/etc/systemd/user/d7agent.service
NeedDaemonReload=no
"""
WELL = {"load": "loaded", "socket": "active", "service": "active", "enabled": "enabled", "stale": "no"}


@pytest.mark.parametrize(
    ("changes", "level", "remedy"),
    [
        ({}, "", ""),
        ({"service": "inactive"}, "", ""),
        ({"load": "not-found"}, "", ""),
        ({"load": "masked"}, "error", "unmask"),
        ({"load": "bad-setting"}, "error", "service install"),
        ({"socket": "inactive"}, "error", "enable --now d7agent.socket"),
        ({"socket": "failed"}, "error", "journalctl --user -u d7agent.socket"),
        ({"service": "failed"}, "error", "journalctl --user -u d7agent.service"),
        ({"enabled": "disabled"}, "warn", "systemctl --user enable d7agent.socket"),
        ({"stale": "yes"}, "warn", "daemon-reload"),
    ],
)
def test_what_systemd_tells_of_the_units(changes: dict[str, str], level: str, remedy: str) -> None:
    """Each state that keeps the agent from being started has its remedy."""
    shown = units.parsed(SHOWN.format(**(WELL | changes)))
    found = [one for one in units.judged(shown, "systemctl --user", systemd=True, answers=True) if one.level != "ok"]
    assert [one.level for one in found][:1] == ([level] if level else [])
    assert not found or remedy in found[0].remedy


def test_an_agent_beside_the_units_one() -> None:
    """The socket is systemd's, and another agent answers: two agents, and an upgrade restarts the wrong one."""
    shown = units.parsed(SHOWN.format(**WELL))
    found = [one for one in units.judged(shown, "systemctl", systemd=False, answers=True) if one.level != "ok"]
    assert "not the one of systemd" in found[0].text


def test_systemctl_itself_is_asked(folder: Path, d7agent: cli.Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manager's own words are read; a proxy of this shell that it does not know is told of."""
    programs = folder / "bin"
    programs.mkdir()
    script = f"#!/bin/sh\ncase $* in *show-environment*) echo LANG=C;; *) cat <<E\n{SHOWN.format(**WELL)}E\nesac\n"
    (programs / "systemctl").write_text(script)
    (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr(units, "LINGER", str(folder))
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy:3128")
    found = {one.id: one for one in bad(units.check, look())}
    assert "HTTPS_PROXY" in found["environment"].text
    assert "secret" not in str(found)
    assert "enable-linger" in found["linger"].remedy
    (programs / "systemctl").write_text("#!/bin/sh\nexit 1\n")
    assert bad(units.check, look()) == []


def test_a_unit_that_the_manager_has_not_read(
    folder: Path, d7agent: cli.Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is there, and `systemctl` knows none: it was put there by hand, or below another HOME."""
    programs, unit = folder / "bin", folder / ".config" / "systemd" / "user" / "d7agent.socket"
    unit.parent.mkdir(parents=True)
    unit.write_text("")
    programs.mkdir()
    shown = SHOWN.format(**(WELL | {"load": "not-found"}))
    (programs / "systemctl").write_text(f"#!/bin/sh\ncat <<E\n{shown}E\n")
    (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    assert "daemon-reload" in only(units.check, look()).remedy


def test_a_machine_without_systemd_is_well(d7agent: cli.Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers have none."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert bad(units.check, look()) == []
