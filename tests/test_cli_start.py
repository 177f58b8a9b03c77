import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from d7agent.cli import autostart, background
from d7agent.client.blocking import Agent, NoAgent
from tests.support import cli, fakeagent
from tests.support.fakeagent import FakeAgent

UNIT = "[Socket]\n"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A user's home whose one profile has no credential, so that no keyring is looked for. No agent survives it."""
    with cli.short_folder() as path:
        profiles = path / ".config" / "d7agent" / "profiles"
        profiles.mkdir(parents=True)
        (profiles / "default.toml").write_text('store = "directory:%h/credential"\n')
        with no_agent_left(cli.own_socket(path)):
            yield path


@contextmanager
def no_agent_left(socket: Path) -> Iterator[None]:
    """End the agent on this socket when the block ends."""
    try:
        yield
    finally:
        try:
            with Agent(str(socket), timeout=20) as agent:
                pidfd = os.pidfd_open(agent.status()["agent"]["pid"])
                agent.call("Shutdown")
        except NoAgent:
            pass
        else:
            assert select.select([pidfd], [], [], 20)[0], "the agent did not end"
            os.close(pidfd)


def pid_of(socket: Path) -> int:
    """The process that answers on this socket."""
    with Agent(str(socket), timeout=20) as agent:
        return int(agent.status()["agent"]["pid"])


def log_of(folder: Path) -> str:
    """What background agents of this user have logged."""
    return (folder / ".local/state/d7agent/agent.log").read_text()


def test_start_prints_where_it_is_and_a_second_finds_the_first(folder: Path) -> None:
    """Lines for eval in each shell's syntax; one agent, whoever asked for it, in a session of its own."""
    env, socket = cli.environment(folder), cli.own_socket(folder)
    first = cli.run(["start"], env)
    assert first == (0, f"D7AGENT_SOCK={socket}; export D7AGENT_SOCK;\n", "")
    pid = pid_of(socket)
    assert os.getsid(pid) != os.getsid(0)
    assert cli.run(["start", "--shell", "csh"], env).out == f"setenv D7AGENT_SOCK {socket};\n"
    assert cli.run(["start", "--shell", "fish"], env).out == f"set -gx D7AGENT_SOCK {socket};\n"
    assert pid_of(socket) == pid
    assert log_of(folder).count("is ready") == 1


def test_the_agent_holds_nothing_of_the_shell_that_started_it(folder: Path) -> None:
    """`eval "$(d7agent start)"` returns: no stdout, no stray descriptor, no folder, no terminal is kept."""
    reader, writer = os.pipe()
    argv = [*cli.COMMAND, "start"]
    subprocess.run(argv, env=cli.environment(folder), cwd=folder, pass_fds=[writer], check=True, timeout=30)
    os.close(writer)
    assert select.select([reader], [], [], 10)[0], "the agent holds a descriptor of its caller"
    assert os.read(reader, 1) == b""
    os.close(reader)
    pid = pid_of(cli.own_socket(folder))
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert os.readlink(f"/proc/{pid}/fd/1") == f"{folder}/.local/state/d7agent/agent.log"


def test_stop_ends_it_and_waits(folder: Path) -> None:
    """When `stop` returns the process and its socket are gone, and there is nobody left to stop."""
    env, socket = cli.environment(folder), cli.own_socket(folder)
    cli.run(["start"], env)
    pid = pid_of(socket)
    assert cli.run(["stop"], env) == (0, "The agent has ended.\n", "")
    assert not Path(f"/proc/{pid}").exists() or "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    assert not socket.exists()
    assert cli.run(["stop"], env).status == 3


def test_stop_says_that_systemd_starts_it_again(folder: Path) -> None:
    """With a socket unit the end is not the end."""
    with FakeAgent(cli.own_socket(folder), GetStatus=fakeagent.status(systemd=True)):
        run = cli.run(["stop"], cli.environment(folder))
    assert run.status == 0
    assert "systemctl --user stop d7agent.socket" in run.err


