import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from d7agent.cli import quoting
from tests.support import cli, fakeagent
from tests.support.fakeagent import ACCESS_TOKEN, SECOND_TOKEN, FakeAgent

NASTY = 'it\'s "a" $HOME `id` \\ !x !! %1 ~ #c {a,b} *?[x] <y> &; |(z)= -n'
# How each shell is started to run a text that it is given.
SHELLS = {
    "sh": ["dash", "-c"],
    "bash": ["bash", "-c"],
    "zsh": ["zsh", "-f", "-c"],
    "csh": ["tcsh", "-f", "-c"],
    "fish": ["fish", "--no-config", "-c"],
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


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("token", "T\n"),
        ("token --no-newline", "T"),
        ("header", "Authorization: Bearer T\n"),
        ("header --format header", "Authorization: Bearer T\n"),
        ("header --format value", "Bearer T\n"),
        ("header --format curl", 'header = "Authorization: Bearer T"\n'),
        ("header --format json", '{"Authorization":"Bearer T"}\n'),
        ("header --format json --no-newline", '{"Authorization":"Bearer T"}'),
        ("env --shell sh", "D7_API_TOKEN=T; export D7_API_TOKEN;\n"),
        ("env --shell bash", "export D7_API_TOKEN=T;\n"),
        ("env --shell zsh", "export D7_API_TOKEN=T;\n"),
        ("env --shell csh", "setenv D7_API_TOKEN T;\n"),
        ("env --shell fish", "set -gx D7_API_TOKEN T;\n"),
        ("env --shell dotenv", "D7_API_TOKEN=T\n"),
        ("env --shell json", '{"D7_API_TOKEN":"T"}\n'),
        ("env --name A --name B --shell dotenv", "A=T\nB=T\n"),
    ],
)
def test_the_forms_byte_for_byte(folder: Path, d7agent: cli.Inside, line: str, printed: str) -> None:
    """What other programs read, and nothing else on stdout or stderr."""
    with FakeAgent(cli.own_socket(folder), GetToken=fakeagent.token("T")):
        assert d7agent(*line.split()) == (0, printed, "")


def test_curl_form_escapes_what_curl_would_read(folder: Path, d7agent: cli.Inside) -> None:
    """Quotes and backslashes stand in a curl configuration as curl wants them."""
    with FakeAgent(cli.own_socket(folder), GetToken=fakeagent.token('a"b\\c')):
        assert d7agent("header", "--format", "curl").out == 'header = "Authorization: Bearer a\\"b\\\\c"\n'


def test_what_is_asked_for_reaches_the_agent(folder: Path, d7agent: cli.Inside) -> None:
    """Profile, validity and patience go into the request; the command line waits 20 s by itself."""
    with FakeAgent(cli.own_socket(folder)) as agent:
        d7agent("token")
        d7agent("header", "-p", "work", "--min-validity", "2m", "--max-wait", "5")
        d7agent("env", "--profile", "work")
        d7agent("renew", "-p", "work", "--max-wait", "40")
    asked = {"profile": "work", "min_validity": 120, "max_wait": 5}
    assert agent.asked("GetToken") == [{"max_wait": 20}, asked, {"profile": "work", "max_wait": 20}]
    assert agent.asked("RenewToken") == [{"profile": "work", "max_wait": 40}]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("value", [NASTY, ACCESS_TOKEN, "~root", "-n", "a'b'c", "!", "\\'", "'"])
def test_every_shell_reads_back_what_was_quoted(shell: str, value: str, tmp_path: Path) -> None:
    """Whatever the value holds, the shell's variable holds the same, and nothing was run or expanded."""
    code = quoting.assignments(shell, {"A": value, "B": "two"})
    start = SHELLS[shell]
    assert shutil.which(start[0]), f"NOT TESTED: install {start[0]}"
    argv = [*start, code + 'sh -c \'printf "%s/%s" "$A" "$B"\'']
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=20)
    assert (done.stdout, done.stderr) == (f"{value}/two", "")


