from pathlib import Path

import pytest

from d7agent.cli.doctor import reports
from d7agent.core.jobs import Failed, Look, Reach, Reached, Seen
from d7agent.sandbox import Sandbox, Settings
from tests.support.doctor import config, d7agent, folder, look, nearby
from tests.support.helper import run_job
from tests.support.keyring_session import KeyringSession

__all__ = ["config", "d7agent", "folder", "nearby"]  # fixtures

SECRET_SERVICE = "keyring.backends.SecretService.Keyring"


def test_the_keyring_is_looked_at_and_not_read() -> None:
    """Working, locked, and without its daemon: each is told apart, without a prompt."""
    with KeyringSession() as session:
        assert run_job(Look(), env=session.env) == Seen(SECRET_SERVICE, locked=False)
        session.lock()
        assert run_job(Look(SECRET_SERVICE), env=session.env) == Seen(SECRET_SERVICE, locked=True)
    reply = run_job(Look())
    assert isinstance(reply, Failed)
    assert reply.reason == "store_unreachable"


def test_a_backend_that_is_not_installed() -> None:
    """A class that a profile names and nobody has."""
    reply = run_job(Look("no.such.Backend"))
    assert isinstance(reply, Failed)
    assert "no.such.Backend" in reply.message


def test_keyrings_alt_is_seen(tmp_path: Path) -> None:
    """It is told of where it is installed, and not heeded even where keyring itself would choose it."""
    (tmp_path / "keyrings" / "alt").mkdir(parents=True)
    (tmp_path / "keyrings" / "alt" / "__init__.py").write_text("")
    with KeyringSession() as session:
        reply = run_job(Look(), env=session.env | {"PYTHONPATH": str(tmp_path)})
    assert reply == Seen(SECRET_SERVICE, locked=False, plain_files=True)
    assert [one.level for one in reports.keyring(Look(), reply)] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("reply", "level"),
    [
        (Seen(SECRET_SERVICE, locked=False), "ok"),
        (Seen(SECRET_SERVICE, locked=True), "error"),
        (Seen("keyrings.alt.file.PlaintextKeyring", locked=False), "warn"),
        (Seen("keyring.backends.null.Keyring", locked=False), "warn"),
        (Failed("store_unreachable", "no bus", "start one"), "error"),
    ],
)
def test_what_a_look_at_the_keyring_means(reply: Seen | Failed, level: str) -> None:
    """A backend that keeps plain files, or nothing, is used where it was named, and warned of."""
    assert [one.level for one in reports.keyring(Look(), reply)] == [level]


@pytest.mark.usefixtures("nearby")
def test_choices_that_are_not_heeded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PYTHON_KEYRING_BACKEND and keyringrc.cfg have no say here; whoever set them is told."""
    (folder / ".config" / "python_keyring").mkdir()
    (folder / ".config" / "python_keyring" / "keyringrc.cfg").write_text("")
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyrings.alt.file.PlaintextKeyring")
    found = [one.text for one in reports.check(look()) if one.id == "keyring-choice"]
    assert ["PYTHON_KEYRING_BACKEND" in found[0], "keyringrc.cfg" in found[1], len(found)] == [True, True, 2]


def test_the_way_to_d7_without_a_token() -> None:
    """D7's 401 proves name, route, TLS and proxy; no login is made."""
    with Sandbox(Settings()) as box:
        reply = run_job(Reach(box.url))
        assert isinstance(reply, Reached)
        assert (reply.status, reply.d7, reply.proxy) == (401, True, None)
        assert abs(reply.skew or 99) < 5
        assert (box.stats.logins, box.stats.balances) == (0, 1)
        assert [one.level for one in reports.way(Reach(box.url), reply)] == ["ok", "ok"]


def test_a_certificate_that_nobody_trusts() -> None:
    """The sandbox's own CA is not the system's; with SSL_CERT_FILE it is."""
    with Sandbox(Settings(tls=True)) as box:
        reply = run_job(Reach(box.url))
        assert isinstance(reply, Failed)
        assert reply.reason == "tls"
        trusted = run_job(Reach(box.url), env={"SSL_CERT_FILE": str(box.ca_file)})
        assert isinstance(trusted, Reached)
        assert trusted.d7


@pytest.mark.parametrize(
    ("reply", "levels"),
    [
        (Failed("dns", "no such name", "check it"), ["error"]),
        (Reached(200, d7=False), ["warn"]),
        (Reached(401, d7=True, skew=-3600.0), ["ok", "warn"]),
        (Reached(401, d7=True, skew=59.0, proxy="proxy:3128"), ["ok", "ok"]),
    ],
)
def test_what_the_answer_means(reply: Reached | Failed, levels: list[str]) -> None:
    """A page of a proxy is not D7; a clock that is a minute off is worth a word."""
    assert [one.level for one in reports.way(Reach("https://x"), reply)] == levels
