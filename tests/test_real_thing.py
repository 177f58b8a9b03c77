"""The real thing: TLS with its own CA, a real gnome-keyring, and clients that nobody here wrote."""

import json
import subprocess
import sys
from collections.abc import Iterator

import direct7
import pytest

from d7agent.client.blocking import Agent
from d7agent.sandbox import Sandbox, Settings
from tests.support.keyring_session import KeyringSession
from tests.support.live import Live

SECRET = "sandbox-secret"


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(Settings(lifetime=600, tls=True)) as sandbox:
        yield sandbox


@pytest.fixture
def session() -> Iterator[KeyringSession]:
    with KeyringSession() as running:
        yield running


@pytest.fixture
def live(box: Sandbox, session: KeyringSession) -> Iterator[Live]:
    with Live(DBUS_SESSION_BUS_ADDRESS=session.address, SSL_CERT_FILE=str(box.ca_file)) as home:
        yield home


def varlink(live: Live, method: str) -> str:
    """One call made by the published `varlink` package's own command line."""
    argv = [sys.executable, "-P", "-m", "varlink.cli", "call", f"unix:{live.socket}/{method}", "{}"]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout


def test_keyring_tls_varlink_and_the_sdk(
    live: Live, box: Sandbox, session: KeyringSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logged in over HTTPS into gnome-keyring, a token serves varlink's client and D7's SDK, and survives SIGKILL.

    With D7 down the remembered token is served; no secret is in any byte that was written.
    """
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(box.ca_file))
    live.start()
    live.login(box.url)
    token = json.loads(varlink(live, "io.d7agent.GetToken"))["token"]["access_token"]
    client = direct7.Client(api_token=token)
    client.host(box.url)
    client.sms.send_messages({"recipients": ["+971501234567"], "content": "hello"}, originator="d7agent")
    assert box.stats.sends == 1
    assert live.status()["profiles"][0]["store"] == "keyring:keyring.backends.SecretService.Keyring"

    live.kill()
    box.stop()
    live.start()
    assert live.run("token", check=True).stdout.strip() == token
    assert live.status()["profiles"][0]["remembered"]
    written = "".join(path.read_text(errors="replace") for path in live.root.rglob("*") if path.is_file())
    assert SECRET not in written
    assert token not in written


def test_the_credential_is_what_secret_tool_shows(live: Live, box: Sandbox, session: KeyringSession) -> None:
    """libsecret's own tool finds the credential under service d7agent and the profile's name."""
    live.start()
    live.login(box.url)
    argv = ["secret-tool", "lookup", "service", "d7agent", "username", "default"]
    found = subprocess.run(
        argv, env={"PATH": "/usr/bin:/bin", **session.env}, capture_output=True, text=True, check=True
    )
    assert json.loads(found.stdout) == {"client_id": "sandbox-id", "client_secret": SECRET}


def test_locked_keyring_is_noticed_when_it_is_unlocked(live: Live, box: Sandbox, session: KeyringSession) -> None:
    """With a locked keyring `token` exits 9 at once and prompts nobody; unlocking the desktop is enough."""
    live.start()
    live.login(box.url)
    live.kill()
    session.lock()
    live.start()
    done = live.run("token")
    assert (done.returncode, "locked" in done.stderr) == (9, True)
    with Agent(str(live.socket)) as agent:
        stream = agent.call("GetStatus", {}, more=True)
        assert next(stream)["profiles"][0]["last_error"]["reason"] == "store_locked"
        session.unlock()
        while next(stream)["profiles"][0]["state"] != "fresh":
            pass
    assert live.run("token").returncode == 0
