"""The manual pages, `--help` and README.md say the same as the program, and show nothing that gives a secret away."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import pytest

from d7agent.cli import app, verdicts
from d7agent.client import blocking
from d7agent.core import checks, config
from tests.support import cli, manual, shells
from tests.support.manual import Page
from tests.support.sources import ROOT

README = (ROOT / "README.md").read_text("utf-8")
COMMON = "COMMANDS"  # the section that describes what several commands share
HELP = {"-h", "--help"}
STATUSES = set(range(10))
SHARED = {  # where the wheel puts what shells and man look for
    "share/man/man1/d7agent.1": "scripts/man/d7agent.1",
    "share/man/man5/d7agent.toml.5": "scripts/man/d7agent.toml.5",
    "share/bash-completion/completions/d7agent": "scripts/completions/d7agent.bash",
    "share/zsh/site-functions/_d7agent": "scripts/completions/_d7agent",
    "share/fish/vendor_completions.d/d7agent.fish": "scripts/completions/d7agent.fish",
}
# What would show a secret to every user of the machine, or to the shell's history.
UNSAFE = {
    "a header with a token as an argument": r"(?:-H|--header)[ =]?[\"']?(?:Authorization|\$)",
    "a bearer token in a word": r"Bearer \$",
    "a secret behind an option": r"--(?:token|client-secret|secret|passphrase|oauth2-bearer)[ =](?![-|\s]|$)[\"'$\w]",
    "a token as an argument": r"(?<![=\w\"])\"?(?:\$\(|`)d7agent (?:-\S+ )*(?:token|header)\b",
    "an assignment as an argument of env": r"\benv (?:-\S+ )*\w+=\"?[$`]",
    "a secret that a command is given": (
        r"(?:^|[|;&(] *)(?!printf|echo|export)[\w./-]+ [^|;&]*\"?\$\{?(?:D7_)?(?:API_)?(?:TOKEN|SECRET)\b"
    ),
}
FIGURES: dict[str, set[str]] = {  # TOML's names of the tables, and the sections of d7agent.toml(5)
    "CONFIG.TOML": set(config._CONFIG_RULES) - {"access", "hooks"},
    "[access]": set(config._ACCESS_RULES),
    "[hooks]": set(config._HOOK_RULES),
    "PROFILES/NAME.TOML": set(config._profile_rules(str)) - {"sinks"},
    "[[sinks]]": set(config._sink_rules(str)),
}


def commands() -> dict[str, click.Command]:
    """Every command by its name; those of a group as `service install`."""
    context = click.Context(app.cli, info_name="d7agent")
    found = {name: app.cli.get_command(context, name) for name in app.COMMANDS}
    groups = {name: command.commands for name, command in found.items() if isinstance(command, click.Group)}
    inner = {f"{name} {verb}": command for name, verbs in groups.items() for verb, command in verbs.items()}
    return {name: command for name, command in (found | inner).items() if command is not None}


COMMANDS = commands()


def options_of(name: str) -> set[str]:
    """Every spelling of every option of a command, and of those below it."""
    below = [command for full, command in COMMANDS.items() if full == name or full.startswith(f"{name} ")]
    return {spelling for command in below for p in command.params if isinstance(p, click.Option) for spelling in p.opts}


def sections(text: str) -> dict[str, str]:
    """A Markdown text by its headings of the second and third degree."""
    parts = re.split(r"^##+ (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)


def code(text: str) -> list[str]:
    """All that is set as code: the lines of fenced blocks, and the spans between backquotes."""
    fenced = re.findall(r"^ *```\w*\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [line for block in fenced for line in block.splitlines()] + re.findall(r"`([^`]+)`", rest)


def calls(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Each call of d7agent in these lines: the command, and its arguments up to another command's or a comment."""
    start = r"(?:^|[|;&(`'\"][ ]*|(?:^|[ ])(?:[$%>]|sudo|then|do|until|--)[ ])[ ]*d7agent"
    for line in lines:
        for name, rest in re.findall(rf"{start} ([a-z]\w*)([^|;&`\n]*)", line):
            yield name, re.split(r" -- |\$\(| # ", rest)[0]


