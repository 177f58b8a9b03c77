"""D7's own scripts, by a look-alike: what is lost today, the one-line change, and the failure that is then seen."""

import difflib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from d7agent.cli.scan import Hit, scan
from d7agent.client import blocking
from d7agent.sandbox import Sandbox, Settings
from tests.support.live import COMMAND
from tests.support.sources import ROOT
from tests.support.system_agent import SystemAgent

PYTHON = "/usr/bin/python3"
EXAMPLES = ROOT / "scripts" / "examples" / "notify_lookalike"
GATEWAY = "https://api.d7networks.com"
ACCESS = '[access]\nusers = ["nagios"]\n'

pytestmark = pytest.mark.system


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(Settings()) as sandbox:
        yield sandbox


@pytest.fixture
def host() -> Iterator[SystemAgent]:
    """The host's agent with a credential, for its owner and root alone as yet."""
    with SystemAgent() as system:
        yield system


class Script:
    """An administrator's copy of the script, which everybody may read and run."""

    def __init__(self, host: SystemAgent, box: Sandbox, token: str) -> None:
        self.host = host
        self.path = host.root / "notify.py"
        text = (EXAMPLES / "notify.py").read_text().replace(GATEWAY, box.url).replace('"D7_TOKEN"', f'"{token}"')
        self.path.write_text(text)
        self.path.chmod(0o755)

    def change(self, line: str) -> None:
        """The one-line change."""
        lines = self.path.read_text().splitlines()
        (at,) = [number for number, old in enumerate(lines) if old.startswith("D7TOKEN = ")]
        lines[at] = line
        self.path.write_text("\n".join(lines) + "\n")

    def send(self, user: str = "nagios") -> tuple[int, str]:
        """Run it as Nagios does; exit status and what it said."""
        done = self.host.run(PYTHON, str(self.path), "--to", "+971501234567", "--message", "host down", user=user)
        return done.returncode, done.stdout + done.stderr


def login(host: SystemAgent, box: Sandbox) -> None:
    host.start()
    store = "directory:/var/lib/d7agent/credential"
    done = host.d7agent(
        "login", "--stdin", "--base-url", box.url, "--store", store, text="sandbox-id\nsandbox-secret\n"
    )
    assert done.returncode == 0, done.stderr


def token(host: SystemAgent) -> str:
    done = host.d7agent("token")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def check(host: SystemAgent, *arguments: str) -> tuple[int, str]:
    done = host.d7agent("check", *arguments, user="nagios")
    assert done.stderr == ""
    return done.returncode, done.stdout


def suggested(script: Script) -> str:
    """The line that `doctor --scan` offers for the script."""
    (hit,) = scan((str(script.path),), COMMAND)
    assert isinstance(hit, Hit)
    return hit.replacement


def test_the_examples_differ_in_one_line() -> None:
    """The change that the README asks for is one line, and is the line that `doctor --scan` offers."""
    before, after = ((EXAMPLES / name).read_text().splitlines() for name in ("notify.py", "notify_d7agent.py"))
    changes = [line for line in difflib.ndiff(before, after) if line[:2] in ("- ", "+ ")]
    assert [line[:12] for line in changes] == ["- D7TOKEN = ", "+ D7TOKEN = "]
    assert 'check_output(["/usr/bin/d7agent", "token"], text=True).strip()' in changes[1]


def test_before_a_lost_alert_looks_delivered(host: SystemAgent, box: Sandbox) -> None:
    """The pasted token works until D7 refuses it; then nothing is sent and the script exits 0."""
    script = Script(host, box, box.settings.ready_token)
    assert script.send()[0] == 0
    assert len(box.messages) == 1
    box.revoke_all()
    status, said = script.send()
    assert (status, len(box.messages)) == (0, 1)
    assert "not sent: 401" in said


def test_after_the_change_the_alert_is_delivered(host: SystemAgent, box: Sandbox) -> None:
    """Refused and told why until [access] lets the user in; then served, and served the next token without an edit."""
    host.need_command("nagios")
    box.configure(lifetime=6)
    login(host, box)
    script = Script(host, box, box.settings.ready_token)
    script.change(suggested(script))

    status, said = script.send()
    assert (status != 0, box.messages) == (True, [])
    assert 'add users = ["nagios"] under [access]' in said
    assert check(host)[0] == 2

    host.configure(ACCESS)
    assert host.d7agent("reload").returncode == 0
    assert script.send()[0] == 0
    assert len(box.messages) == 1

    old = token(host)
    logins = box.stats.logins_ok
    box.wait_for(lambda stats: stats.logins_ok > logins, timeout=20)
    box.revoke(old)
    assert script.send()[0] == 0
    assert len(box.messages) == 2
    assert script.send(user="zabbix")[0] != 0
    assert old not in script.path.read_text() + said + host.log.read_text()


def test_with_the_agent_down_the_failure_is_seen(host: SystemAgent, box: Sandbox) -> None:
    """The script ends with an error in place of sending in vain, and the check is CRITICAL and says why."""
    host.need_command("nagios")
    host.configure(ACCESS)
    login(host, box)
    script = Script(host, box, box.settings.ready_token)
    script.change(suggested(script))
    assert script.send()[0] == 0
    status, line = check(host, "--live")
    assert (status, "balance 99.99" in line) == (0, True)

    host.stop()
    status, said = script.send()
    assert (status != 0, len(box.messages)) == (True, 1)
    assert "no agent answers" in said
    status, line = check(host)
    assert (status, line.startswith("D7AGENT CRITICAL - no agent answers at ")) == (2, True)

    host.start()
    assert script.send()[0] == 0
    assert (check(host)[0], len(box.messages)) == (0, 2)


def test_d7_that_refuses_for_good_is_seen_by_the_check(host: SystemAgent, box: Sandbox) -> None:
    """An application deleted in the control panel: CRITICAL, though the agent itself is well."""
    host.need_command("nagios")
    host.configure(ACCESS)
    login(host, box)
    assert check(host)[0] == 0
    box.revoke_all()
    status, line = check(host, "--live")
    assert (status, "D7 refuses the token" in line) == (2, True)
    box.configure(applications={"other": "other"})
    assert host.d7agent("reject", text=token(host)).returncode == 5
    status, line = check(host)
    assert (status, "D7 refuses the credential" in line, "|" in line) == (2, True, True)


def test_the_one_file_client_beside_the_script(host: SystemAgent, box: Sandbox) -> None:
    """Where d7agent itself cannot be run by the user, a copy of the one-file client asks; it, too, fails loudly."""
    host.configure(ACCESS)
    login(host, box)
    script = Script(host, box, "unused")
    shutil.copy(str(Path(blocking.__file__)), host.root / "d7agent_client.py")
    (host.root / "d7agent_client.py").chmod(0o644)
    script.change('D7TOKEN = __import__("d7agent_client").token()')
    assert script.send()[0] == 0
    assert len(box.messages) == 1
    assert "PermissionDenied" in script.send(user="zabbix")[1]
    host.stop()
    status, said = script.send()
    assert (status != 0, "NoAgent: no agent answers" in said, len(box.messages)) == (True, True, 1)
