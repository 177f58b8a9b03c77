"""The host's agent under a real systemd as process 1: its own user, credentials, who may ask, restarts, hardening."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from d7agent.sandbox import Sandbox, Settings
from tests.support.systemd_session import COMMAND, OTHER, OWNER, SystemManager

CLIENT_ID, SECRET = "sandbox-id", "sandbox-secret"
CONFIG = "/etc/d7agent/config.toml"
STATE = "/var/lib/d7agent"
SOCKET = "/run/d7agent/agent.sock"
DENIED = 8  # exit status of a client that may not ask


class Host(SystemManager):
    """The host at work."""

    def shown(self, name: str, unit: str = "d7agent.service") -> str:
        """A property of a unit."""
        return self.out("systemctl", "show", "-P", name, unit)

    def status(self) -> dict[str, Any]:
        """GetStatus, as root."""
        return dict(json.loads(self.out("d7agent", "status", "--json")))

    def profile(self, url: str, *lines: str) -> None:
        """The default profile, with the service's credentials."""
        text = "".join(f"{line}\n" for line in (f'base_url = "{url}"', 'store = "directory:%d"', *lines))
        self.write("/etc/d7agent/profiles/default.toml", text)

    def drop_in(self, text: str) -> None:
        """Change the service, as `systemctl edit` does."""
        self.write("/etc/systemd/system/d7agent.service.d/test.conf", f"[Service]\n{text}")
        self.out("systemctl", "daemon-reload")

    def access(self, text: str) -> None:
        """Let these in, and reload."""
        self.write(CONFIG, f"[access]\n{text}\n")
        self.out("systemctl", "reload", "d7agent.service")


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(Settings(lifetime=600)) as sandbox:
        yield sandbox


@pytest.fixture
def host(box: Sandbox) -> Iterator[Host]:
    """Installed, the credential in the credential store, nothing started yet."""
    with Host() as manager:
        manager.write("/etc/credstore/d7agent.client_id", CLIENT_ID, mode="600")
        manager.write("/etc/credstore/d7agent.client_secret", SECRET, mode="600")
        manager.out("d7agent", "service", "install", "--system")
        manager.profile(box.url)
        yield manager


def test_the_first_token_starts_the_service_of_its_own_user(host: Host, box: Sandbox) -> None:
    """The socket starts the agent as d7agent; folders have their modes; the remembered token lies 0600 in its state."""
    assert host.shown("ActiveState") == "inactive"
    token = host.out("d7agent", "token")
    assert host.shown("ActiveState") == "active"
    assert host.out("ps", "-o", "user=", "-p", host.shown("MainPID")) == "d7agent"
    modes = host.out(
        "stat", "--format=%a %U %n", SOCKET, "/run/d7agent", "/etc/d7agent", STATE, f"{STATE}/default.token"
    )
    assert modes.splitlines() == [
        f"666 d7agent {SOCKET}",
        "755 d7agent /run/d7agent",
        "755 root /etc/d7agent",
        f"700 d7agent {STATE}",
        f"600 d7agent {STATE}/default.token",
    ]
    host.out("systemctl", "restart", "d7agent.service")
    assert host.out("d7agent", "token") == token
    assert box.stats.logins == 1


def test_killed_it_comes_back_with_the_same_token(host: Host, box: Sandbox) -> None:
    """SIGKILL, and D7 gone: who asks next gets the same token from the next agent; no login was made."""
    token = host.out("d7agent", "token")
    box.stop()
    host.out("systemctl", "kill", "--signal=KILL", "d7agent.service")
    assert host.out("d7agent", "token") == token
    assert host.shown("NRestarts") == "1"
    assert host.status()["profiles"][0]["logins_hour"] == 1


def test_the_watchdog_restarts_a_stopped_agent(host: Host, box: Sandbox) -> None:
    """An agent that turns no more is ended and started anew, and serves the same token."""
    token = host.out("d7agent", "token")
    host.drop_in("WatchdogSec=2s\nRestartSec=100ms\n")
    host.out("systemctl", "restart", "d7agent.service")
    host.out("systemctl", "kill", "--signal=STOP", "d7agent.service")
    assert host.out("d7agent", "token") == token
    assert host.shown("NRestarts") == "1"
    assert box.stats.logins == 1