def named_options(text: str) -> set[str]:
    """The words of a text that are options."""
    return set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", text))


def test_the_manual_shows_every_command_with_every_option() -> None:
    """The usage of each command in d7agent(1) holds exactly its options; a group's, its subcommands as well."""
    usages = Page("d7agent.1").usages()
    assert set(usages) == set(app.COMMANDS)
    for name in app.COMMANDS:
        assert usages[name].flags == options_of(name), name
        verbs = {full.partition(" ")[2] for full in COMMANDS if full.startswith(f"{name} ")}
        assert verbs <= usages[name].words, name


def test_the_manual_explains_every_option() -> None:
    """Each option of a usage is described with its command, or among those that several share; and no other is."""
    page = Page("d7agent.1")
    common = page.flags(COMMON)
    described: dict[str, set[str]] = {}
    for name in app.COMMANDS:
        described.setdefault(page.section_of(name), set()).update(options_of(name))
    for heading, options in described.items():
        assert page.flags(heading) <= options, heading
        assert options - common <= page.flags(heading), heading
    assert common - HELP <= set().union(*described.values())
    assert page.flags("SYNOPSIS") == set()
    assert manual.flags("\n".join(page.sections["SYNOPSIS"])) == {"-V", "--version", *HELP}


def test_the_manual_names_every_choice() -> None:
    """What --format, --shell and others can be stands in the section of their command."""
    page = Page("d7agent.1")
    for name in app.COMMANDS:
        words = set(re.findall(r"[\w-]+", manual.plain("\n".join(page.sections[page.section_of(name)]))))
        for param in COMMANDS[name].params:
            if isinstance(param.type, click.Choice):
                assert set(param.type.choices) <= words, (name, param.name)


def test_help_shows_every_command_and_option(capfd: pytest.CaptureFixture[str]) -> None:
    """`d7agent --help` lists the commands, `d7agent COMMAND --help` the options, and both say it in whole sentences."""
    assert app.run(["--help"]) == 0
    listed = re.findall(r"^  (\w+)  +\w.*\.$", capfd.readouterr().out, re.MULTILINE)
    assert listed == list(app.COMMANDS)
    for name, command in COMMANDS.items():
        assert app.run([*name.split(), "--help"]) == 0
        shown = named_options(capfd.readouterr().out)
        own = {spelling for p in command.params if isinstance(p, click.Option) for spelling in p.opts}
        assert own | HELP <= shown, name


def test_readme_shows_every_command() -> None:
    """The table of commands has them all, and only them; each option it names is one of its command."""
    shown: set[str] = set()
    for row in re.findall(r"^\| (`.*?) \| ", sections(README)["Commands"].replace(r"\|", "/"), re.MULTILINE):
        for span in re.findall(r"`([^`]+)`", row):
            name = span.split()[0]
            assert named_options(span.replace("[--", " --")) <= options_of(name), span
            shown.add(name)
    assert shown == set(app.COMMANDS)


@pytest.mark.parametrize("source", ["README.md", "d7agent.1", "d7agent.toml.5", "help"])
def test_every_call_that_is_shown_can_be_made(source: str) -> None:
    """Whatever is shown as a call of d7agent names a command that there is, with options that it has."""
    found = list(calls(texts()[source]))
    assert len(found) > 2
    for name, rest in found:
        assert name in app.COMMANDS, f"{name}{rest}"
        assert named_options(rest.replace("[--", " --")) <= options_of(name) | HELP, f"{name}{rest}"


