"""The lock of a real agent: real helpers, real files, real users."""

import os
import shutil
import socket
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from d7agent.client.blocking import Agent, Locked, PermissionDenied
from d7agent.sandbox import Sandbox, Settings
from tests.support import d7client
from tests.support.another_user import UID, as_another
from tests.support.cli import is_two_lines
from tests.support.live import Live
from tests.support.peer import Peer
from tests.support.scene import Scene, is_fresh
from tests.support.staging import OwnPython, Staged

LIFETIME = 3  # seconds that a token lives; refreshed at half of it
SINK = '[[sinks]]\npath = "%t/default.env"\nformat = "env"\n'

pytestmark = pytest.mark.system


@pytest.fixture
def live() -> Iterator[Live]:
    with Live() as home:
        home.start()
        yield home


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(Settings(lifetime=LIFETIME)) as sandbox:
        yield sandbox


def log_in(live: Live, box: Sandbox) -> Path:
    """The folder of a credential that was stored, with an always-fresh file beside it."""
    folder = live.root / "cred"
    live.login(box.url, "--store", f"directory:{folder}")
    profile = live.config / "profiles" / "default.toml"
    profile.write_text(profile.read_text() + SINK)
    live.run("reload", check=True)
    Scene(live).wait("default", lambda found: is_fresh(found) and found["sinks"] and found["sinks"][0]["ok"])
    return folder


def test_nothing_of_the_token_is_left_and_none_comes(live: Live, box: Sandbox) -> None:
    """Streams end, sink and remembered token are gone, and over two ends of a token's life nobody logs in."""
    folder = log_in(live, box)
    sink = live.runtime / "default.env"
    assert sink.exists()
    assert (folder / ".default.token").exists()
    with Agent(str(live.socket)) as agent:
        stream = agent.stream()
        token = next(stream)["access_token"]
        done = live.run("lock", "--stdin", text="open sesame\n", check=True)
        logins = box.stats.logins
        with pytest.raises(Locked):
            deque(stream, maxlen=0)  # one more may have been on its way
        assert not sink.exists()
        assert not (folder / ".default.token").exists()
        assert "not kept over a restart" in done.stdout
        time.sleep(2 * LIFETIME)  # real time: D7's tokens run out by it, and what must not happen has no event
        assert box.stats.logins == logins
        assert agent.status()["profiles"][0]["state"] == "locked"
        with pytest.raises(Locked):
            agent.reject(token)
    live.run("unlock", "--stdin", text="open sesame\n", check=True)
    assert d7client.balance(box, live.run("token", check=True).stdout.strip()).status == 200
    assert box.stats.logins == logins + 1


def test_the_lock_is_not_kept_over_a_restart(live: Live, box: Sandbox) -> None:
    """As `lock` says: a new agent serves, after a login of its own, for the remembered token is gone."""
    log_in(live, box)
    live.run("lock", "--stdin", text="open sesame\n", check=True)
    logins = box.stats.logins
    live.stop()
    live.start()
    assert live.run("token").returncode == 0
    assert box.stats.logins > logins
    unlocking = live.run("unlock", "--stdin", text="open sesame\n")
    assert (unlocking.returncode, "not locked" in unlocking.stderr) == (8, True)


@pytest.mark.parametrize(
    ("script", "words"),
    [("kill -9 $$", "was ended by signal 9"), ("exit 3", "ended with status 3"), ("echo rubbish", "proper answer")],
)
def test_a_helper_that_fails_changes_nothing(tmp_path: Path, script: str, words: str) -> None:
    """`lock`: exit 6, two lines, the token is served on. `unlock`: exit 6, still locked, and no delay for it."""
    python = OwnPython(tmp_path / "venv")
    with Sandbox(Settings(lifetime=600)) as box, Staged(command=python.command) as live:
        live.start()
        folder = log_in(live, box)
        token = live.run("token", check=True).stdout
        python.wrap(script)
        failed = live.run("lock", "--stdin", text="open sesame\n")
        assert (failed.returncode, failed.stdout, words in failed.stderr) == (6, "", True)
        assert is_two_lines(failed.stderr)
        assert live.run("token", check=True).stdout == token
        assert (folder / ".default.token").exists()
        python.restore()
        live.run("lock", "--stdin", text="open sesame\n", check=True)
        python.wrap(script)
        failed = live.run("unlock", "--stdin", text="open sesame\n")
        assert (failed.returncode, failed.stdout, words in failed.stderr) == (6, "", True)
        assert live.run("token").returncode == 7
        python.restore()
        live.run("unlock", "--stdin", text="open sesame\n", check=True)
        assert live.run("token").returncode == 0
        assert "wrong passphrase" not in live.journal()
        assert "open sesame" not in live.journal()


def test_tries_of_programs_that_left_are_not_looked_at(live: Live) -> None:
    """Three guesses wait behind three wrong ones, and their programs end: the right one does not wait for them."""
    live.run("lock", "--stdin", text="open sesame\n", check=True)
    with Agent(str(live.socket)) as agent:
        for _ in range(3):  # the next is looked at 4 s later
            with pytest.raises(PermissionDenied, match="wrong passphrase"):
                agent.call("Unlock", {"passphrase": "wrong"})
        guesses = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for guess in guesses:
            guess.connect(str(live.socket))
            guess.sendall(b'{"method":"io.d7agent.Unlock","parameters":{"passphrase":"guess"}}\0')
    with Agent(str(live.socket)) as agent:
        assert agent.status()["agent"]["connections"] >= 4  # the guesses came before this one, so they have been read
    for guess in guesses:
        guess.close()
    live.run("unlock", "--stdin", text="open sesame\n", check=True)
    assert live.journal().count("a wrong passphrase") == 3


@pytest.fixture
def somebodys() -> Iterator[Live]:
    """An agent of another user, who has no right but his own."""
    with Staged(prefix=as_another()) as live:
        for folder in (live.root, live.home, live.runtime):
            os.chown(folder, UID, UID)
        before = os.umask(0)  # he has to tell us that he is ready
        try:
            live.start()
        finally:
            os.umask(before)
        yield live
        live.kill()
        shutil.rmtree(live.runtime / "d7agent", ignore_errors=True)


def test_wrong_tries_of_the_owner_do_not_delay_root(somebodys: Live) -> None:
    """While the owner's fourth try waits for 4 s, status is shown to him, and root's passphrase opens at once."""
    path = str(somebodys.socket)
    with Peer(path, as_another()) as owner, Peer(path, as_another()) as looking, Peer(path) as root:
        assert owner.call("Lock", {"passphrase": "sesame"}) == {"parameters": {}}
        for _ in range(3):
            assert "wrong" in owner.call("Unlock", {"passphrase": "guess"})["parameters"]["message"]
        owner.ask("Unlock", {"passphrase": "guess"})
        assert looking.call("GetStatus")["parameters"]["agent"]["locked"]
        assert root.call("Unlock", {"passphrase": "sesame"}) == {"parameters": {}}
        assert owner.answer()["parameters"]["message"] == "the agent is not locked"
        assert owner.call("Lock", {"passphrase": "other"}) == {"parameters": {}}
        assert "wrong" in root.call("Unlock", {"passphrase": "guess"})["parameters"]["message"]
        assert owner.call("Unlock", {"passphrase": "other"}) == {"parameters": {}}
