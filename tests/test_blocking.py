import hashlib
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import d7agent
from d7agent.client import blocking
from d7agent.client.blocking import Agent
from d7agent.core import paths
from tests.support import cli, fakeagent
from tests.support.fakeagent import ACCESS_TOKEN, SECOND_TOKEN, FakeAgent


@pytest.fixture
def folder() -> Iterator[Path]:
    """A user's home."""
    with cli.short_folder() as path:
        yield path


@pytest.fixture
def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home, and this process lives in it."""
    for name, value in cli.environment(folder).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("D7AGENT_SOCK", raising=False)
    return folder


def test_two_lines_are_enough(home: Path) -> None:
    """`import d7agent`, then `d7agent.token()`; `d7agent.header()` is what HTTP libraries take as headers."""
    with FakeAgent(cli.own_socket(home)) as agent:
        assert d7agent.token() == ACCESS_TOKEN
        assert d7agent.header("work", min_validity=60, max_wait=5) == {"Authorization": f"Bearer {ACCESS_TOKEN}"}
    assert agent.asked("GetToken") == [{}, {"profile": "work", "min_validity": 60, "max_wait": 5}]


def test_the_file_works_beside_a_script(folder: Path) -> None:
    """Copied alone into a folder, run by an interpreter that sees nothing but its standard library."""
    shutil.copy(blocking.__file__, folder / "d7token.py")
    (folder / "send.py").write_text("import d7token\nprint(d7token.token())\n", "utf-8")
    with FakeAgent(folder / "a.sock") as agent:
        env = cli.environment(folder, D7AGENT_SOCK=agent.path)
        run = cli.run([str(folder / "send.py")], env, command=[sys.executable, "-S"])
    assert run == (0, f"{ACCESS_TOKEN}\n", "")


def test_candidates_are_those_of_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy of the rule in this file, the short way's and the agent's own agree, whatever the environment holds."""
    from d7agent import __main__ as door

    for env in (
        {},
        {"XDG_RUNTIME_DIR": "/run/user/7"},
        {"XDG_RUNTIME_DIR": "/run/user/7/", "HOME": "/home/x/"},
        {"XDG_RUNTIME_DIR": "relative", "HOME": "/home/x"},
        {"XDG_RUNTIME_DIR": "/", "HOME": "/"},
        {"XDG_RUNTIME_DIR": "", "HOME": "home"},
        {"D7AGENT_SOCK": "/tmp/a.sock", "HOME": "/home/x"},
        {"D7AGENT_SOCK": "", "XDG_RUNTIME_DIR": "/run/user/7"},
    ):
        for name in ("D7AGENT_SOCK", "XDG_RUNTIME_DIR", "HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        expected = paths.client_sockets(None, env, os.geteuid())
        assert blocking.candidates() == expected, env
        assert door._candidates() == expected, env
    assert blocking.candidates("/x") == paths.client_sockets("/x", {}, 0)


def test_the_first_that_accepts_is_asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$D7AGENT_SOCK before the user's own; a dead one is passed over, one that is named is not."""
    with FakeAgent(cli.own_socket(home)), FakeAgent(home / "b.sock", GetToken=fakeagent.token(SECOND_TOKEN)):
        assert d7agent.token() == ACCESS_TOKEN
        monkeypatch.setenv("D7AGENT_SOCK", str(home / "b.sock"))
        assert d7agent.token() == SECOND_TOKEN
        monkeypatch.setenv("D7AGENT_SOCK", str(home / "dead.sock"))
        assert d7agent.token() == ACCESS_TOKEN
        with pytest.raises(blocking.NoAgent, match=r"no agent answers at .*/dead\.sock$"):
            d7agent.token(socket=str(home / "dead.sock"))


def test_reject_sends_a_fingerprint_and_no_token(home: Path) -> None:
    """The refused token itself does not travel; the answer is a better one."""
    with FakeAgent(cli.own_socket(home)) as agent, Agent() as client:
        assert client.reject("refused", max_wait=3) == SECOND_TOKEN
    (params,) = agent.asked("RejectToken")
    assert params == {"fingerprint": hashlib.sha256(b"refused").hexdigest(), "max_wait": 3}
    assert b"refused" not in agent.received


def test_status_and_other_interfaces(home: Path) -> None:
    """`status` is GetStatus; a method with a dot is called by its full name, None is left out."""
    info = {"parameters": {"vendor": "d7agent", "interfaces": []}}
    with FakeAgent(cli.own_socket(home), GetInfo=info) as agent, Agent() as client:
        assert client.status()["agent"]["default_profile"] == "default"
        assert client.call("org.varlink.service.GetInfo", {"x": None})["vendor"] == "d7agent"
    assert agent.requests[1] == {"method": "org.varlink.service.GetInfo", "parameters": {}}


def test_a_stream_gives_every_token_and_ends_with_the_agent(home: Path) -> None:
    """The tokens in order, then NoAgent; other calls go on meanwhile."""
    first, second = fakeagent.token(), fakeagent.token(SECOND_TOKEN, serial=2)

    def both(_: dict[str, object]) -> list[fakeagent.Answer]:
        return [first | {"continues": True}, second | {"continues": True}]

    with FakeAgent(cli.own_socket(home), GetToken=both) as agent, Agent() as client:
        stream = client.stream("work")
        assert next(stream)["access_token"] == ACCESS_TOKEN
        assert client.status()
        assert next(stream)["serial"] == 2
        assert agent.requests[0] == {"method": "io.d7agent.GetToken", "parameters": {"profile": "work"}, "more": True}
        agent.hang_up()
        with pytest.raises(blocking.NoAgent, match="closed the connection"):
            next(stream)


def test_a_stream_ends_by_an_error(home: Path) -> None:
    """An error in the stream is raised as any other."""
    answers = [fakeagent.token(), fakeagent.error("Locked", "the agent was locked")]
    with FakeAgent(cli.own_socket(home), GetToken=answers), Agent() as client:
        stream = client.stream()
        next(stream)
        with pytest.raises(blocking.Locked) as caught:
            next(stream)
    assert (caught.value.message, caught.value.exit_code) == ("the agent was locked", 7)


def test_the_connection_is_kept_and_made_anew_when_it_is_gone(home: Path) -> None:
    """Many calls, one connection; after a restart of the agent the next call just works."""
    with Agent() as client:
        with FakeAgent(cli.own_socket(home)) as agent:
            assert [client.token() for _ in range(5)] == [ACCESS_TOKEN] * 5
            assert agent.connections == 1
        with FakeAgent(cli.own_socket(home)) as agent:
            assert client.token() == ACCESS_TOKEN
            assert agent.connections == 1
        with pytest.raises(blocking.NoAgent):
            client.token()


def test_threads_share_one_agent(home: Path) -> None:
    """Answers never get to the wrong caller."""

    def echo(params: dict[str, object]) -> fakeagent.Answer:
        return fakeagent.token(f"token-of-{params['profile']}")

    wrong: list[str] = []
    with FakeAgent(cli.own_socket(home), GetToken=echo), Agent() as client:

        def ask(name: str) -> None:
            wrong.extend(name for _ in range(50) if client.token(name) != f"token-of-{name}")

        threads = [threading.Thread(target=ask, args=(f"p{number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_fork_gets_a_connection_of_its_own(folder: Path) -> None:
    """A child that inherits a connected Agent does not read what its parent asked for."""
    code = """if True:
        import os
        from d7agent.client.blocking import Agent
        agent = Agent()
        agent.token()
        child = os.fork()
        for _ in range(200):
            assert agent.token("child" if child == 0 else "parent") == ("for-child" if child == 0 else "for-parent")
        if child:
            assert os.waitpid(child, 0)[1] == 0
        os._exit(0)
    """
    with FakeAgent(cli.own_socket(folder), GetToken=lambda p: fakeagent.token(f"for-{p.get('profile')}")) as agent:
        run = cli.run(["-c", code], cli.environment(folder), command=[sys.executable])
        assert (run.status, run.err) == (0, "")
        assert agent.connections == 2


@pytest.mark.parametrize("answer", [fakeagent.SILENCE, b'{"parameters":', b'{"a":"' + b"x" * 5000])
def test_every_call_has_a_time_limit(home: Path, answer: fakeagent.Answer) -> None:
    """An agent that does not answer, or not to the end, is given up in time and said to be there."""
    with FakeAgent(cli.own_socket(home), GetStatus=answer), Agent(timeout=0.1) as client:
        with pytest.raises(blocking.NoAgent, match=r"did not answer within 0\.1 s") as caught:
            client.status()
        assert caught.value.fields == {"busy": True}
        assert client.token() == ACCESS_TOKEN  # what may still come is not taken for the answer to this


def test_a_dripping_agent_is_given_up(home: Path) -> None:
    """The limit is that of the whole call, not of the next byte."""
    over = threading.Event()

    def drops(_: dict[str, object]) -> Iterator[fakeagent.Answer]:
        while not over.wait(0.05):
            yield b" "

    with FakeAgent(cli.own_socket(home), GetStatus=drops), Agent(timeout=0.3) as client:
        with pytest.raises(blocking.NoAgent, match=r"within 0\.3 s"):
            client.status()
        over.set()


def test_a_full_backlog_is_waited_for_and_given_up(home: Path) -> None:
    """A listener that accepts nobody: the limit holds for connecting as well, and no agent is said to be missing."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(home / "a.sock"))
        listener.listen(0)
        first.connect(str(home / "a.sock"))
        with Agent(str(home / "a.sock"), timeout=0.2) as client, pytest.raises(blocking.NoAgent) as caught:
            client.token()
    assert caught.value.fields == {"busy": True}


def test_an_endless_answer_is_cut(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply beyond the cap is an error, not memory."""
    monkeypatch.setattr(blocking, "MAX_REPLY", 100_000)
    with (
        FakeAgent(cli.own_socket(home), GetStatus=b"x" * 300_000),
        Agent() as client,
        pytest.raises(blocking.AgentError, match="larger than 100000 bytes"),
    ):
        client.status()


@pytest.mark.parametrize(
    "name", ["NoSuchProfile", "CredentialRejected", "TokenUnavailable", "Locked", "StoreUnavailable"]
)
def test_errors_carry_message_hint_and_fields(home: Path, name: str) -> None:
    """Each wire error is a class of its own, with what the agent said and the further fields."""
    answer = fakeagent.error(name, "what happened", "what to do", code="C", retry_after=7)
    with FakeAgent(cli.own_socket(home), GetToken=answer), pytest.raises(getattr(blocking, name)) as caught:
        d7agent.token()
    error = caught.value
    assert (str(error), error.message, error.hint) == ("what happened", "what happened", "what to do")
    assert error.fields == {"code": "C", "retry_after": 7}


def test_an_error_without_words_gets_some(home: Path) -> None:
    """The standard's errors have neither message nor hint: both are made up for."""
    answer = {"error": "org.varlink.service.MethodNotFound", "parameters": {"method": "io.d7agent.X"}}
    with FakeAgent(cli.own_socket(home), X=answer), Agent() as client, pytest.raises(blocking.AgentError) as caught:
        client.call("X")
    assert caught.value.message == "the agent answered org.varlink.service.MethodNotFound (io.d7agent.X)"
    assert "restart the agent" in caught.value.hint


def test_a_socket_that_may_not_be_entered_is_not_permitted(folder: Path) -> None:
    """EACCES is status 8: not permitted, from the other side."""
    code = """if True:
        import os, sys
        from d7agent.client import blocking
        if os.geteuid() == 0:
            os.setresuid(12345, 12345, 12345)
        try:
            blocking.token(socket=sys.argv[1])
        except blocking.PermissionDenied as error:
            print(error.exit_code, error.message)
    """
    (folder / "closed").mkdir()
    with FakeAgent(folder / "closed" / "a.sock") as agent:
        (folder / "closed").chmod(0)
        run = cli.run(["-c", code, agent.path], cli.environment(folder), command=[sys.executable])
        (folder / "closed").chmod(0o700)
    assert run == (0, f"8 you may not connect to the agent at {agent.path}\n", "")


def test_a_live_token_asks_each_time_and_shows_itself_to_no_one(home: Path) -> None:
    """`str()` is the token of the moment; `repr()` has none."""
    serial = iter(range(1, 9))
    with FakeAgent(cli.own_socket(home), GetToken=lambda _: fakeagent.token(f"token-{next(serial)}")):
        live = d7agent.Token("work")
        assert (f"Bearer {live}", str(live)) == ("Bearer token-1", "token-2")
        assert repr(live) == "<d7agent.Token of profile work>"
