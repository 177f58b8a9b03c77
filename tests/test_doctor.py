import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from d7agent.cli.doctor import agents, configuration, profiles, reports, sockets, units
from d7agent.cli.doctor.command import examine
from d7agent.cli.doctor.finding import Finding
from d7agent.cli.doctor.scene import Scene, gather
from d7agent.core.jobs import Failed, Look, Reach, Reached, Seen
from d7agent.core.paths import system_paths
from d7agent.sandbox import Sandbox, Settings
from tests.support import cli, fakeagent
from tests.support.fakeagent import FakeAgent, profile, status
from tests.support.helper import run_job
from tests.support.keyring_session import KeyringSession
from tests.support.live import COMMAND, Live
from tests.support.terminal import Terminal

SECRET_SERVICE = "keyring.backends.SecretService.Keyring"
VERSION = fakeagent.about()["version"]
Check = Callable[[Scene], Iterator[Finding]]


@pytest.fixture
def folder() -> Iterator[Path]:
    with cli.short_folder() as path:
        yield path


@pytest.fixture
def d7agent(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> cli.Inside:
    """The command line, and the environment of a user who lives in the folder."""
    return cli.inside(folder, capfd, monkeypatch)


@pytest.fixture
def config(folder: Path, d7agent: cli.Inside) -> Path:
    path = folder / ".config" / "d7agent"
    path.mkdir(parents=True, mode=0o700)
    return path


@pytest.fixture
def nearby(config: Path) -> None:
    """A profile whose D7 is a closed port of this machine, so that no check leaves it."""
    (config / "profiles").mkdir(mode=0o700)
    (config / "profiles" / "default.toml").write_text('base_url = "http://127.0.0.1:9"\n')


def look(named: str | None = None) -> Scene:
    return gather(os.environ, os.geteuid(), named)


def bad(check: Check, scene: Scene) -> list[Finding]:
    """What the check complains of; each complaint has a remedy, and nothing that is well has one."""
    found = list(check(scene))
    assert all(bool(one.remedy) == (one.level != "ok") for one in found)
    return [one for one in found if one.level != "ok"]


def only(check: Check, scene: Scene) -> Finding:
    (found,) = bad(check, scene)
    return found


# --- the whole


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


# --- sockets


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


# --- agents


def told(folder: Path, **more: Any) -> Scene:
    """The scene with a fake agent that tells this of itself."""
    with FakeAgent(cli.own_socket(folder), GetStatus=status(profile(), **more)):
        return replace(look(), proc=str(folder / "proc"))


@pytest.fixture
def proc(folder: Path) -> Path:
    """A /proc without processes."""
    path = folder / "proc"
    (path / "net").mkdir(parents=True)
    (path / "net" / "unix").write_text("Num       RefCount Protocol Flags    Type St Inode Path\n")
    return path


def test_an_older_agent_than_the_client(folder: Path, d7agent: cli.Inside, proc: Path) -> None:
    """After an upgrade the old agent still runs; another protocol is worse."""
    assert bad(agents.check, told(folder, version=VERSION)) == []
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


def test_two_agents_at_one_path(folder: Path, d7agent: cli.Inside, proc: Path) -> None:
    """The kernel's table shows both, though the file leads to one."""
    row = f"0000000000000000: 00000002 00000000 00010000 0001 01 {{}} {cli.own_socket(folder)}\n"
    with (proc / "net" / "unix").open("a") as table:
        table.write(row.format(1) + row.format(2))
    assert only(agents.check, told(folder)).id == "same-path"


# --- units

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


def test_a_machine_without_systemd_is_well(d7agent: cli.Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers have none."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert bad(units.check, look()) == []


# --- configuration


def test_each_fault_of_the_configuration(config: Path) -> None:
    """File, line and key, as the agent would tell; what the agent still complains of is told, too."""
    (config / "config.toml").write_text("defualt_profile = 'x'\n")
    (config / "profiles").mkdir()
    (config / "profiles" / "a.toml").write_text('store = "cupboard"\n')
    texts = [one.text for one in bad(configuration.check, look())]
    assert ["config.toml:1" in texts[0], "a.toml:1" in texts[1]] == [True, True]
    scene = replace(look(), status={"agent": {"config_problems": ["old.toml: bad"]}}, problems=())
    assert "older configuration" in bad(configuration.check, scene)[0].text


def test_files_that_others_can_change(config: Path) -> None:
    """Whoever can write a profile can have the secret sent to himself."""
    (config / "config.toml").write_text("")
    assert bad(configuration.check, look()) == []
    (config / "config.toml").chmod(0o666)
    found = only(configuration.check, look())
    assert (found.id, found.level, f"chmod go-w {config}/config.toml" in found.remedy) == ("file-mode", "error", True)


def test_state_that_others_can_read(folder: Path, config: Path) -> None:
    """Remembered tokens are for the agent alone."""
    state = folder / ".local" / "state" / "d7agent"
    state.mkdir(parents=True, mode=0o700)
    (state / ".default.token").write_text("")
    (state / ".default.token").chmod(0o644)
    assert only(configuration.check, look()).id == "file-mode"


def test_access_on_a_users_own_agent(config: Path) -> None:
    """It has no effect there, and says so; on the host's agent its names are looked up."""
    (config / "config.toml").write_text('[access]\nusers = ["root", "no-such-user"]\nunits = ["x.service"]\n')
    scene = look()
    assert "no effect" in only(configuration.check, scene).text
    host = replace(scene, system=True, paths=system_paths({}))
    assert "no-such-user" in next(one.text for one in bad(configuration.check, host) if one.id == "access")


def test_credentials_that_others_can_read(folder: Path, config: Path) -> None:
    """The agent refuses such files, and an empty folder is no credential."""
    credential = folder / "credential"
    credential.mkdir(mode=0o700)
    (config / "profiles").mkdir()
    (config / "profiles" / "a.toml").write_text(f'store = "directory:{credential}"\n')
    assert "holds no credential" in only(configuration.check, look()).text
    (credential / "access_token").write_text("very-secret-token")
    (credential / "access_token").chmod(0o644)
    found = only(configuration.check, look())
    assert (found.remedy, "very-secret" in str(found)) == (f"chmod 600 {credential}/access_token", False)


# --- profiles


def test_a_profile_in_trouble_has_its_next_step(folder: Path, d7agent: cli.Inside) -> None:
    """The judgement of `check` with the remedy of `status`."""
    sick = [profile(profile="work", state="no_credential"), profile(profile="b", sinks=[{"path": "/x", "ok": False}])]
    scene = replace(look(), status={"profiles": [profile(), *sick]})
    found = bad(profiles.check, scene)
    assert [one.level for one in found] == ["error", "warn"]
    assert "d7agent login work" in found[0].remedy


# --- what the helper finds out


def test_the_keyring_is_looked_at_and_not_read() -> None:
    """Working, locked, and without its daemon: each is told apart, without a prompt."""
    with KeyringSession() as session:
        assert run_job(Look(), env=session.env) == Seen(SECRET_SERVICE, locked=False)
        session.lock()
        assert run_job(Look(SECRET_SERVICE), env=session.env) == Seen(SECRET_SERVICE, locked=True)
    reply = run_job(Look())
    assert isinstance(reply, Failed)
    assert reply.reason == "store_unreachable"


def test_a_backend_that_is_not_installed() -> None:
    """A class that a profile names and nobody has."""
    reply = run_job(Look("no.such.Backend"))
    assert isinstance(reply, Failed)
    assert "no.such.Backend" in reply.message


def test_keyrings_alt_is_seen(tmp_path: Path) -> None:
    """It is told of where it is installed, and not heeded even where keyring itself would choose it."""
    (tmp_path / "keyrings" / "alt").mkdir(parents=True)
    (tmp_path / "keyrings" / "alt" / "__init__.py").write_text("")
    with KeyringSession() as session:
        reply = run_job(Look(), env=session.env | {"PYTHONPATH": str(tmp_path)})
    assert reply == Seen(SECRET_SERVICE, locked=False, plain_files=True)
    assert [one.level for one in reports.keyring(Look(), reply)] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("reply", "level"),
    [
        (Seen(SECRET_SERVICE, locked=False), "ok"),
        (Seen(SECRET_SERVICE, locked=True), "error"),
        (Seen("keyrings.alt.file.PlaintextKeyring", locked=False), "warn"),
        (Seen("keyring.backends.null.Keyring", locked=False), "warn"),
        (Failed("store_unreachable", "no bus", "start one"), "error"),
    ],
)
def test_what_a_look_at_the_keyring_means(reply: Seen | Failed, level: str) -> None:
    """A backend that keeps plain files, or nothing, is used where it was named, and warned of."""
    assert [one.level for one in reports.keyring(Look(), reply)] == [level]


@pytest.mark.usefixtures("nearby")
def test_choices_that_are_not_heeded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PYTHON_KEYRING_BACKEND and keyringrc.cfg have no say here; whoever set them is told."""
    (folder / ".config" / "python_keyring").mkdir()
    (folder / ".config" / "python_keyring" / "keyringrc.cfg").write_text("")
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyrings.alt.file.PlaintextKeyring")
    found = [one.text for one in reports.check(look()) if one.id == "keyring-choice"]
    assert ["PYTHON_KEYRING_BACKEND" in found[0], "keyringrc.cfg" in found[1], len(found)] == [True, True, 2]


def test_the_way_to_d7_without_a_token() -> None:
    """D7's 401 proves name, route, TLS and proxy; no login is made."""
    with Sandbox(Settings()) as box:
        reply = run_job(Reach(box.url))
        assert isinstance(reply, Reached)
        assert (reply.status, reply.d7, reply.proxy) == (401, True, None)
        assert abs(reply.skew or 99) < 5
        assert (box.stats.logins, box.stats.balances) == (0, 1)
        assert [one.level for one in reports.way(Reach(box.url), reply)] == ["ok", "ok"]


def test_a_certificate_that_nobody_trusts() -> None:
    """The sandbox's own CA is not the system's; with SSL_CERT_FILE it is."""
    with Sandbox(Settings(tls=True)) as box:
        reply = run_job(Reach(box.url))
        assert isinstance(reply, Failed)
        assert reply.reason == "tls"
        trusted = run_job(Reach(box.url), env={"SSL_CERT_FILE": str(box.ca_file)})
        assert isinstance(trusted, Reached)
        assert trusted.d7


@pytest.mark.parametrize(
    ("reply", "levels"),
    [
        (Failed("dns", "no such name", "check it"), ["error"]),
        (Reached(200, d7=False), ["warn"]),
        (Reached(401, d7=True, skew=-3600.0), ["ok", "warn"]),
        (Reached(401, d7=True, skew=59.0, proxy="proxy:3128"), ["ok", "ok"]),
    ],
)
def test_what_the_answer_means(reply: Reached | Failed, levels: list[str]) -> None:
    """A page of a proxy is not D7; a clock that is a minute off is worth a word."""
    assert [one.level for one in reports.way(Reach("https://x"), reply)] == levels
