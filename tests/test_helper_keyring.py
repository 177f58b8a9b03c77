import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from d7agent.core.jobs import Done, Failed, Forget, Granted, Job, Keep, Login, Nothing, Recall, Reply
from d7agent.helper.session import Limits
from d7agent.sandbox import DEFAULT_SECRET, Sandbox
from tests.support.bus_services import silent_prompter, wallet
from tests.support.helper import NOW, finish_job, run_job, target
from tests.support.keyring_session import KeyringSession

REAL = "keyring.backends.SecretService.Keyring"
PINNED = f"keyring:{REAL}"
PAIR = b'{"client_id":"sandbox-id","client_secret":"sandbox-secret"}'
SHORT = Limits(store=1.0, prompt=1.0)
KEEP = Keep(target("keyring"), NOW, verify=False)
PLAIN = "keyring:keyring.backends.null.Keyring"


@pytest.fixture(scope="module")
def shared() -> Iterator[KeyringSession]:
    """One bus and one keyring for all tests that leave them as they were."""
    with KeyringSession() as running:
        yield running


@pytest.fixture
def session(shared: KeyringSession) -> Iterator[KeyringSession]:
    """The shared keyring, unlocked, with the sandbox's credential in it and no token."""
    shared.clear("work#token")
    shared.put("work", PAIR)
    yield shared
    shared.unlock()


def failed(reply: Reply, reason: str) -> Failed:
    """The same, known to have failed for this reason, and to say what to do."""
    assert isinstance(reply, Failed)
    assert reply.reason == reason, reply
    assert reply.message
    assert reply.hint
    assert not reply.permanent
    return reply


def recall(session: KeyringSession, store: str = PINNED, **env: str) -> Reply:
    """What a restarted agent asks first."""
    return run_job(Recall(target(store), NOW), env=session.env | env)


def test_login_pins_the_backend_it_used(session: KeyringSession) -> None:
    """`keyring` alone chooses the Secret Service, and the reply names it for the profile."""
    assert run_job(KEEP, PAIR, session.env) == Done(backend=PINNED)
    assert recall(session) == Nothing(credential=True)