def test_an_agent_lives_as_long_as_its_command(folder: Path) -> None:
    """`start -- CMD`: the command finds the agent, its exit status is passed on, and then both are gone."""
    env, socket = cli.environment(folder), cli.own_socket(folder)
    show = '"$0" -P -m d7agent status --json >/dev/null && echo "$D7AGENT_SOCK"; exit 7'
    assert cli.run(["start", "--", "sh", "-c", show, cli.COMMAND[0]], env) == (7, f"{socket}\n", "")
    assert not socket.exists()
    assert cli.run(["start", "--", "sh", "-c", "kill -USR1 $$"], env).status == 128 + signal.SIGUSR1
    assert cli.run(["start", "--", "d7-no-such-command"], env).status == 127
    assert not socket.exists()


def test_an_agent_that_was_there_outlives_the_command(folder: Path) -> None:
    """What `start -- CMD` found it does not end."""
    env, socket = cli.environment(folder), cli.own_socket(folder)
    cli.run(["start"], env)
    pid = pid_of(socket)
    assert cli.run(["start", "--", "true"], env) == (0, "", "")
    assert pid_of(socket) == pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_agent_goes_with_the_start_that_is_killed(folder: Path, number: signal.Signals) -> None:
    """SIGTERM reaches the command first; after SIGKILL the kernel ends the agent."""
    argv = [*cli.COMMAND, "start", "--", "sh", "-c", "echo ready; exec sleep 30"]
    with subprocess.Popen(argv, env=cli.environment(folder), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        pid = pid_of(cli.own_socket(folder))
        agent = os.pidfd_open(pid)
        child = next(c for c in children(process.pid) if c != pid)
        process.send_signal(number)
        assert select.select([agent], [], [], 20)[0], "the agent is still there"
        if number == signal.SIGKILL:
            os.kill(child, signal.SIGKILL)
        assert process.wait(10) == (128 + number if number == signal.SIGTERM else -number)
    os.close(agent)


def children(pid: int) -> list[int]:
    """The process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_fifty_clients_at_once_start_one_agent(folder: Path) -> None:
    """On a machine without an agent all are answered by the same one, which leaves after an idle hour."""
    env = cli.environment(folder)
    ends = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    clients = [subprocess.Popen([*cli.COMMAND, "token"], env=env, **ends) for _ in range(50)]  # type: ignore[call-overload]
    for client in clients:
        client.communicate(timeout=50)
    assert {client.returncode for client in clients} == {4}  # no credential: the agent has looked
    assert log_of(folder).count("is ready") == 1
    argv = Path(f"/proc/{pid_of(cli.own_socket(folder))}/cmdline").read_bytes().split(b"\0")
    assert argv[-3:-1] == [b"--idle-exit", b"3600"]


@pytest.mark.parametrize(
    ("line", "starts"),
    [
        ("token", True),
        ("header", True),
        ("env", True),
        ("exec -- true", True),
        ("watch", True),
        ("login --store environment --no-verify", True),
        ("token --no-start", False),
        ("status", False),
        ("renew", False),
        ("reload", False),
        ("stop", False),
        ("lock --stdin", False),
        ("logout --yes", False),
    ],
)
def test_only_commands_that_ask_for_a_token_start_an_agent(folder: Path, line: str, starts: bool) -> None:
    """The rest says what to do: a look at the status must not change it."""
    run = cli.run(line.split(), cli.environment(folder), stdin="phrase\n")
    assert cli.own_socket(folder).exists() is starts
    if not starts:
        assert (run.status, run.out, cli.is_two_lines(run.err)) == (3, "", True)
        assert "`d7agent start`" in run.err


def test_an_agent_that_does_not_start_says_why(folder: Path) -> None:
    """The error and the hint in its log are the command's own."""
    env = cli.environment(folder)
    cli.own_socket(folder).parent.mkdir()
    cli.own_socket(folder).parent.chmod(0o777)  # anybody could put another socket there: refused
    for line in ("start", "token", "start -- true"):
        run = cli.run(line.split(), env)
        assert (run.status, run.out, cli.is_two_lines(run.err)) == (3, "", True), line
        assert f"the agent did not start: {cli.own_socket(folder).parent}: others can write it" in run.err
        assert "hint: mend it" in run.err


def test_a_socket_where_none_can_be_is_told(folder: Path) -> None:
    """The error names the place, and what to do."""
    (folder / "file").write_text("")
    for place in ("/proc/agent.sock", f"{folder}/file/agent.sock"):
        found = cli.run(["start", "--socket", place], cli.environment(folder))
        assert (found.status, found.out, cli.is_two_lines(found.err)) == (3, "", True)
        assert f"{place}: no socket can be made there" in found.err


def test_a_log_makes_room_for_itself(folder: Path) -> None:
    """A long log is put aside at the next start; it is nobody else's to read."""
    state = folder / ".local/state/d7agent"
    state.mkdir(parents=True)
    (state / "agent.log").write_bytes(b"x" * (background.MAX_LOG + 1))
    cli.run(["start"], cli.environment(folder))
    assert (state / "agent.log.old").stat().st_size == background.MAX_LOG + 1
    assert (state / "agent.log").stat().st_mode & 0o777 == 0o600


def test_where_an_agent_may_start_by_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A live runtime folder, no unit of ours, no system agent, no socket that was named: then, and only then."""
    monkeypatch.setattr(autostart, "UNIT_DIRS", (f"{folder}/etc", f"{folder}/usr"))
    monkeypatch.setattr(autostart, "SYSTEM_FOLDER", f"{folder}/run-d7agent")
    env, uid = cli.environment(folder), os.geteuid()
    assert autostart.obstacle(env, uid, None) is None
    assert "--socket /x" in (autostart.obstacle(env, uid, "/x") or "")
    assert "D7AGENT_SOCK names /x" in (autostart.obstacle({**env, "D7AGENT_SOCK": "/x"}, uid, None) or "")
    own = {**env, "D7AGENT_SOCK": str(cli.own_socket(folder))}
    assert autostart.obstacle(own, uid, None) is None
    (folder / "run-d7agent").mkdir()
    assert "system's agent" in (autostart.obstacle(env, uid, None) or "")
    (folder / "run-d7agent").rmdir()
    (folder / "run").chmod(0o750)
    assert "no runtime folder" in (autostart.obstacle(env, uid, None) or "")
    assert "no runtime folder" in (autostart.obstacle({"HOME": "/x", "XDG_RUNTIME_DIR": "/x"}, uid, None) or "")


@pytest.mark.parametrize("place", ["etc", "usr", ".config/systemd/user", ".local/share/systemd/user"])
@pytest.mark.parametrize("name", ["d7agent.socket", "d7agent.service"])
def test_where_systemd_is_in_charge_nobody_else_starts_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, place: str, name: str
) -> None:
    """A unit file of ours, wherever systemd looks, also a masked one: the hint says how to start it."""
    monkeypatch.setattr(autostart, "UNIT_DIRS", (f"{folder}/etc", f"{folder}/usr"))
    (folder / place).mkdir(parents=True)
    (folder / place / name).symlink_to("/dev/null")
    hint = autostart.obstacle(cli.environment(folder), os.geteuid(), None) or ""
    assert "systemctl --user start d7agent.socket" in hint
    assert f"{place}/{name}" in hint


def test_the_usual_unit_folders_are_looked_into() -> None:
    """Those of systemd.unit(5) in which a package or an administrator puts a user unit."""
    usual = {"/etc/systemd/user", "/usr/lib/systemd/user", "/usr/local/lib/systemd/user"}
    assert usual <= set(autostart.UNIT_DIRS)


def test_a_held_lock_is_not_waited_for_beyond_the_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts an agent and hangs does not hang all others."""
    monkeypatch.setattr(background, "START_LIMIT", 0.2)
    socket = str(cli.own_socket(folder))
    with background.lock_file(socket) as held:
        assert autostart._locked(held)
        with pytest.raises(NoAgent, match="another process is starting"):
            autostart.start_once(socket)


def test_run_passes_on_what_it_was_told(folder: Path) -> None:
    """`run` is the agent in the foreground: its own process, its own socket, verbose when asked."""
    socket = folder / "other" / "agent.sock"
    argv = [*cli.COMMAND, "run", "--socket", str(socket), "-v", "--idle-exit", "60"]
    with subprocess.Popen(argv, env=cli.environment(folder), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("is ready" in line for line in process.stderr)
        assert pid_of(socket) == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
