"""The table of faults, the keyring's part: a real gnome-keyring on a private bus, a real agent, real helpers.

The rows wait for the agent's own next look (5 s), so each test runs all of its rows at once.
"""

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from d7agent.sandbox import Sandbox, Settings
from tests.support import d7client
from tests.support.bus_services import silent_prompter
from tests.support.keyring_session import KeyringSession
from tests.support.live import Live
from tests.support.scene import Profile, Scene, is_fresh
from tests.support.staging import helpers_of

KEYRING = "keyring:keyring.backends.SecretService.Keyring"
CREDENTIAL = b'{"client_id":"sandbox-id","client_secret":"sandbox-secret"}'
NO_CREDENTIAL, STORE = 4, 9  # exit statuses

Act = Callable[[KeyringSession], object]


class Row(NamedTuple):
    """What happens to the keyring, the exit status and words of `token`, and what sets it right again."""

    name: str
    fault: Act
    exit: int
    words: tuple[str, ...]
    mend: Act
    activation: bool = False


def restore(session: KeyringSession) -> None:
    session.put("default", CREDENTIAL)


def start_again(session: KeyringSession) -> None:
    session.start_daemon()
    restore(session)


ROWS = (
    Row("locked", KeyringSession.lock, STORE, ("the keyring is locked", "unlock your keyring"), KeyringSession.unlock),
    Row("killed", KeyringSession.kill_daemon, STORE, ("the keyring is not there",), start_again),
    Row("killed, started by the bus", KeyringSession.kill_daemon, STORE, ("is locked",), KeyringSession.unlock, True),
    Row("deleted by hand", lambda s: s.clear("default"), NO_CREDENTIAL, ("no credential", "d7agent login"), restore),
    Row("rubbish", lambda s: s.put("default", b"\xff{"), NO_CREDENTIAL, ("not what d7agent wrote",), restore),
    Row("stopped", lambda s: os.kill(s.daemon_pid(), signal.SIGSTOP), STORE, ("did not answer within 15 s",), restore),
)


@contextlib.contextmanager
def stage(session: KeyringSession, box: Sandbox, address: str | None = None) -> Iterator[Scene]:
    """A keyring with the sandbox's credential, and an agent that has not heard of it yet."""
    with Live(DBUS_SESSION_BUS_ADDRESS=address or session.address) as live:
        live.start()
        yield Scene(live)


def in_trouble(profile: Profile) -> bool:
    return "last_error" in profile


def check(scene: Scene, code: int, words: tuple[str, ...]) -> None:
    done = scene.ask("default", "--max-wait", "20")
    assert done.returncode == code, done.stderr
    assert [word for word in words if word not in done.stderr] == [], done.stderr


def play(row: Row) -> None:
    """A profile without a token meets the fault; once that is mended, the agent logs in, once, by itself."""
    with KeyringSession(activation=row.activation) as session, Sandbox(Settings(lifetime=600)) as box:
        restore(session)
        with stage(session, box) as scene:
            stopped = session.daemon_pid()  # a stopped daemon cannot be asked for
            row.fault(session)
            scene.configure("default", box.url, KEYRING)
            scene.wait("default", in_trouble)
            check(scene, row.exit, row.words)
            assert box.stats.logins == 0
            os.kill(stopped, signal.SIGCONT) if row.name == "stopped" else row.mend(session)
            if row.exit == NO_CREDENTIAL:  # an empty store is no fault: it is asked again when someone wants a token
                assert scene.live.run("renew").returncode == 0
            scene.wait("default", is_fresh)
            assert box.stats.logins == 1


def test_keyring_faults(subtests: pytest.Subtests) -> None:
    """The caller is told what is wrong with the keyring, nobody is prompted, and mending it is enough."""
    with ThreadPoolExecutor(len(ROWS)) as pool:
        played = {row.name: pool.submit(play, row) for row in ROWS}
        for name, result in played.items():
            with subtests.test(fault=name):
                result.result()


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(Settings(lifetime=600)) as sandbox:
        yield sandbox


@pytest.fixture
def session() -> Iterator[KeyringSession]:
    with KeyringSession() as running:
        restore(running)
        yield running


def test_no_bus(session: KeyringSession, box: Sandbox) -> None:
    """Without a session bus callers are told so (exit 9), with the remedy; a profile with another store is served."""
    with stage(session, box, address="unix:path=/nonexistent/bus") as scene:
        scene.configure("default", box.url, KEYRING)
        scene.wait("default", in_trouble)
        check(scene, STORE, ("there is no session bus", "directory:PATH"))
        scene.add("other", box.url)
        scene.wait("other", is_fresh)
        assert box.stats.logins == 1


def test_keyring_locked_with_a_token_in_hand(session: KeyringSession, box: Sandbox) -> None:
    """A token in hand is served on while the keyring is locked; a login that needs the keyring says what is wrong."""
    with stage(session, box) as scene:
        scene.configure("default", box.url, KEYRING)
        scene.wait("default", is_fresh)
        session.lock()
        done = scene.live.run("login", "--stdin", text="sandbox-id\nsandbox-secret\n")
        assert (done.returncode, "locked" in done.stderr) == (STORE, True)
        with scene.agent() as agent:
            assert d7client.balance(box, agent.token()).status == 200
        session.unlock()
        assert scene.live.run("login", "--stdin", text="sandbox-id\nsandbox-secret\n").returncode == 0


def test_a_prompt_that_nobody_answers(session: KeyringSession, box: Sandbox) -> None:
    """Only `renew` and `login` may prompt; while the prompt stands others are served, and a shutdown ends it."""
    with stage(session, box) as scene, silent_prompter(session.address) as prompter:
        scene.add("other", box.url)
        scene.wait("other", is_fresh)
        session.lock()
        scene.configure("default", box.url, KEYRING)
        scene.wait("default", in_trouble)
        check(scene, STORE, ("the keyring is locked",))
        assert not prompter.asked.is_set()
        done = scene.live.run("renew", "--max-wait", "1")
        assert (done.returncode, "locked" in done.stderr) == (STORE, True), done.stderr
        assert prompter.asked.wait(10)
        assert scene.ask("other").returncode == 0
        (helper,) = helpers_of(scene.live.pid)
        pidfd = os.pidfd_open(helper)
        assert scene.live.stop() == 0
        assert select.select([pidfd], [], [], 10)[0], "the helper outlives its agent"
        os.close(pidfd)
        assert box.stats.logins == 1
