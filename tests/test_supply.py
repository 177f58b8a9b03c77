"""What comes from others: pinned, justified in the README, loaded where it says so; bandit's findings are answered."""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from d7agent.sandbox import Sandbox
from tests.support.keyring_session import KeyringSession
from tests.support.live import Live
from tests.support.sources import ROOT, sources
from tests.support.staging import OwnPython, Staged

PINNED = ("scripts/requirements-test.txt", "scripts/requirements-run.txt")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
BUILDS = {
    "hatchling",
    "packaging",
    "pathspec",
    "pluggy",
    "tomlkit",
    "trove-classifiers",
}  # loaded by no process of ours
README = (ROOT / "README.md").read_text("utf-8")


def pins(file: str) -> dict[str, Requirement]:
    """The requirements of a pinned file, by name."""
    lines = (ROOT / file).read_text("utf-8").splitlines()
    found = [Requirement(line.removesuffix("\\")) for line in lines if line and line[0] not in " #"]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


@pytest.mark.parametrize("file", PINNED)
def test_pinned_requirements(file: str) -> None:
    """Every package has one exact version and the hash of each file, and no registry's host or path is named."""
    lines = [line for line in (ROOT / file).read_text("utf-8").splitlines() if not line.startswith("#")]
    packages = [line for line in lines if not line.startswith(" ")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+( ; .*)? \\", line) for line in packages)
    versions = Counter(package.partition("==")[0] for package in packages)
    assert set(versions) == {requirement.name for requirement in pins(file).values()}
    assert [name for name, count in versions.items() if count > 1] in ([], ["atheris"])  # one for each Python
    followed = [lines[lines.index(package) + 1] for package in packages]
    assert all(line.strip().startswith("--hash=sha256:") for line in followed)
    assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}( \\)?", line) for line in lines if line not in packages)


def test_the_demo_installs_what_is_tested() -> None:
    """What scripts/demo installs is pinned to the very versions of the tests."""
    tested, demo = ({name: str(pin.specifier) for name, pin in pins(file).items()} for file in PINNED)
    assert demo.items() <= tested.items()


def pip_calls() -> Iterator[tuple[str, str]]:
    """Each call of pip in the scripts that installs or builds: file and command line."""
    for path in (ROOT / "scripts").rglob("*"):
        if path.is_file() and path.suffix in ("", ".sh"):
            text = path.read_text("utf-8").replace("\\\n", " ")
            yield from (
                (path.name, call) for call in re.findall(r"-m pip .*", text) if "install" in call or "wheel" in call
            )


def test_scripts_install_nothing_unpinned() -> None:
    """Scripts take from the network what a hash pins, as wheels; all else they do without the network."""
    calls = dict.fromkeys(pip_calls())
    assert len(calls) >= 3
    safe = ("--require-hashes --only-binary :all:", "--no-index")
    assert [call for call in calls if not any(words in call[1] for words in safe)] == []


class Row:
    """A row of the README's table of packages: names with versions, who wants them, and which processes load them."""

    def __init__(self, cells: list[str]) -> None:
        named, self.wanted_by, loaded = cells[:3]
        self.versions = dict(re.findall(r"([\w.-]+) ([\d.]+\d)", named))
        self.loaded_by = set() if loaded.startswith("none") else {part.strip() for part in loaded.split(",")}


def table() -> list[Row]:
    _, _, rest = README.partition("| package | for | loaded by |")
    lines = rest.splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append(Row([cell.strip() for cell in line.strip("|").split("|")]))
    return rows


def on_linux(requirement: Requirement) -> bool:
    """Whether some Python from 3.11 on takes it here."""
    versions = ("3.11", "3.14")
    marker = requirement.marker or Marker("sys_platform == 'linux'")
    worlds = ({"python_version": v, "python_full_version": f"{v}.0", "sys_platform": "linux"} for v in versions)
    return any(marker.evaluate(dict(world)) for world in worlds)


def test_every_package_is_justified() -> None:
    """The README's table names each package that an installation brings, with its version, and no other."""
    shown = {canonicalize_name(name): version for row in table() for name, version in row.versions.items()}
    run = pins("scripts/requirements-run.txt")
    brought = {name: pin for name, pin in run.items() if on_linux(pin) and name not in BUILDS}
    assert shown == {name: str(pin.specifier).removeprefix("==") for name, pin in brought.items()}


def test_the_table_knows_what_we_ask_for() -> None:
    """The rows that are for d7agent itself are the dependencies in pyproject.toml; all others say whose they are."""
    ours = {canonicalize_name(Requirement(line).name) for line in PROJECT["project"]["dependencies"]}
    rows = table()
    assert {canonicalize_name(name) for row in rows if row.wanted_by == "d7agent" for name in row.versions} == ours
    names = {name for row in rows for name in row.versions}
    assert [
        row.wanted_by for row in rows if row.wanted_by != "d7agent" and row.wanted_by.split(",")[0] not in names
    ] == []