def test_a_user_is_refused_then_served_then_refused_again(host: Host, box: Sandbox) -> None:
    """[access] decides from reload to reload; refusals have a hint, are counted, and logged once a minute."""
    served = host.out("d7agent", "token")
    for _ in range(3):
        done = host.run("d7agent", "token", user=OTHER)
        assert (done.returncode, done.stdout) == (DENIED, "")
        assert f'users = ["{OTHER}"]' in done.stderr
    assert sum("denied:" in line for line in host.journal().splitlines()) == 1
    denied = {caller["uid"]: caller.get("denied") for caller in host.status()["agent"]["callers"]}
    assert denied[61712] == 3

    host.access(f'users = ["{OTHER}"]')
    assert host.out("d7agent", "token", user=OTHER) == served
    assert host.run("d7agent", "token", user=OWNER).returncode == DENIED
    for argv in (["reload"], ["stop"], ["renew"], ["login", "--from-env"], ["lock", "--stdin"]):
        done = host.run("d7agent", *argv, user=OTHER, text="x\n", env={"D7_API_TOKEN": "x.y.z"})
        assert (argv, done.returncode) == (argv, DENIED)

    host.access("users = []")
    assert host.run("d7agent", "token", user=OTHER).returncode == DENIED
    assert box.stats.logins == 1


def test_groups_and_units_are_let_in(host: Host) -> None:
    """A member of a named group is served; so is a named system service, whoever runs it, and only in that service."""
    assert host.run("d7agent", "token", user=OWNER).returncode == DENIED
    host.access(f'groups = ["{OWNER}"]\nunits = ["asker.service"]')
    assert host.out("d7agent", "token", user=OWNER)
    ask = ("systemd-run", "--quiet", "--wait", "--pipe", f"--uid={OTHER}")
    assert host.out(*ask, "--unit=asker", COMMAND, "token")
    assert host.run(*ask, "--unit=another", COMMAND, "token").returncode == DENIED
    assert host.run("d7agent", "token", user=OTHER).returncode == DENIED
    assert "asker.service" in {caller.get("unit") for caller in host.status()["agent"]["callers"]}


def test_reload_fails_when_the_configuration_is_faulty(host: Host) -> None:
    """A faulty file, or a user that does not exist: `systemctl reload` fails, the service runs on and says why."""
    token = host.out("d7agent", "token")
    host.write(CONFIG, "[acess]\n")
    assert host.run("systemctl", "reload", "d7agent.service").returncode != 0
    assert "acess" in host.shown("StatusText")
    host.write(CONFIG, '[access]\nusers = ["nobody-by-this-name"]\n')
    assert host.run("systemctl", "reload", "d7agent.service").returncode != 0
    assert "nobody-by-this-name" in host.shown("StatusText")
    assert host.out("d7agent", "token") == token
    host.access("users = []")
    assert host.shown("StatusText").startswith("default: fresh, next refresh 2")


def test_encrypted_credentials(host: Host, box: Sandbox) -> None:
    """With LoadCredentialEncrypted= no file holds the secret in the clear, and the agent logs in all the same."""
    for name, value in (("client_id", CLIENT_ID), ("client_secret", SECRET)):
        host.out("rm", f"/etc/credstore/d7agent.{name}")
        host.out("mkdir", "-p", "/etc/credstore.encrypted")
        path = f"/etc/credstore.encrypted/d7agent.{name}"
        host.out("systemd-creds", "encrypt", "--with-key=host", f"--name={name}", "-", path, text=value)
        assert SECRET not in host.out("cat", path)
    names = ("client_id", "client_secret")
    host.drop_in("".join(f"LoadCredentialEncrypted={name}:d7agent.{name}\n" for name in names))
    assert host.out("d7agent", "token")
    assert box.stats.logins == 1


def test_login_over_tls_under_hardening(host: Host) -> None:
    """In the hardened unit: a login over TLS by host name, the credential in a folder of the agent's own.

    Profile, credential and token lie in /var/lib/d7agent, and nothing in the journal is a secret.
    """
    with Sandbox(Settings(lifetime=600, tls=True)) as box:
        assert box.ca_file
        host.write("/etc/d7agent/ca.pem", box.ca_file.read_text())
        host.drop_in(
            f"Environment=SSL_CERT_FILE=/etc/d7agent/ca.pem\nExecStart=\nExecStart={COMMAND} run --system -v\n"
        )
        url = box.url.replace("127.0.0.1", "localhost")
        store = f"directory:{STATE}/prod"
        host.out(
            *("d7agent", "login", "prod", "--stdin", "--base-url", url, "--store", store),
            text=f"{CLIENT_ID}\n{SECRET}\n",
        )
        token = host.out("d7agent", "token", "-p", "prod")
        assert box.stats.logins == 1
    kept = host.out("find", STATE, "-type", "f", "-printf", "%m %u %P\n").splitlines()
    assert {"600 d7agent profiles/prod.toml", "600 d7agent prod/client_secret", "600 d7agent prod.token"} <= set(kept)
    assert {line[:11] for line in kept} == {"600 d7agent"}
    raw = host.raw_journal()
    assert "is ready" in raw
    assert SECRET not in raw
    assert token not in raw