@pytest.mark.parametrize("value", [ACCESS_TOKEN, "a b", 'q"q', "it's", "back\\slash", "$x", "a=b=="])
def test_a_dotenv_file_reads_back_in_a_shell(value: str) -> None:
    """A line that needs quotes gets those which sh reads as well."""
    code = f'{quoting.assignments("dotenv", {"A": value})}printf %s "$A"'
    done = subprocess.run(["sh", "-c", code], capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout == value


@pytest.mark.parametrize(
    ("shell", "guessed"),
    [
        ("/bin/bash", "bash"),
        ("/usr/bin/zsh", "zsh"),
        ("/bin/dash", "sh"),
        ("/bin/tcsh", "csh"),
        ("fish", "fish"),
        ("", "sh"),
    ],
)
def test_the_shell_is_guessed_from_the_users_own(shell: str, guessed: str) -> None:
    """$SHELL decides, and sh is for all the rest."""
    assert quoting.guess_shell({"SHELL": shell}) == guessed
    assert quoting.guess_shell({"SHELL": "/opt/elvish"}) == "sh"


def test_exec_puts_the_token_into_the_environment(folder: Path) -> None:
    """By default D7_API_TOKEN, or the names that are given; arguments and stdin are the command's own."""
    show = 'printf "%s|%s|%s|" "$D7_API_TOKEN" "$A" "$1"; cat'
    with FakeAgent(cli.own_socket(folder)):
        env = cli.environment(folder)
        run = cli.run(["exec", "--", "sh", "-c", show, "sh", "--socket"], env, stdin="in")
        assert run == (0, f"{ACCESS_TOKEN}||--socket|in", "")
        run = cli.run(["exec", "--env", "A", "sh", "-c", show, "sh"], env)
        assert run == (0, f"|{ACCESS_TOKEN}||", "")


@pytest.mark.parametrize("number", [0, 3, 4, 5, 6, 7, 8, 200])
def test_exec_hands_the_token_over_on_a_descriptor(folder: Path, number: int) -> None:
    """Once, with a line end, and then not in the environment; whatever numbers were in use on the way."""
    code = f'import os; n = {number}; print(os.read(n, 99), os.read(n, 99), "D7_API_TOKEN" in os.environ)'
    token = f"{ACCESS_TOKEN}\n".encode()
    with FakeAgent(cli.own_socket(folder)):
        run = cli.run(["exec", "--fd", str(number), "--", cli.COMMAND[0], "-c", code], cli.environment(folder))
    assert run == (0, f"{token!r} b'' False\n", "")


def test_exec_leaves_no_descriptor_behind(folder: Path) -> None:
    """The command inherits the standard ones and the one it asked for, no socket and no second end of the pipe."""
    with FakeAgent(cli.own_socket(folder)):
        run = cli.run(["exec", "--fd", "9", "--env", "A", "--", "ls", "/proc/self/fd"], cli.environment(folder))
    assert run.out.split() == ["0", "1", "2", "3", "9"]  # 3 is the folder that ls reads


def test_exec_becomes_the_command(folder: Path) -> None:
    """The same process: its exit status, its death by a signal, and no signal ignored that was not before."""
    env = cli.environment(folder)
    with FakeAgent(cli.own_socket(folder)):
        assert cli.run(["exec", "--", "sh", "-c", "exit 43"], env).status == 43
        assert cli.run(["exec", "--", "sh", "-c", "kill -USR1 $$"], env).status == -signal.SIGUSR1
        run = cli.run(["exec", "--", "grep", "SigIgn", "/proc/self/status"], env)
    ignored = int(run.out.split()[1], 16)
    assert ignored & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)) == 0


def test_exec_passes_signals_on_by_being_the_command(folder: Path) -> None:
    """A signal to the process that was started is a signal to the command."""
    with FakeAgent(cli.own_socket(folder)):
        argv = [*cli.COMMAND, "exec", "--", "sh", "-c", "trap 'echo caught; exit 7' TERM; echo ready; read x"]
        ends = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(argv, env=cli.environment(folder), start_new_session=True, **ends) as process:  # type: ignore[call-overload]
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGTERM)
            assert process.stdout.read() == b"caught\n"
            assert process.wait(10) == 7