def test_exit_statuses_are_the_same_everywhere() -> None:
    """Manual, README, `--help` and the clients' errors know the same numbers; those of `check` are the plugins'."""
    page = Page("d7agent.1")
    assert {int(number) for number in page.items("EXIT STATUS", "")} == STATUSES
    table = sections(README)["Troubleshooting, by exit status"]
    assert {int(number) for number in re.findall(r"^\| (\d+) \| ", table, re.MULTILINE)} == STATUSES
    assert {int(number) for number in re.findall(r"\b(\d+)(?= [a-z])", app.EPILOG)} == STATUSES
    raised = {
        kind.exit_code for kind in vars(blocking).values() if isinstance(kind, type) and hasattr(kind, "exit_code")
    }
    assert {3, 4, 5, 6, 7, 8, 9} <= raised <= STATUSES
    told = manual.plain(" ".join(page.sections["EXIT STATUS"]))
    helped = COMMANDS["check"].epilog or ""
    for level, word in enumerate(verdicts.WORDS):
        assert f"{level} for {word}" in told
        assert f"{level} {word}" in helped


def test_the_configuration_manual_has_every_key() -> None:
    """d7agent.toml(5) describes the keys that core.config accepts, table by table, and no others."""
    page = Page("d7agent.toml.5")
    assert {heading: set(page.items(heading, "Va")) for heading in FIGURES} == FIGURES


def test_the_configuration_manual_has_every_store_form_and_specifier() -> None:
    """Kinds of store, formats of a sink, and what a path may hold."""
    page = Page("d7agent.toml.5")
    kinds = {item.split()[0] for item in page.items("STORES", "Cm")}
    assert kinds == set(checks.STORE_KINDS)
    forms = set(page.items("[[sinks]]", "Ql"))
    assert forms == set(get_args(config.SinkFormat))
    assert {item.split()[0] for item in page.items("SPECIFIERS", "Cm")} == {"%h", "%t", "%S", "%d", "%%"}


def toml_texts() -> dict[str, str]:
    """Every TOML example, by where it stands."""
    found = {f"README.md {place}": text for place, text in enumerate(blocks(README, "toml"))}
    for name in ("d7agent.1", "d7agent.toml.5"):
        examples = (manual.plain(text) for text in Page(name).literals())
        found |= {f"{name} {place}": text for place, text in enumerate(examples) if text.startswith("#")}
    return found


@pytest.mark.parametrize("place", toml_texts())
def test_examples_of_configuration_are_taken(place: str) -> None:
    """core.config takes each as it stands, as the file that its first line names, or of the kind its keys are of."""
    text = toml_texts()[place]
    first = text.splitlines()[0].strip()
    table = tomllib.loads(text)
    name = first.removeprefix("# ") if first.startswith("#") else ""
    folders = {"%t": "/run/user/1000", "%h": "/home/me", "%d": "/run/credentials/d7agent.service"}

    def expand(path: str) -> str:
        return re.sub("%.", lambda found: folders[found[0]], path)

    if name.endswith("config.toml") or (not name and set(table) <= set(config._CONFIG_RULES)):
        assert config.parse(("config.toml", text), [], expand) != config.parse(None, [], expand)
    else:
        (found,) = config.parse(None, [(name or "profiles/default.toml", text)], expand).profiles.values()
        assert name.endswith(f"profiles/{found.name}.toml") or not name


def texts() -> dict[str, list[str]]:
    """The lines of code that users are shown, by where."""
    helped = "\n".join(f"{command.help}\n\n{command.epilog}\n" for command in COMMANDS.values())
    kept = [
        line for block in re.findall(r"^\x08\n(.*?)^$", helped, re.MULTILINE | re.DOTALL) for line in block.splitlines()
    ]
    found = {"README.md": code(README), "help": kept + re.findall(r"`([^`]+)`", helped)}
    for name in ("d7agent.1", "d7agent.toml.5"):
        page = Page(name)
        quoted = re.findall(r"^\.Ql (.*?)(?: [.,;:])?$", page.source, re.MULTILINE)
        found[name] = [line for text in [*page.literals(), *quoted] for line in manual.plain(text).splitlines()]
    return found


def leaks(line: str) -> list[str]:
    """What is wrong with a line of code."""
    return [name for name, pattern in UNSAFE.items() if re.search(pattern, line)]


@pytest.mark.parametrize("source", ["README.md", "d7agent.1", "d7agent.toml.5", "help"])
def test_no_recipe_gives_a_secret_away(source: str) -> None:
    """No token, header or secret on a command line, where `ps` and the history would show it."""
    assert {line: leaks(line) for line in texts()[source] if leaks(line)} == {}