def test_without_a_keyring_it_says_so(host: Host) -> None:
    """The host's agent has no session bus: with the store `keyring` callers hear that at once, and what to choose."""
    host.out("mkdir", "-p", "-m", "700", "/nonexistent")  # some machines have it: a folder that is closed to the agent
    host.write("/etc/d7agent/profiles/default.toml", 'store = "keyring"\n')
    done = host.run("d7agent", "token")
    assert done.returncode == 9
    assert "--store directory:" in done.stderr


def test_figures_for_node_exporter(host: Host) -> None:
    """The timer's service, confined to one folder, puts there what a published parser takes for OpenMetrics."""
    host.out("d7agent", "token")
    folder = "/var/lib/prometheus/node-exporter"
    host.out("mkdir", "-p", folder)
    host.out("systemctl", "enable", "--now", "d7agent-metrics.timer")
    host.out("systemctl", "start", "d7agent-metrics.service")
    text = host.out("cat", f"{folder}/d7agent.prom", user=OTHER) + "\n"
    families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # published without types
    assert any(family.name.startswith("d7agent_") for family in families)


def test_sinks_and_hooks_in_the_hardened_unit(host: Host, box: Sandbox) -> None:
    """An always-fresh file in /run/d7agent appears and goes with the agent; a hook runs, and gets no token."""
    hook = ["/bin/sh", "-c", f"env >{STATE}/hooked.new && mv {STATE}/hooked.new {STATE}/hooked"]
    host.write(CONFIG, f"[hooks]\non_refreshed = {json.dumps(hook)}\n")
    host.profile(box.url, "[[sinks]]", 'path = "%t/d7agent/default.env"', 'mode = "0644"')
    token = host.out("d7agent", "token")
    assert f"D7_API_TOKEN={token}\n" in host.out("cat", "/run/d7agent/default.env", user=OTHER) + "\n"
    host.out("systemctl", "stop", "d7agent.service")
    assert host.run("test", "-e", "/run/d7agent/default.env").returncode == 1
    environment = host.out("cat", f"{STATE}/hooked")
    assert "D7AGENT_EVENT=" in environment
    assert token not in environment


def test_uninstall_leaves_what_people_wrote(host: Host) -> None:
    """`uninstall --system` ends the agent and takes the units away; configuration, credential, state and user stay."""
    host.out("d7agent", "token")
    assert "Removed /etc/systemd/system/d7agent.socket" in host.out("d7agent", "service", "uninstall", "--system")
    assert host.shown("LoadState") == "not-found"
    assert host.run("test", "-e", "/run/d7agent").returncode == 1
    host.out("test", "-e", f"{STATE}/default.token")
    host.out("test", "-e", "/etc/d7agent/profiles/default.toml")
    host.out("id", "d7agent")
    assert host.run("d7agent", "token").returncode == 3


def test_install_refuses_what_the_service_could_not_run(host: Host) -> None:
    """A command in a home folder is refused with the remedy; nobody but root may install."""
    host.out("ln", "-s", COMMAND, f"/home/{OWNER}/d7agent")
    done = host.run(f"/home/{OWNER}/d7agent", "service", "install", "--system")
    assert done.returncode == 1
    assert "python3 -m venv /opt/d7agent" in done.stderr
    done = host.run("d7agent", "service", "install", "--system", user=OWNER)
    assert (done.returncode, "sudo" in done.stderr) == (DENIED, True)


def test_a_user_of_a_real_session_installs_his_own(host: Host) -> None:
    """Beside the host's agent a user of logind's has his own; without lingering he is told what that means."""
    host.out("mkfifo", "--mode=666", "/run/there")
    session = "echo >/run/there; exec sleep infinity"
    host.out("systemd-run", "--property=PAMName=login", f"--uid={OWNER}", "sh", "-c", session)
    host.out("cat", "/run/there")  # PAM has opened the session, and logind has started its user manager
    said = host.out("d7agent", "service", "install", user=OWNER)
    assert "loginctl enable-linger" in said
    assert host.run("d7agent", "token", user=OWNER).returncode in (4, 9)
