from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from d7agent.cli import output
from tests.support import cli, fakeagent
from tests.support.fakeagent import ACCESS_TOKEN, FakeAgent

# wire error -> exit status, the table of the design's section 8.
EXIT_STATUS = {
    "NoSuchProfile": 4,
    "NoCredential": 4,
    "CredentialRejected": 5,
    "TokenUnavailable": 6,
    "BudgetSpent": 6,
    "Locked": 7,
    "org.varlink.service.PermissionDenied": 8,
    "StoreUnavailable": 9,
    "org.varlink.service.InvalidParameter": 2,
    "org.varlink.service.MethodNotFound": 1,
    "com.example.Unheard": 1,
}
# command line -> the method that it calls, and what it reads from stdin.
COMMANDS: dict[tuple[str, ...], tuple[str, str]] = {
    ("token",): ("GetToken", ""),
    ("header",): ("GetToken", ""),
    ("env",): ("GetToken", ""),
    ("exec", "--", "true"): ("GetToken", ""),
    ("watch",): ("GetToken", ""),
    ("renew",): ("RenewToken", ""),
    ("reject",): ("RejectToken", "some-token\n"),
    ("login", "--stdin"): ("StoreCredential", "id\nsecret\n"),
    ("logout", "--yes"): ("ForgetCredential", ""),
    ("status",): ("GetStatus", ""),
    ("status", "--json"): ("GetStatus", ""),
    ("lock", "--stdin"): ("Lock", "phrase\n"),
    ("unlock", "--stdin"): ("Unlock", "phrase\n"),
    ("stop",): ("Shutdown", ""),
    ("reload",): ("Reload", ""),
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A user's home."""
    with cli.short_folder() as path:
        yield path


@pytest.fixture
def d7agent(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> cli.Inside:
    """The command line, run by a user who lives in the folder."""
    return cli.inside(folder, capfd, monkeypatch)


@pytest.mark.parametrize("line", COMMANDS, ids=" ".join)
def test_every_wire_error_has_its_exit_status(folder: Path, d7agent: cli.Inside, line: tuple[str, ...]) -> None:
    """Whatever the agent answers, a command ends with the status of the table and repeats message and hint."""
    method, stdin = COMMANDS[line]
    with FakeAgent(cli.own_socket(folder)) as agent:
        for name, status in EXIT_STATUS.items():
            agent.scripts[method] = fakeagent.error(name, f"message of {name}", f"hint of {name}")
            found = d7agent(*line, stdin=stdin)
            assert (found.status, found.out) == (status, ""), name
            assert cli.is_two_lines(found.err)
            assert f"message of {name}" in found.err.splitlines()[0]
            assert found.err.splitlines()[1] == f"d7agent: hint: hint of {name}"


@pytest.mark.parametrize("line", COMMANDS, ids=" ".join)
def test_without_an_agent_every_command_says_what_to_start(d7agent: cli.Inside, line: tuple[str, ...]) -> None:
    """Status 3, two lines, nothing on stdout."""
    found = d7agent(*line[:1], "--socket", "/nowhere/agent.sock", *line[1:], stdin=COMMANDS[line][1])
    assert (found.status, found.out) == (3, "")
    assert cli.is_two_lines(found.err)
    assert "/nowhere/agent.sock" in found.err


@pytest.mark.parametrize("line", COMMANDS, ids=" ".join)
def test_an_agent_that_hangs_up_is_no_agent(folder: Path, d7agent: cli.Inside, line: tuple[str, ...]) -> None:
    """A connection that closes in place of an answer: status 3."""
    method, stdin = COMMANDS[line]
    with FakeAgent(cli.own_socket(folder), **{method: fakeagent.CLOSE}):
        found = d7agent(*line, stdin=stdin)
    assert (found.status, found.out) == (3, "")
    assert cli.is_two_lines(found.err)


@pytest.mark.parametrize(
    "line", [line for line, (method, _) in COMMANDS.items() if method.endswith("Token")], ids=" ".join
)
@pytest.mark.parametrize(
    "reply",
    [
        b"rubbish\0",
        b"[1]\0",
        b'{"parameters":[]}\0',
        b'{"parameters":{"token":7}}\0',
        b"{}\0",
        b"[" * 60_000 + b"\0",
        fakeagent.token("two words\n"),
        fakeagent.token(header="Bearer x\r\nEvil: y"),
        fakeagent.token(""),
    ],
)
def test_an_answer_that_is_no_token_is_not_printed(
    folder: Path, d7agent: cli.Inside, line: tuple[str, ...], reply: fakeagent.Answer
) -> None:
    """Rubbish, and tokens that would break a header line: status 1, two lines, nothing on stdout."""
    method, stdin = COMMANDS[line]
    with FakeAgent(cli.own_socket(folder), **{method: reply}):
        found = d7agent(*line, stdin=stdin)
    assert (found.status, found.out) == (1, "")
    assert cli.is_two_lines(found.err)


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("fetch",),
        ("token", "eyJ.secret.x"),
        ("token", "--profile"),
        ("token", "-p", "Not A Name"),
        ("token", "--max-wait", "soon"),
        ("token", "--min-validity", "367d"),
        ("header", "--format", "xml"),
        ("env", "--name", "NOT-A-NAME"),
        ("env", "--shell", "elvish"),
        ("exec",),
        ("exec", "--fd", "1", "--", "true"),
        ("exec", "--fd", "x", "--", "true"),
        ("login", "default", "eyJ.secret.x"),
        ("login", "--client-secret=eyJ.secret.x"),
        ("login", "-p", "a", "b"),
        ("login", "--stdin", "--from-env"),
        ("reject", "eyJ.secret.x"),
        ("lock", "eyJ.secret.x"),
        ("eyJ.secret.x",),
        ("logout",),
        ("--nonsense",),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_told_in_two_lines(folder: Path, d7agent: cli.Inside, args: tuple[str, ...]) -> None:
    """Status 2, and no argument that may be a secret is repeated."""
    with FakeAgent(cli.own_socket(folder)):
        found = d7agent(*args)
    assert (found.status, found.out) == (2, "")
    assert cli.is_two_lines(found.err)
    assert "secret.x" not in found.err


def test_what_d7_says_cannot_drive_the_terminal(folder: Path, d7agent: cli.Inside) -> None:
    """Line breaks and control characters of a message become harmless, and there are still two lines."""
    nasty = "one\r\ntwo \x1b[31mred\x07\u202eback"
    with FakeAgent(cli.own_socket(folder), GetToken=fakeagent.error("CredentialRejected", nasty, nasty)):
        found = d7agent("token")
    assert found.err == "d7agent: error: one two ?[31mred??back\nd7agent: hint: one two ?[31mred??back\n"


def test_an_unforeseen_error_is_two_lines_without_its_text(
    folder: Path, d7agent: cli.Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in a command gives status 1 and the place, never a traceback or a value that may be a secret."""

    def broken(*args: object, **kwargs: object) -> dict[str, Any]:
        raise ValueError(ACCESS_TOKEN)

    monkeypatch.setattr("d7agent.cli.tokens.ask_token", broken)
    found = d7agent("token")
    assert (found.status, found.out) == (1, "")
    assert cli.is_two_lines(found.err)
    assert "ValueError in broken" in found.err
    monkeypatch.setenv("D7AGENT_DEBUG", "1")
    verbose = d7agent("token")
    assert verbose.err.endswith(found.err)
    assert "in token" in verbose.err
    assert ACCESS_TOKEN not in found.err + verbose.err


def test_a_full_disk_is_told(folder: Path) -> None:
    """Output that cannot be written: status 1 in both ways, and for the help as well."""
    with FakeAgent(cli.own_socket(folder)):
        for line in ("token", "token --max-wait 9", "header --format json", "status", "--help"):
            shell = ["sh", "-c", 'exec "$0" "$@" >/dev/full', *cli.COMMAND]
            found = cli.run(line.split(), cli.environment(folder), command=shell)
            assert (found.status, cli.is_two_lines(found.err)) == (1, True), line
            assert "No space left on device" in found.err


def test_a_closed_stdout_gets_no_token_elsewhere(folder: Path) -> None:
    """With number 1 closed the socket must not take its place and be sent the token: status 1, in both ways."""
    with FakeAgent(cli.own_socket(folder)) as agent:
        for line in ("token", "header --format value"):
            shell = ["sh", "-c", 'exec "$0" "$@" >&-', *cli.COMMAND]
            found = cli.run(line.split(), cli.environment(folder), command=shell)
            assert (found.status, cli.is_two_lines(found.err)) == (1, True), line
        assert ACCESS_TOKEN.encode() not in agent.received


@pytest.mark.parametrize("line", ["token", "token --max-wait 9", "env", "status --json", "--help"])
def test_a_reader_who_has_gone_is_no_error_to_talk_about(folder: Path, line: str) -> None:
    """A broken pipe ends a command quietly."""
    with FakeAgent(cli.own_socket(folder)):
        assert cli.run_unread(line.split(), cli.environment(folder)) == (1, "")


def test_the_longest_words_fit_one_line() -> None:
    """Blanks of every kind become one, so that an error is two lines whatever the agent sent."""
    assert output.one_line("a\n\n b\t c\u2028d\x00") == "a b c d?"