@pytest.mark.parametrize(
    "line",
    [
        'curl -H "Authorization: Bearer $(d7agent token)" https://api.d7networks.com/messages/v1/balance',
        'curl -H "$(d7agent header)" https://x',
        "curl --header 'Authorization: Bearer eyJ' https://x",
        "curl --oauth2-bearer eyJ https://x",
        "d7agent login --token eyJhbGciOi",
        "d7agent login --client-secret=geheim",
        "./send --token $(d7agent token)",
        './send "$(d7agent token -p work)" now',
        "./send `d7agent token`",
        "env D7_API_TOKEN=$(d7agent token) ./send",
        './send.py "$TOKEN"',
        "make deploy && ./send $D7_API_TOKEN",
    ],
)
def test_a_recipe_that_gives_a_secret_away_is_seen(line: str) -> None:
    """Each form in which the rule can be broken is found."""
    assert leaks(line) != []


@pytest.mark.parametrize(
    "line",
    [
        "TOKEN=$(d7agent token)",
        'D7_API_TOKEN="$(d7agent token)" ./send',
        "d7agent header | curl -H @- https://x",
        "d7agent login --token --stdin",
        "printf '%s\\n' TOKEN | d7agent login --token --stdin",
        'printf \'%s\\n%s\\n\' "$ID" "$SECRET" | d7agent login --stdin',
        'eval "$(d7agent env)"',
        "d7agent exec -- env",
    ],
)
def test_a_safe_recipe_is_let_through(line: str) -> None:
    """The forms that keep a secret in the shell's own hands."""
    assert leaks(line) == []


@pytest.mark.parametrize("name", ["d7agent.1", "d7agent.toml.5"])
def test_man_shows_the_page_without_a_warning(name: str, tmp_path: Path) -> None:
    """`man` formats it, on a narrow terminal too, and finds nothing to complain of."""
    assert shutil.which("man"), "NOT TESTED: install man-db"
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8", "MANWIDTH": "60"}
    argv = ["man", "--warnings=w", "-l", str(manual.PAGES / name)]
    run = subprocess.run(argv, env=env, capture_output=True, text=True, check=True, timeout=30)
    assert run.stderr == ""
    assert name.rpartition(".")[0] in run.stdout
    assert [line for line in run.stdout.splitlines() if re.search(r"\\[(&e-]", line)] == []


@pytest.mark.parametrize("name", ["d7agent.1", "d7agent.toml.5"])
def test_what_is_copied_from_the_manual_is_ascii(name: str) -> None:
    """Dashes, quotes and tildes of examples are written so that no troff turns them into typographic ones."""
    for text in Page(name).literals():
        assert not re.search(r"(?<!\\)[-'`^~]", text), text
        assert text.isascii()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-P", "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    run = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=50)
    assert run.returncode == 0, run.stdout + run.stderr
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_manual_and_completions_ship(wheel: zipfile.ZipFile) -> None:
    """Each page and script is in the wheel where man and the shells look for it, and none is forgotten."""
    shared = {name.partition(".data/data/")[2]: name for name in wheel.namelist()}
    for place, source in SHARED.items():
        assert wheel.read(shared[place]) == (ROOT / source).read_bytes(), place
    here = {path for folder in (manual.PAGES, shells.SCRIPTS) for path in folder.iterdir()}
    assert {str(path.relative_to(ROOT)) for path in here} == set(SHARED.values())


def test_completions_can_be_printed_from_the_wheel(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """An installation without the checkout prints its scripts: `_D7AGENT_COMPLETE=bash_source d7agent`."""
    wheel.extractall(tmp_path)
    env = {**cli.environment(tmp_path), "PYTHONPATH": str(tmp_path), "_D7AGENT_COMPLETE": "bash_source"}
    found = cli.run([], env, command=[sys.executable, "-m", "d7agent"])
    assert found == (0, (shells.SCRIPTS / "d7agent.bash").read_text(), "")
