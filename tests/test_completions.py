"""Completion in real shells, of commands, options, choices, stores, folders, and the profiles of a running agent."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from d7agent.cli import app, completing, credential, quoting, tokens
from d7agent.sandbox import Sandbox, Settings
from tests.support import cli, fakeagent, shells
from tests.support.fakeagent import FakeAgent
from tests.support.live import COMMAND, Live

PATH = f"{Path(COMMAND).parent}:{os.environ['PATH']}"
SHELLS = ("bash", "zsh", "fish")
LINES: dict[str, set[str]] = {
    "d7agent re": {"renew", "reject", "reload"},
    "d7agent service un": {"uninstall"},
    "d7agent token --m": {"--min-validity", "--max-wait"},
    "d7agent exec --e": {"--env"},
    "d7agent header --format ": set(tokens.FORMS),
    "d7agent env --shell=": set(quoting.FORMS),
    "d7agent login --store ": set(credential.STORES),
    "d7agent login --store directory:/et": {"etc"},
    "d7agent run --socket /et": {"etc"},
    "d7agent token -p wo": {"work", "work-eu"},
    "d7agent token --profile=wo": {"work", "work-eu"},
    "d7agent logout work-": {"work-eu"},
    "d7agent exec -p work-": {"work-eu"},
    "d7agent exec ls /et": {"etc"},
    "D7AGENT_SOCK= d7agent unl": {"unlock"},
}


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    """An agent with a token, and three profiles."""
    with Sandbox(Settings(lifetime=600)) as box, Live(PATH=PATH) as home:
        (home.config / "profiles").mkdir(parents=True)
        for name in ("work", "work-eu"):
            (home.config / "profiles" / f"{name}.toml").write_text(f'store = "directory:{home.root}/{name}"\n')
        (home.root / "cred").mkdir(mode=0o700)
        home.start()
        home.login(box.url, "--store", f"directory:{home.root}/cred")
        yield home


@pytest.fixture
def folder() -> Iterator[Path]:
    """A user's home."""
    with cli.short_folder() as path:
        yield path


def ask(line: str, env: dict[str, str]) -> cli.Run:
    """What a completion script is told for this line."""
    return cli.run([], {**env, "_D7AGENT_COMPLETE": completing.ANSWER, completing.LINE: line})


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes(shell: str, live: Live) -> None:
    """Commands, options, choices, kinds of store, folders, profiles of the agent, and other commands behind `exec`."""
    with shells.open_shell(shell, live.environment, live.home) as person:
        found = {line: person.completions(line) for line in LINES}
    assert found == LINES


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_another_commands_words_are_completed_as_that_command_does(shell: str, live: Live) -> None:
    """`exec` and `start` step aside; bash does so only where its package bash-completion is there."""
    with shells.open_shell(shell, live.environment, live.home) as person:
        assert person.completions("d7agent exec -p work -- d7agent logou") == {"logout"}
        assert person.completions("d7agent start d7agent --versi") == {"--version"}


@pytest.mark.parametrize("shell", SHELLS)
def test_without_an_agent_a_shell_completes_the_rest_in_silence(shell: str, folder: Path) -> None:
    """No profile, no message, no agent started; options are there all the same."""
    env = cli.environment(folder, PATH=PATH)
    with shells.open_shell(shell, env, folder) as person:
        assert person.completions("d7agent token -p wo") <= {"wo"}
        assert person.completions("d7agent token --no-n") == {"--no-newline"}
    assert not cli.own_socket(folder).exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_without_d7agent_a_shell_says_nothing(shell: str, folder: Path) -> None:
    """A script that outlives an uninstalled d7agent offers nothing."""
    env = cli.environment(folder, PATH="/usr/bin:/bin")
    with shells.open_shell(shell, env, folder) as person:
        assert person.completions("d7agent log") <= {"log"}


