import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import cli, fakeagent
from tests.support.fakeagent import ACCESS_TOKEN, FakeAgent
from tests.support.terminal import Terminal

LAUNCHER = [str(Path(sys.executable).with_name("d7agent"))]
# The same question, asked so that only the long way understands it.
LONG = ["--max-wait=20"]

# What an agent may answer: well, in unusual spelling, with errors, with rubbish.
REPLIES: dict[str, fakeagent.Answer] = {
    "plain": fakeagent.token(),
    "short": fakeagent.token("T"),
    "longest": fakeagent.token("x" * 16_384),
    "signs": fakeagent.token("!#$%&'()*+,-./:;<=>?@[]^_`{|}~"),
    "blanks between": b'{ "parameters" : {"token": {"access_token": "T", "header": "Bearer T"}}}\0',
    "fields turned round": b'{"parameters":{"token":{"header":"Bearer T","serial":1,"access_token":"T"}}}\0',
    "escape": b'{"parameters":{"token":{"access_token":"a\\u0062c","header":"Bearer a\\u0062c"}}}\0',
    "quote in token": fakeagent.token('a"b'),
    "backslash in token": fakeagent.token("a\\b"),
    "second mark": b'{"parameters":{"x":{"access_token":"X"},"token":{"access_token":"T","header":"Bearer T"}}}\0',
    "escaped mark": b'{"parameters":{"token":{"x":"\\"header\\":\\"X","access_token":"T","header":"Bearer T"}}}\0',
    "not ASCII": fakeagent.token("t\u00f6ken"),
    "line end in token": fakeagent.token("a\nb"),
    "empty token": fakeagent.token(""),
    "no token": {"parameters": {}},
    "null": b'{"parameters":{"token":{"access_token":null,"header":null}}}\0',
    "error": fakeagent.error("NoSuchProfile", "there is none", "make one"),
    "error that quotes": fakeagent.error("TokenUnavailable", 'not yet: "access_token":"X"', "wait"),
    "error with a token": {"error": "io.d7agent.Locked", "parameters": {"access_token": "X", "header": "X"}},
    "rubbish": b"rubbish\0",
    "cut": b'{"parameters":{"token":{"access_token":"T"',
    "closed": fakeagent.CLOSE,
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A user's home."""
    with cli.short_folder() as path:
        yield path


@pytest.mark.parametrize("answer", REPLIES)
def test_both_ways_do_the_same(folder: Path, answer: str) -> None:
    """Status, stdout and stderr are the same bytes, whatever the agent answers; a failing call is made once."""
    reply = REPLIES[answer]
    script = [reply, fakeagent.CLOSE] if answer == "cut" else reply
    env = cli.environment(folder)
    with FakeAgent(cli.own_socket(folder), GetToken=script) as agent:
        for line in (["token", "-p", "work_1"], ["header"]):
            short, calls = cli.run(line, env), len(agent.requests)
            long = cli.run([*line, *LONG], env)
            assert short == long, line
            assert agent.requests[-1]["parameters"] == agent.requests[0]["parameters"]
            assert calls == (2 if answer in ("cut", "closed") else 1)
            agent.requests.clear()


@pytest.mark.parametrize("name", ["", "UPPER", "-x", "a b", "a" * 65, "\u00e4", 'a"', "a\\"])
def test_both_ways_refuse_the_same_names(folder: Path, name: str) -> None:
    """A name that is none is not put into a request by the short way."""
    with FakeAgent(cli.own_socket(folder)) as agent:
        short = cli.run(["token", "-p", name], cli.environment(folder))
        assert short == cli.run(["token", "-p", name, *LONG], cli.environment(folder))
        assert short.status == 2
        assert agent.requests == []


def test_both_ways_find_no_agent_alike(folder: Path) -> None:
    """No agent, a dead socket: the same two lines."""
    env = cli.environment(folder, D7AGENT_SOCK=str(folder / "dead.sock"))
    short = cli.run(["token"], env)
    assert short == cli.run(["token", *LONG], env)
    assert (short.status, short.out) == (3, "")


def test_the_longest_name_takes_the_short_way(folder: Path) -> None:
    """64 characters, and every kind of them."""
    name = "0-_az" + "x" * 59
    with FakeAgent(cli.own_socket(folder)) as agent:
        assert modules(["token", "-p", name], folder) & {"click", "json"} == set()
        assert agent.asked("GetToken") == [{"profile": name, "max_wait": 20}]


@pytest.mark.parametrize("line", [["token"], ["header"], ["token", "-p", "work"], ["header", "--profile", "work"]])
def test_the_short_way_imports_next_to_nothing(folder: Path, line: list[str]) -> None:
    """Beyond what the bare interpreter loads: the door, `_socket`, and no more."""
    with FakeAgent(cli.own_socket(folder)):
        found = modules(line, folder) - modules(None, folder)
    assert found == {"d7agent", "d7agent.__main__", "_socket"}


def test_the_long_way_is_seen_by_the_same_count(folder: Path) -> None:
    """The count can fail: with one more option click is among the modules."""
    with FakeAgent(cli.own_socket(folder)):
        assert {"click", "json", "socket"} <= modules(["token", "--no-newline"], folder)


def test_the_launcher_is_the_same_door(folder: Path) -> None:
    """The installed command prints what `python -m d7agent` prints, and exits as it does."""
    env = cli.environment(folder)
    with FakeAgent(cli.own_socket(folder)):
        assert cli.run(["token"], env, command=LAUNCHER) == (0, f"{ACCESS_TOKEN}\n", "")
        assert cli.run(["token", "x"], env, command=LAUNCHER) == cli.run(["token", "x"], env)


def test_an_agent_that_stays_silent_is_not_asked_twice(folder: Path) -> None:
    """The short way's wait is the only one: the long way tells of it and does not wait again."""
    code = "import d7agent.__main__ as door; door.LIMIT = 1; door.main()"
    with FakeAgent(cli.own_socket(folder), GetToken=fakeagent.SILENCE) as agent:
        run = cli.run(["token"], cli.environment(folder), command=[sys.executable, "-c", code])
        assert len(agent.requests) == 1
    assert (run.status, run.out, cli.is_two_lines(run.err)) == (3, "", True)
    assert "did not answer in time" in run.err


@pytest.mark.parametrize("line", [["token"], ["token", *LONG]])
def test_a_token_on_a_terminal_comes_with_a_hint(folder: Path, line: list[str]) -> None:
    """Both ways warn a person who lets the token onto the screen; a pipe gets no hint."""
    with FakeAgent(cli.own_socket(folder)), Terminal([*cli.COMMAND, *line], cli.environment(folder)) as terminal:
        assert terminal.wait() == 0
        assert f"{ACCESS_TOKEN}\r\n" in terminal.shown
        assert "d7agent: hint: the token is on your screen" in terminal.shown


def test_ctrl_c_ends_it_quietly(folder: Path) -> None:
    """Ended by SIGINT (130 to a shell) and not a word, in both ways, while the agent is waited for."""
    for line in (["token"], ["token", *LONG]):
        with FakeAgent(cli.own_socket(folder), GetToken=fakeagent.SILENCE) as agent:
            process = subprocess.Popen(
                [*cli.COMMAND, *line], env=cli.environment(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            agent.wait_for_calls(1)
            interrupt(process)
            assert process.communicate(timeout=20) == (b"", b"")
            assert process.returncode in (130, -2)


def interrupt(process: "subprocess.Popen[bytes]") -> None:
    """Press Ctrl-C until it is heard: Python misses one that comes between its last look and the wait in the kernel."""
    for _ in range(20):
        process.send_signal(2)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
            return


def modules(line: list[str] | None, folder: Path) -> set[str]:
    """The modules that a process has loaded once it printed the answer; None: those of the bare interpreter."""
    argv = [sys.executable, "-X", "importtime", "-c", "pass"]
    if line is not None:
        argv = [sys.executable, "-X", "importtime", *LAUNCHER, *line]
    run = cli.run([], cli.environment(folder), command=argv)
    assert run.status == 0, run.err
    return {row.rpartition("|")[2].strip() for row in run.err.splitlines() if row.startswith("import time:")}