def test_keyrings_own_choice_is_not_asked(session: KeyringSession) -> None:
    """Neither the variable nor keyringrc.cfg moves the credential elsewhere."""
    rc = session.root / ".config/python_keyring/keyringrc.cfg"
    rc.parent.mkdir(parents=True)
    rc.write_text("[backend]\ndefault-keyring=keyring.backends.null.Keyring\n")
    env = {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring"}
    assert run_job(KEEP, PAIR, session.env | env) == Done(backend=PINNED)
    assert recall(session, "keyring", **env) == Nothing(credential=True)


def test_a_backend_that_keeps_nothing_has_to_be_named(session: KeyringSession) -> None:
    """null is used where the profile names it, and only there."""
    assert recall(session, PLAIN) == Nothing(credential=False)


def test_a_token_is_remembered_beside_the_credential(session: KeyringSession) -> None:
    """A login leaves a second item, a restart recalls it, and forgetting takes both."""
    with Sandbox() as box:
        where = target(PINNED, base_url=box.url)
        first = run_job(Login(where, NOW), env=session.env)
    assert isinstance(first, Granted)
    assert first.remembered
    again = run_job(Recall(where, NOW), env=session.env)
    assert isinstance(again, Granted)
    assert again.recalled
    assert again.access_token == first.access_token
    assert run_job(Forget(where), env=session.env) == Done()
    assert run_job(Recall(where, NOW), env=session.env) == Nothing(credential=False)


def test_locked_and_headless(session: KeyringSession) -> None:
    """No prompt can be shown: locked at once, asked with a prompt or without."""
    session.lock()
    for prompt in (False, True):
        failed(run_job(Login(target(PINNED), NOW, prompt=prompt), env=session.env, limits=SHORT), "store_locked")
    failed(run_job(KEEP, PAIR, session.env), "store_locked")
    failed(run_job(Forget(target(PINNED)), env=session.env), "store_locked")


def test_unlocked_later_is_noticed_without_a_prompt(session: KeyringSession) -> None:
    """The question that is repeated never prompts, and goes through once the desktop has unlocked the keyring."""
    with silent_prompter(session.address) as prompter:
        session.lock()
        failed(recall(session), "store_locked")
        failed(run_job(Login(target(PINNED), NOW), env=session.env, limits=SHORT), "store_locked")
        session.unlock()
        assert recall(session) == Nothing(credential=True)
        assert not prompter.asked.is_set()


def test_a_prompt_that_nobody_answers(session: KeyringSession) -> None:
    """Where a person is asked and does not come, the limit ends it, and the helper is gone."""
    with silent_prompter(session.address) as prompter:
        session.lock()
        done = finish_job(Login(target(PINNED), NOW, prompt=True), env=session.env, limits=Limits(prompt=0.8))
        assert prompter.asked.wait(5)
    assert "0.8 s" in failed(done.reply, "store_locked").message
    assert done.seconds < 5


def test_a_stopped_daemon(session: KeyringSession) -> None:
    """A daemon that hangs is unreachable, not locked, even where a person is there to answer."""
    with session.stopped():
        for prompt in (False, True):
            job = Login(target(PINNED), NOW, prompt=prompt)
            reply = run_job(job, env=session.env, limits=Limits(store=0.5, prompt=20))
            assert "0.5 s" in failed(reply, "store_unreachable").message
    assert recall(session) == Nothing(credential=True)


@pytest.mark.parametrize(
    "text", [b"", b"rubbish", b"[1]", b'{"client_id": 1}', b'{"x": "y"}', b'{"client_id": "i"}', b"\xff\xfe"]
)
def test_an_item_edited_to_rubbish(session: KeyringSession, text: bytes) -> None:
    """Someone changed the item: it is told as such, with `d7agent login` as the way out."""
    session.put("work", text)
    reply = failed(recall(session), "store_missing")
    assert reply.missing
    assert "login" in reply.hint


def test_login_mends_rubbish(session: KeyringSession) -> None:
    """What cannot be read can be replaced."""
    session.put("work", b"rubbish")
    assert run_job(KEEP, PAIR, session.env) == Done(backend=PINNED)
    assert recall(session) == Nothing(credential=True)


def test_the_item_can_be_read_by_other_tools(session: KeyringSession) -> None:
    """secret-tool, which nobody here wrote, finds the credential under service and user."""
    if shutil.which("secret-tool") is None:
        pytest.skip("NOT TESTED: a second client of the keyring; install libsecret-tools")
    assert run_job(KEEP, PAIR, session.env) == Done(backend=PINNED)
    argv = ["secret-tool", "lookup", "service", "d7agent", "username", "work"]
    env = session.env | {"PATH": os.environ["PATH"]}
    assert subprocess.run(argv, env=env, check=True, capture_output=True, timeout=10).stdout == PAIR


def test_rubbish_in_the_tokens_item_is_no_token(session: KeyringSession) -> None:
    """The remembered token is a help: what cannot be read is none."""
    session.put("work#token", b"\xff rubbish")
    assert recall(session) == Nothing(credential=True)


def test_an_item_deleted_by_hand(session: KeyringSession) -> None:
    """The store works and holds no credential: missing, not unreachable."""
    session.clear("work")
    assert recall(session) == Nothing(credential=False)
    assert failed(run_job(Login(target(PINNED), NOW), env=session.env), "store_missing").missing


@pytest.mark.parametrize(
    "name",
    [
        "keyring.backends.Nowhere.Keyring",
        "keyring.backends.SecretService.Nothing",
        "nowhere.Keyring",
        "os.path.join",
        "collections.OrderedDict",
        "x",
    ],
)
def test_a_backend_that_is_none(session: KeyringSession, name: str) -> None:
    """A wrong name is told, and nothing that is no keyring is ever called."""
    assert name in failed(recall(session, f"keyring:{name}"), "store_unreachable").message or name == "x"


def test_a_plugin_that_prints_or_raises(session: KeyringSession, tmp_path: Path) -> None:
    """What a plugin prints spoils no reply and, like its exceptions' words, is not repeated: it may be the secret."""
    (tmp_path / "chatty.py").write_text(
        "from keyring.backend import KeyringBackend\n"
        "class Keyring(KeyringBackend):\n"
        "    priority = 1\n"
        "    def get_password(self, service, user):\n"
        "        print('tr0ub4dor')\n"
        "        import os, sys; os.write(1, b'tr0ub4dor'); os.system('echo tr0ub4dor >&2')\n"
        "        print('tr0ub4dor', end='', file=sys.stderr)\n"
        "        raise ValueError('tr0ub4dor')\n"
        "    def set_password(self, service, user, password):\n"
        "        print(password)\n"
        "        raise RuntimeError(password)\n"
    )
    env = session.env | {"PYTHONPATH": str(tmp_path)}
    done = finish_job(Recall(target("keyring:chatty.Keyring"), NOW), env=env)
    assert "ValueError" in failed(done.reply, "store_unreachable").message
    kept = finish_job(Keep(target("keyring:chatty.Keyring"), NOW, verify=False), PAIR, env)
    assert "RuntimeError" in failed(kept.reply, "store_unreachable").message
    for seen in (done, kept):
        assert "tr0ub4dor" not in f"{seen.reply} {seen.stderr}"
        assert DEFAULT_SECRET not in f"{seen.reply} {seen.stderr}"


def test_a_locked_kwallet(session: KeyringSession) -> None:
    """KWallet too is asked whether it is open before anything is done that would prompt."""
    store = "keyring:keyring.backends.kwallet.DBusKeyring"
    with wallet(session.address, is_open=False) as service:
        failed(recall(session, store), "store_locked")
        assert service.asked.is_set()
    with wallet(session.address, is_open=True):
        failed(recall(session, store), "store_unreachable")  # the reading itself needs python-dbus
    failed(recall(session, store), "store_unreachable")


def test_no_real_keyring_at_all(tmp_path: Path) -> None:
    """`keyring` alone with no bus to find one on names the remedy; it never falls back to files."""
    env = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    for job in (Recall(target("keyring"), NOW), Login(target("keyring"), NOW, prompt=True)):
        reply = failed(run_job(job, env=env), "store_unreachable")
        assert "directory:PATH" in reply.hint
    assert "store_unreachable" in str(run_job(KEEP, PAIR, env))
    assert list(tmp_path.iterdir()) == []


def broken_bus(tmp_path: Path, kind: str) -> dict[str, str]:
    """An environment whose session bus is broken in this way."""
    env = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    if kind == "unset":
        return env
    if kind == "dead":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "dead"))
    addresses = {"missing": "unix:path=/nonexistent/bus", "rubbish": "nonsense", "dead": f"unix:path={tmp_path}/dead"}
    return env | {"DBUS_SESSION_BUS_ADDRESS": addresses[kind]}


