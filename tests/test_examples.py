"""Every file in scripts/examples, run as its head says against the real agent and the sandbox."""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from d7agent.client.blocking import Agent, AgentError, CredentialRejected
from d7agent.sandbox import Sandbox
from tests.support.live import COMMAND, Live
from tests.support.longago import logged_in, restart
from tests.support.sources import ROOT

EXAMPLES = ROOT / "scripts" / "examples"
MIGRATIONS = EXAMPLES / "migrate"
SMS = ["971500000000", "it burns"]
SHORT = ["send.mjs", "balance.py", "balance-socat.sh", "balance-nc.sh"]
ARGUMENTS = {
    "zabbix": SMS,
    "nagios": ["--to", SMS[0], "--content", SMS[1]],
    "whatsapp": ["--from", "971500000001", "--to", SMS[0], "--template", "host_alert", "web1", SMS[1]],
}
# In place of a program: notes its arguments and stdin, then lets the real one go on, if there is one.
WITNESS = """#!/bin/sh
printf '%s\\n' "$*" >>"$WITNESSED"
{then}
"""

pytestmark = pytest.mark.system


class House:
    """An agent with a token two minutes old, the D7 that gave it, and what a user's shell has."""

    def __init__(self, live: Live, box: Sandbox, folder: Path) -> None:
        self.live, self.box = live, box
        self.witnessed = folder / "arguments"
        self.seconds = 120
        self.environment = {
            **live.environment,
            "PATH": os.pathsep.join([str(folder), str(Path(COMMAND).parent), os.environ["PATH"]]),
            "D7_BASE_URL": box.url,
            "WITNESSED": str(self.witnessed),
        }
        self._folder = folder
        self._secrets = {self.token()}

    def stand_in(self, program: str, then: str) -> None:
        """From now on this program's arguments are noted; `then` is what it does afterwards, in sh."""
        path = self._folder / program
        path.write_text(WITNESS.format(then=then))
        path.chmod(0o755)

    def age(self) -> None:
        """Two minutes pass: the token is old enough to be replaced when it is refused."""
        self.seconds += 120
        restart(self.live, self.seconds)

    def token(self) -> str:
        """The present token."""
        with Agent(str(self.live.socket)) as agent:
            return agent.token()

    def recover(self) -> None:
        """No faults, and a token again if a test had it refused for good."""
        self.box.clear()
        with Agent(str(self.live.socket)) as agent:
            try:
                agent.token()
            except CredentialRejected:
                agent.call("RenewToken")

    def run(self, *argv: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; the token is in none of its arguments and in nothing that it writes."""
        done = subprocess.run(
            [str(word) for word in argv],
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )
        noted = self.witnessed.read_text() if self.witnessed.exists() else ""
        with contextlib.suppress(AgentError):
            self._secrets.add(self.token())
        assert [secret for secret in self._secrets if secret in noted + done.stdout + done.stderr] == []
        return done


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with Sandbox() as box, logged_in(box) as live:
        house = House(live, box, tmp_path_factory.mktemp("bin"))
        house.stand_in("curl", f'exec {shutil.which("curl")} "$@"')
        yield house


@pytest.fixture
def house(home: House) -> Iterator[House]:
    """As it was, whatever the test before did."""
    home.recover()
    home.witnessed.unlink(missing_ok=True)
    yield home
    home.box.clear()


def command(example: str) -> list[str | Path]:
    """How an example is started; skips where the machine lacks what it is written for."""
    path = EXAMPLES / example
    programs = {"send.mjs": ["node"], "balance-socat.sh": ["socat", "curl"], "balance-nc.sh": ["nc", "curl"]}
    for program in programs.get(example, []):
        if shutil.which(program) is None:
            pytest.skip(f"NOT TESTED: {example} needs {program}, which is not installed here")
    start = {".mjs": "node", ".sh": "sh", ".py": sys.executable}[path.suffix]
    return [start, path]


def script(migration: str, name: str) -> list[str | Path]:
    """How a migrated script is started."""
    return [sys.executable, MIGRATIONS / migration / name]


def accepted(printed: str) -> bool:
    """Whether this is D7's answer to a message that it took."""
    return '"status":"accepted"' in printed.replace(" ", "")


def newest(box: Sandbox) -> dict[str, Any]:
    """The message that D7 accepted last."""
    sent: Any = box.messages[-1]["messages"]
    (message,) = sent
    return dict(message)


@pytest.mark.parametrize("example", ["balance.py", "balance-socat.sh", "balance-nc.sh"])
def test_balance(house: House, example: str) -> None:
    """It prints D7's answer; without an agent it fails and says something."""
    argv = command(example)
    done = house.run(*argv)
    assert (done.returncode, done.stderr, json.loads(done.stdout)) == (0, "", {"balance": 99.99})
    alone = house.run(*argv, XDG_RUNTIME_DIR="/nonexistent")
    assert alone.returncode != 0
    assert alone.stderr


def test_what_the_agent_says_is_shown(house: House) -> None:
    """With a locked agent each example fails and names the cause."""
    house.live.run("lock", "--stdin", text="open sesame\n", check=True)
    try:
        failed = {example: house.run(*command(example), *SMS) for example in SHORT}
    finally:
        house.live.run("unlock", "--stdin", text="open sesame\n", check=True)
    assert [example for example, done in failed.items() if done.returncode == 0] == []
    assert [example for example, done in failed.items() if "io.d7agent.Locked" not in done.stderr] == []


@pytest.mark.parametrize("example", SHORT)
def test_examples_are_short(example: str) -> None:
    """25 lines at most."""
    assert len((EXAMPLES / example).read_text("utf-8").splitlines()) <= 25


def test_node_sends_and_replaces_a_refused_token(house: House) -> None:
    """The message arrives; with a revoked token it arrives all the same, once, after one login."""
    argv = [*command("send.mjs"), *SMS]
    done = house.run(*argv)
    assert (done.returncode, accepted(done.stdout)) == (0, True), done.stderr
    assert newest(house.box)["content"] == "it burns"
    house.age()
    house.box.revoke(house.token())
    before = house.box.stats
    done = house.run(*argv)
    assert (done.returncode, accepted(done.stdout)) == (0, True), done.stderr
    after = house.box.stats
    assert (after.logins - before.logins, after.api_refused - before.api_refused) == (1, 1)


@pytest.mark.parametrize("fault", ["expired:on=api", "not-found:on=api", "status:on=api,status=500"])
def test_node_tries_once_more_at_the_most(house: House, fault: str) -> None:
    """What D7 goes on refusing, and what is no matter of the token, is told, with status 1."""
    argv = [*command("send.mjs"), *SMS]
    house.box.faults.add(fault)
    seen = house.box.stats.requests
    done = house.run(*argv)
    assert done.returncode == 1
    assert re.search("CredentialRejected|NOT_EXISTS|^500|^401", done.stdout + done.stderr)
    assert house.box.stats.requests - seen <= 3  # two sends, and the agent's own proof or login


@pytest.mark.parametrize("migration", ARGUMENTS)
def test_migrated_alerts_arrive(house: House, migration: str) -> None:
    """Before and after send the same message; after, a refused token is replaced and the alert sent once more."""
    before, after = (script(migration, name) for name in ("before.py", "after.py"))
    house.box.configure(ready_token="PASTED_TOKEN")
    sent = []
    for argv in (before, after):
        done = house.run(*argv, *ARGUMENTS[migration])
        assert (done.returncode, accepted(done.stdout)) == (0, True), done.stderr
        sent.append(newest(house.box))
    assert sent[0] == sent[1]
    assert "it burns" in str(sent)
    house.age()
    house.box.revoke(house.token())
    count = len(house.box.messages)
    done = house.run(*after, *ARGUMENTS[migration])
    assert (done.returncode, accepted(done.stdout)) == (0, True), done.stderr
    assert len(house.box.messages) == count + 1


@pytest.mark.parametrize("migration", ARGUMENTS)
def test_a_lost_alert_no_longer_looks_delivered(house: House, migration: str) -> None:
    """D7 refuses for good: before, the exit status is 0; after, it is 1, and without an agent it is the agent's."""
    before, after = (script(migration, name) for name in ("before.py", "after.py"))
    house.box.faults.add("forbidden:on=api")
    assert house.run(*before, *ARGUMENTS[migration]).returncode == 0
    done = house.run(*after, *ARGUMENTS[migration])
    assert done.returncode == 1
    assert "ACCESS_DENIED" in done.stderr
    house.box.clear()
    alone = house.run(*after, *ARGUMENTS[migration], D7AGENT_SOCK="/nonexistent", XDG_RUNTIME_DIR="/nonexistent")
    assert alone.returncode == 3
    assert "d7agent: hint:" in alone.stderr
    assert "Traceback" not in done.stderr + alone.stderr


def test_apprise_gets_the_token_through_a_pipe(house: House) -> None:
    """Its configuration holds the URL; its arguments do not; without a token it is not started."""
    house.stand_in("apprise", 'cat >"$WITNESSED.stdin"')
    done = house.run("sh", MIGRATIONS / "apprise" / "after.sh", "disk", "it burns")
    assert (done.returncode, done.stderr) == (0, "")
    assert house.witnessed.read_text() == "-t disk -b it burns -c /dev/stdin\n"
    assert Path(f"{house.witnessed}.stdin").read_text() == f"d7sms://{house.token()}@971500000000\n"
    house.witnessed.unlink()
    away = {"D7AGENT_SOCK": "/nonexistent", "XDG_RUNTIME_DIR": "/nonexistent"}
    assert house.run("sh", MIGRATIONS / "apprise" / "after.sh", "disk", "it burns", **away).returncode == 3
    assert not house.witnessed.exists()


def test_the_cron_job(house: House) -> None:
    """The crontab's own command, run as cron runs it: the balance on stdout, to be mailed, and nothing in `ps`."""
    lines = (MIGRATIONS / "cron" / "after.crontab").read_text("utf-8").splitlines()
    (job,) = (line.split(None, 5)[5] for line in lines if line[0].isdigit())
    variables = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith(("#", "0")))
    assert variables.keys() == {"PATH", "D7_BASE_URL"}
    assert "%" not in job  # cron takes it for a newline
    environment = {name: house.environment[name] for name in ("HOME", "PATH", "D7_BASE_URL", "WITNESSED")}
    environment["D7AGENT_SOCK"] = str(house.live.socket)
    done = house.run("env", "-i", *(f"{name}={value}" for name, value in environment.items()), "/bin/sh", "-c", job)
    assert (done.returncode, done.stderr, json.loads(done.stdout)) == (0, "", {"balance": 99.99})
    assert shlex.split(house.witnessed.read_text())[:3] == ["-fsS", "-H", "@-"]


def test_every_example_is_tested() -> None:
    """A new file in scripts/examples gets its test: here, or in a module that names its folder."""
    others = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    elsewhere = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name in others} - {"migrate"}
    paths = (path.relative_to(EXAMPLES) for path in EXAMPLES.rglob("*") if path.is_file())
    files = {path.as_posix() for path in paths if path.parts[0] not in elsewhere | {"__pycache__"}}
    tested = {*SHORT, "README.md", "ruff.toml"}
    tested |= {f"migrate/{name}/{when}.py" for name in ARGUMENTS for when in ("before", "after")}
    tested |= {f"migrate/apprise/{when}.sh" for when in ("before", "after")}
    tested |= {f"migrate/cron/{when}.crontab" for when in ("before", "after")}
    assert files == tested