def loaded_in(text: str) -> set[str]:
    """The packages of others in an interpreter's account of its imports (-X importtime)."""
    packages = importlib.metadata.packages_distributions()
    modules = {found[1] for found in re.finditer(r"^import time:.*\| +([\w.]+)$", text, re.MULTILINE)}
    tops = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
    # `jaraco` is a folder that several packages share.
    named = {name for top in tops if top != "jaraco" for name in packages.get(top, ())}
    named |= {module for module in modules if module in ("jaraco.classes", "jaraco.context", "jaraco.functools")}
    return {str(canonicalize_name(name)) for name in named} - {"d7agent", "setuptools", "coverage"}


def may_load(process: str) -> set[str]:
    """The packages that the table grants a process, if they are installed here: some are for old Pythons only."""
    names = {canonicalize_name(name) for row in table() if process in row.loaded_by for name in row.versions}
    return {name for name in names if installed(name)}


def installed(name: str) -> bool:
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def test_agent_and_commands_load_what_the_table_says() -> None:
    """Over a whole life: the agent, each kind of command, and `token` and `header`, which load nothing of others."""
    with Live(PYTHONPROFILEIMPORTTIME="1") as live, Sandbox() as box:
        live.start()
        (live.root / "cred").mkdir(mode=0o700)
        live.login(box.url, "--store", f"directory:{live.root}/cred")
        for short in ("token", "header"):
            assert loaded_in(live.run(short, check=True).stderr) == set()
        commands = (["status"], ["status", "--json"], ["check"], ["doctor"], ["renew"], ["reload"], ["logout", "--yes"])
        told = [live.run(*command).stderr for command in commands]
        assert set().union(*map(loaded_in, told)) == may_load("command line")
        maps = Path(f"/proc/{live.pid}/maps").read_text()
        assert loaded_in(live.journal()) | ({"watchfiles"} if "/watchfiles/" in maps else set()) == may_load("agent")
        assert [library for library in ("libssl", "libcrypto", "_ssl.", "cryptography") if library in maps] == []


def test_a_helper_loads_what_the_table_says(tmp_path: Path) -> None:
    """With a real keyring and a login: keyring and what it brings, urllib3, and nothing of agent and command line."""
    python = OwnPython(tmp_path / "double")
    told = tmp_path / "told"
    with (
        KeyringSession() as session,
        Sandbox() as box,
        Staged(command=python.command, DBUS_SESSION_BUS_ADDRESS=session.address) as live,
    ):
        live.start()
        python.wrap(f'python=$1; shift; exec "$python" -X importtime "$@" 2>>{told}')
        live.login(box.url)
        assert live.run("token").returncode == 0
    assert loaded_in(told.read_text()) == may_load("helper")


LOOKED_AT = ("d7agent", "scripts", "scripts/d7agent")  # by bandit, as scripts/lib.sh starts it
ANSWER = re.compile(r"# (?P<answer>\S.*?)  # nosec (?P<test>B\d{3})$")


def answers() -> dict[tuple[str, int], str]:
    """Every `# nosec` by file and line, with its one test's number; each has a reason before it."""
    found = {}
    for source in sources("d7agent") + sources("scripts"):
        for number, line in enumerate(source.text.splitlines(), 1):
            if "# nosec" in line:
                match = ANSWER.search(line)
                assert match, f"{source.name}:{number} needs a reason, then `# nosec B123`"
                assert re.sub(r"noqa: [A-Z0-9, ]+", "", match["answer"]).strip(), f"{source.name}:{number}: no reason"
                found[source.name, number] = match["test"]
    return found


def test_every_finding_of_bandit_is_answered() -> None:
    """Each finding has its answer in its line, and no answer is left over; a new finding fails here and in the lint."""
    argv = [sys.executable, "-P", "-m", "bandit", "-q", "-f", "json", "--ignore-nosec", "-c", "pyproject.toml"]
    argv += ["-x", "scripts/examples", "-r", *LOOKED_AT]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=50)
    report = json.loads(done.stdout)
    assert report["errors"] == []
    spans = {(found["filename"], tuple(found["line_range"]), found["test_id"]) for found in report["results"]}
    given = answers()
    unanswered = [
        (file, lines, test) for file, lines, test in spans if not any(given.get((file, at)) == test for at in lines)
    ]
    idle = [
        (file, at, test)
        for (file, at), test in given.items()
        if not any(file == found and at in lines and test == kind for found, lines, kind in spans)
    ]
    assert (unanswered, idle) == ([], [])


def test_bandit_and_ruff_skip_the_same() -> None:
    """What bandit passes over everywhere, ruff does too, by the same numbers."""
    ignored = {f"B{rule[1:]}" for rule in PROJECT["tool"]["ruff"]["lint"]["ignore"] if re.fullmatch(r"S\d{3}", rule)}
    assert set(PROJECT["tool"]["bandit"]["skips"]) == ignored
    examples = tomllib.loads((ROOT / "scripts/examples/ruff.toml").read_text("utf-8"))["lint"]["extend-ignore"]
    (skipped,) = re.findall(r"bandit \"\$1\" -s (\S+)", (ROOT / "scripts/lib.sh").read_text("utf-8"))
    assert set(skipped.split(",")) == {f"B{rule[1:]}" for rule in examples}