@pytest.mark.parametrize("kind", ["unset", "missing", "rubbish", "dead"])
def test_no_bus(tmp_path: Path, kind: str) -> None:
    """A bus that is not there is unreachable, whatever the libraries below make of it."""
    job: Job = Recall(target(PINNED), NOW)
    assert "bus" in failed(run_job(job, env=broken_bus(tmp_path, kind)), "store_unreachable").message


def test_the_users_own_bus_is_found(session: KeyringSession) -> None:
    """Without the variable, the bus in the runtime folder is taken, as systemd's own programs do."""
    env = {name: value for name, value in session.env.items() if name != "DBUS_SESSION_BUS_ADDRESS"}
    assert run_job(Recall(target(PINNED), NOW), env=env) == Nothing(credential=True)


def test_a_killed_daemon_without_activation() -> None:
    """Gone for good: unreachable; started again: served again."""
    with KeyringSession() as own:
        run_job(KEEP, PAIR, own.env)
        own.kill_daemon()
        failed(recall(own), "store_unreachable")
        failed(recall(own, "keyring"), "store_unreachable")
        own.start_daemon()
        assert recall(own) == Nothing(credential=True)


def test_a_killed_daemon_with_activation() -> None:
    """The bus starts another, which comes up locked; unlocking it is enough."""
    with KeyringSession(activation=True) as own:
        run_job(KEEP, PAIR, own.env)
        own.kill_daemon()
        failed(recall(own), "store_locked")
        own.unlock()
        assert recall(own) == Nothing(credential=True)


def test_no_keyring_was_ever_made() -> None:
    """Activatable and empty: reading finds nothing and does not prompt for a new one; a person at login may."""
    with KeyringSession(activation=True, keyring=False) as own, silent_prompter(own.address) as prompter:
        assert recall(own) == Nothing(credential=False)
        assert run_job(Forget(target(PINNED)), env=own.env) == Done()
        assert not prompter.asked.is_set()
        failed(run_job(KEEP, PAIR, own.env, Limits(prompt=0.8)), "store_locked")
        assert prompter.asked.wait(5)


def test_a_directory_job_never_loads_keyring(tmp_path: Path) -> None:
    """What a job does not touch it does not import: that is most of what a helper costs."""
    code = (
        "import sys, d7agent.helper.runner as r\n"
        "from d7agent.core.jobs import *\nfrom d7agent.core.model import *\nfrom d7agent.helper.session import Limits\n"
        f"t = Target('work', store='directory:{tmp_path}')\n"
        "r.perform(Recall(t, Stamp(0, 0)), b'', 0, Limits())\n"
        "print(*sys.modules)"
    )
    assert {"keyring", "secretstorage", "urllib3", "ssl", "subprocess"}.isdisjoint(loaded(code))


def test_a_locked_keyring_costs_no_keyring_import(session: KeyringSession) -> None:
    """The probe of a pinned keyring speaks to the Secret Service alone, since it is repeated for hours."""
    session.lock()
    code = (
        "import sys, d7agent.helper.runner as r\n"
        "from d7agent.core.jobs import *\nfrom d7agent.core.model import *\nfrom d7agent.helper.session import Limits\n"
        f"print(r.perform(Recall(Target('work', store='{PINNED}'), Stamp(0, 0)), b'', 0, Limits()).reason)\n"
        "print(*sys.modules)"
    )
    modules = loaded(code, session.env)
    assert "store_locked" in modules
    assert {"keyring", "urllib3"}.isdisjoint(modules)


def loaded(code: str, env: dict[str, str] | None = None) -> set[str]:
    """What a fresh interpreter prints after running this."""
    argv = [sys.executable, "-P", "-c", code]
    return set(subprocess.run(argv, env=env or {}, capture_output=True, check=True, timeout=20).stdout.decode().split())