@pytest.mark.parametrize(
    "answer", [fakeagent.SILENCE, b"rubbish\0", b"{}\0", fakeagent.CLOSE, fakeagent.error("Locked")]
)
def test_an_agent_that_is_not_well_is_not_waited_for(answer: fakeagent.Answer, folder: Path) -> None:
    """Nothing is offered and nothing said, whatever the agent does, soon enough for a finger on the TAB key."""
    with FakeAgent(cli.own_socket(folder), GetStatus=answer):
        begin = time.monotonic()
        found = ask("d7agent token -p ", cli.environment(folder))
        assert time.monotonic() - begin < 5  # of which half a second is the agent's
    assert found[1:] == ("", "")


def test_a_name_that_is_none_is_not_put_into_a_command_line(folder: Path) -> None:
    """What an agent may call a profile cannot become shell code."""
    names = ["good", "$(evil)", "two words", "new\nline", ""]
    profiles = [fakeagent.profile(profile=name) for name in names]
    with FakeAgent(cli.own_socket(folder), GetStatus=fakeagent.status(*profiles)):
        assert ask("d7agent token -p ", cli.environment(folder)).out == "plain\tgood\t\n"


def test_the_socket_on_the_line_is_the_one_that_is_asked(folder: Path) -> None:
    """--socket before -p names the agent, a ~ in it as the shell would have it."""
    status = fakeagent.status(fakeagent.profile(profile="elsewhere"))
    with FakeAgent(folder / "other.sock", GetStatus=status):
        found = ask("d7agent token --socket ~/other.sock -p e", cli.environment(folder))
    assert found == (0, "plain\telsewhere\t\n", "")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("d7agent ", ([], "")),
        ("d7agent token -p wo", (["token", "-p"], "wo")),
        ("/opt/venv/bin/d7agent token ", (["token"], "")),
        ("A=1 command d7agent to", ([], "to")),
        ("d7agent login 'two wor", (["login"], "two wor")),
        ('d7agent login "a b" c\\ d\\', (["login", "a b"], "c d")),
        ("d7agent exec -- d7agent x", (["exec", "--", "d7agent"], "x")),
        ("dd token ", (["token"], "")),
        ("", ([], "")),
    ],
)
def test_a_line_is_read_as_a_shell_reads_it(line: str, words: tuple[list[str], str]) -> None:
    """Words before the cursor and the word at it; quotes may still be open."""
    assert completing.words(line) == words


def test_the_list_of_commands_imports_none_of_them(folder: Path) -> None:
    """Twenty commands come from the table: the TAB key does not wait for their modules."""
    found = ask("d7agent ", cli.environment(folder)).out.splitlines()
    assert [line.split("\t")[:2] for line in found] == [["plain", name] for name in app.COMMANDS]
    code = (
        "import sys; from d7agent.cli import app, completing; completing.Lines(app.cli, {}, 'd7agent', '').complete();"
        "assert not {f'd7agent.cli.{row[0]}' for row in app.COMMANDS.values()} & set(sys.modules)"
    )
    env = {**cli.environment(folder), completing.LINE: "d7agent "}
    assert cli.run(["-c", code], env, command=cli.COMMAND[:2]).status == 0


@pytest.mark.parametrize("instruction", completing.SCRIPTS)
def test_a_script_is_printed_for_shells_that_do_not_find_it(instruction: str, folder: Path) -> None:
    """`source <(_D7AGENT_COMPLETE=bash_source d7agent)` is the shipped file."""
    found = cli.run([], {**cli.environment(folder), "_D7AGENT_COMPLETE": instruction})
    assert found == (0, (shells.SCRIPTS / completing.SCRIPTS[instruction]).read_text(), "")


def test_an_unknown_instruction_is_not_taken_for_a_command(folder: Path) -> None:
    """Status 1 and not a word."""
    assert cli.run([], {**cli.environment(folder), "_D7AGENT_COMPLETE": "elvish_source"}) == (1, "", "")
