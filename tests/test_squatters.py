"""Somebody else sits on the path of the socket: no client tells him anything, and nothing of his is believed."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from d7agent.client import blocking
from d7agent.client.aio import Agent as AioAgent
from d7agent.client.blocking import Agent
from tests.support import cli
from tests.support.fakeagent import ACCESS_TOKEN, SECOND_TOKEN, FakeAgent
from tests.support.loops import FACTORIES, runner
from tests.support.stranger import UID, strangers_agent

NOBODY = 65534
SECRETS = ("the-id", "the-secret", "phrase", "refused-token")
COMMANDS = {  # each with what is typed into it
    "token": "",
    "token -p work": "",
    "token --min-validity 60": "",
    "header": "",
    "header --format curl": "",
    "env": "",
    "exec -- true": "",
    "watch": "",
    "login --stdin": "the-id\nthe-secret\n",
    "login --token --stdin": "refused-token\n",
    "logout --yes": "",
    "lock --stdin": "phrase\n",
    "unlock --stdin": "phrase\n",
    "reject": "refused-token\n",
    "renew": "",
    "status": "",
    "status --json": "",
    "reload": "",
    "stop": "",
    "start": "",
}
FEW = ("token", "login --stdin", "lock --stdin", "unlock --stdin", "reject")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A user's home."""
    with cli.short_folder() as path:
        yield path


def is_refused(run: cli.Run) -> bool:
    """Status 8, two lines, nothing printed, no secret and no token in any of it."""
    said = run.out + run.err
    assert not [secret for secret in (*SECRETS, ACCESS_TOKEN, SECOND_TOKEN) if secret in said], said
    return (run.status, run.out) == (8, "") and cli.is_two_lines(run.err) and f"runs as uid {UID}" in run.err


def test_no_command_tells_a_squatter_anything(folder: Path) -> None:
    """Every command that talks to an agent, with $D7AGENT_SOCK: refused before a byte is sent."""
    path = folder / "squatted.sock"
    with strangers_agent(path) as record:
        env = cli.environment(folder, D7AGENT_SOCK=str(path))
        answers = {line: is_refused(cli.run(line.split(), env, typed)) for line, typed in COMMANDS.items()}
    assert answers == dict.fromkeys(COMMANDS, True)
    assert record.read_bytes() == b""


def own(folder: Path) -> tuple[Path, list[str], Path]:
    """The user's own place."""
    return cli.own_socket(folder), [], cli.own_socket(folder)


def named(folder: Path) -> tuple[Path, list[str], Path]:
    """A place named by --socket."""
    return folder / "a.sock", ["--socket", str(folder / "a.sock")], folder / "a.sock"


def linked(folder: Path) -> tuple[Path, list[str], Path]:
    """A link of the user's to it."""
    link = folder / "link.sock"
    link.symlink_to(folder / "a.sock")
    return folder / "a.sock", ["--socket", str(link)], link


@pytest.mark.parametrize("way", [own, named, linked], ids=lambda way: str(way.__name__))
def test_nor_by_another_way(folder: Path, way: Callable[[Path], tuple[Path, list[str], Path]]) -> None:
    """The user's own path, --socket and a link to the squatter's are as $D7AGENT_SOCK: the path does not count."""
    path, options, told = way(folder)
    env = cli.environment(folder)
    with strangers_agent(path) as record:
        for line in FEW:
            run = cli.run([*line.split(), *options], env, COMMANDS[line])
            assert is_refused(run), (line, run)
            assert str(told) in run.err
        check = cli.run(["check", *options], env)
        assert (check.status, f"runs as uid {UID}" in check.out) == (2, True), check
    assert record.read_bytes() == b""


def test_the_libraries_tell_him_nothing(folder: Path) -> None:
    """Each call of the blocking and the asyncio client, on both loops, streams included."""
    path = folder / "a.sock"
    calls: list[Callable[[Agent], object]] = [
        lambda agent: agent.token(),
        lambda agent: agent.reject("refused-token"),
        lambda agent: agent.status(),
        lambda agent: next(agent.stream()),
        lambda agent: agent.call("Unlock", {"passphrase": "phrase"}),
    ]

    async def asynchronous() -> None:
        async with AioAgent(socket=str(path)) as agent:
            for attempt in (agent.token(), agent.reject("refused-token"), anext(agent.subscribe())):
                with pytest.raises(blocking.PermissionDenied, match=f"uid {UID}"):
                    await attempt

    with strangers_agent(path) as record:
        for call in calls:
            with Agent(str(path)) as agent, pytest.raises(blocking.PermissionDenied, match=f"uid {UID}"):
                call(agent)
        for kind in FACTORIES:
            runner(kind)(asynchronous())
    assert record.read_bytes() == b""


AS_NOBODY = """if True:
    import os, pwd, sys
    from d7agent import __main__ as door
    from d7agent.client import blocking
    os.setresuid(65534, 65534, 65534)
    try:
        blocking.token(socket=sys.argv[1])
    except blocking.PermissionDenied as error:
        print(error.exit_code, "may be anybody" in error.message, door._trusted(65534))
"""


def test_nobody_trusts_nobody(folder: Path) -> None:
    """To a client with the overflow uid a server of the same uid may be anybody: it is not taken for its own."""
    folder.chmod(0o755)
    with strangers_agent(folder / "a.sock", NOBODY) as record:
        argv = ["-c", AS_NOBODY, str(folder / "a.sock")]
        assert cli.run(argv, cli.environment(folder), command=[sys.executable]) == (0, "8 True False\n", "")
    assert record.read_bytes() == b""


DIES = """if True:
    import os, socket, sys
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    os.chmod(sys.argv[1], 0o777)
    uid = int(sys.argv[2])
    os.setresuid(uid, uid, uid)
    listener.listen()
    print("ready", flush=True)
    connection = listener.accept()
    print("accepted", flush=True)
"""


@pytest.mark.parametrize("uid", [UID, None], ids=["a-stranger", "our-own"])
def test_a_server_that_died_after_accepting(folder: Path, uid: int | None) -> None:
    """A stranger is one though his process is gone; our own agent that died is no agent, and the call is not hung."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: only root can run a server as another user, so run the tests as root")
    path = folder / "a.sock"
    argv = [sys.executable, "-I", "-c", DIES, str(path), str(os.geteuid() if uid is None else uid)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server, socket.socket(socket.AF_UNIX) as sock:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        sock.connect(str(path))
        assert server.stdout.readline() == "accepted\n"
        assert server.wait(10) == 0
        if uid is None:
            blocking.check_peer(sock, str(path))
        else:
            with pytest.raises(blocking.PermissionDenied, match=f"uid {UID}"):
                blocking.check_peer(sock, str(path))
    env = cli.environment(folder, D7AGENT_SOCK=str(path))
    for line in ("token --no-start", "unlock --stdin"):
        run = cli.run(line.split(), env, "phrase\n")
        assert (run.status, run.out) == (3, "")
        assert cli.is_two_lines(run.err)


def test_an_agent_that_dies_between_check_and_answer(folder: Path) -> None:
    """A server of ours that hangs up on every call: `unlock` and `token` end with status 3, without an answer."""
    with FakeAgent(cli.own_socket(folder), GetToken=b"", Unlock=b"") as agent:
        for line in ("token --no-start", "unlock --stdin"):
            run = cli.run(line.split(), cli.environment(folder), "phrase\n")
            assert (run.status, run.out) == (3, ""), line
            assert cli.is_two_lines(run.err)
    assert agent.connections >= 2