def test_exec_starts_nothing_without_a_token(folder: Path) -> None:
    """The command is not run, and the status is that of the error."""
    with FakeAgent(cli.own_socket(folder), GetToken=fakeagent.error("CredentialRejected")):
        run = cli.run(["exec", "--", "touch", str(folder / "ran")], cli.environment(folder))
    assert (run.status, (folder / "ran").exists()) == (5, False)


def test_exec_says_when_there_is_no_such_command(folder: Path, d7agent: cli.Inside) -> None:
    """127 and 126 as a shell has them, in two lines."""
    (folder / "plain").write_text("x")
    with FakeAgent(cli.own_socket(folder)):
        for command, status in (("d7-no-such-command", 127), (str(folder / "plain"), 126)):
            run = cli.run(["exec", "--", command], cli.environment(folder))
            assert (run.status, run.out, cli.is_two_lines(run.err)) == (status, "", True)


def test_watch_prints_a_line_for_every_token_and_ends_with_the_agent(folder: Path) -> None:
    """Each line is whole as soon as the token is there; when the agent goes the status is 3."""
    both = [fakeagent.token(continues=1), fakeagent.token(SECOND_TOKEN, serial=2)]
    with FakeAgent(cli.own_socket(folder), GetToken=both) as agent:
        argv = [*cli.COMMAND, "watch", "-p", "work"]
        ends = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(argv, env=cli.environment(folder), **ends) as process:  # type: ignore[call-overload]
            tokens = [json.loads(process.stdout.readline()) for _ in both]
            agent.hang_up()
            rest, err = process.communicate(timeout=20)
    assert [token["access_token"] for token in tokens] == [ACCESS_TOKEN, SECOND_TOKEN]
    assert (process.returncode, rest, cli.is_two_lines(err.decode())) == (3, b"", True)
    assert agent.requests[-1] == {"method": "io.d7agent.GetToken", "parameters": {"profile": "work"}, "more": True}


@pytest.mark.parametrize(
    "typed", ["tok-1\n", "  'tok-1'\n\n", "Bearer tok-1", "Authorization: Bearer tok-1\r\n", '"tok-1"']
)
def test_reject_cleans_what_is_pasted(folder: Path, d7agent: cli.Inside, typed: str) -> None:
    """The fingerprint is that of the bare token; the token does not travel, and the answer says there is another."""
    with FakeAgent(cli.own_socket(folder)) as agent:
        run = d7agent("reject", "-p", "work", stdin=typed)
    assert run == (0, "Profile default has another token, good for 59 min.\n", "")
    fingerprint = hashlib.sha256(b"tok-1").hexdigest()
    assert agent.asked("RejectToken") == [{"fingerprint": fingerprint, "profile": "work", "max_wait": 20}]
    assert b"tok-1" not in agent.received


def test_reject_says_when_d7_accepts_the_token(folder: Path, d7agent: cli.Inside) -> None:
    """The same token as the answer means that the request was wrong, not the token."""
    with FakeAgent(cli.own_socket(folder), RejectToken=fakeagent.token()):
        run = d7agent("reject", stdin=ACCESS_TOKEN)
    assert run == (0, "Profile default: D7 accepts this token. Check the header of the refused request.\n", "")


@pytest.mark.parametrize("stdin", ["", "  \n", "a\nb\n", "x\x07y", "x" * 70_000])
def test_reject_takes_one_token_and_nothing_else(folder: Path, d7agent: cli.Inside, stdin: str) -> None:
    """Status 2 without a call, and nothing of the input is repeated."""
    with FakeAgent(cli.own_socket(folder)) as agent:
        run = d7agent("reject", stdin=stdin)
    assert (run.status, run.out, cli.is_two_lines(run.err), agent.requests) == (2, "", True, [])


def test_renew_says_how_long_the_new_token_is_good(folder: Path, d7agent: cli.Inside) -> None:
    """One line for people, without the token."""
    with FakeAgent(cli.own_socket(folder)):
        assert d7agent("renew") == (0, "Profile default has token 2, good for 59 min.\n", "")
    timeless = fakeagent.token(valid_for=None)
    with FakeAgent(cli.own_socket(folder), RenewToken=timeless):
        assert d7agent("renew").out == "Profile default has token 1, with no expiry of its own.\n"
