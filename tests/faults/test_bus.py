"""The table of faults: a session bus that is not there, not for us, or has no keyring on it; backends that are none."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from d7agent.sandbox import Sandbox, Settings
from tests.support.agents import is_root
from tests.support.keyring_session import KeyringSession
from tests.support.live import Live
from tests.support.scene import Profile, Scene, is_fresh
from tests.support.staging import OwnPython, Staged

SECRET_SERVICE = "keyring:keyring.backends.SecretService.Keyring"
STORE = 9  # exit status
NOBODY = 65534
# Helpers as a root that files of others are closed to, as they are to everybody else.
NO_OVERRIDE = 'exec setpriv --bounding-set=-dac_override,-dac_read_search "$@"'


def dead(folder: Path) -> str:
    """A socket that nobody listens on."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(folder / "bus"))
    return f"unix:path={folder}/bus"


def closed(folder: Path) -> str:
    """One that listens, in a folder of somebody else."""
    (folder / "closed").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(folder / "closed/bus"))
    os.chown(folder / "closed", NOBODY, NOBODY) if is_root() else (folder / "closed").chmod(0)
    return f"unix:path={folder}/closed/bus"


class Row(NamedTuple):
    """The bus's address (None: the variable is not set), and words of what the caller reads."""

    address: Callable[[Path], str] | None
    words: tuple[str, ...]


NO_BUS = ("there is no session bus", "directory:PATH")
BUSES = {
    "unset": Row(None, NO_BUS),
    "rubbish": Row(lambda _: "nonsense", NO_BUS),
    "dead": Row(dead, NO_BUS),
    "another user's": Row(closed, ("the session bus belongs to another user", "directory:PATH")),
}


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(Settings(lifetime=600)) as sandbox:
        yield sandbox


def in_trouble(profile: Profile) -> bool:
    return "last_error" in profile


def check(scene: Scene, box: Sandbox, name: str, words: tuple[str, ...]) -> None:
    """The caller is told so, without a login; with another store the profile is served at once, by one login."""
    scene.wait(name, in_trouble)
    done = scene.ask(name, "--max-wait", "20")
    assert (done.returncode, done.stderr.count("\n")) == (STORE, 2), done.stderr
    assert [word for word in words if word not in done.stderr] == [], done.stderr
    assert box.stats.logins == 0
    scene.configure(name, box.url, f"directory:{scene.credential(name)}")
    scene.wait(name, is_fresh)
    assert box.stats.logins == 1
    scene.nothing_lost()


@pytest.mark.parametrize("bus", BUSES)
def test_no_bus(box: Sandbox, tmp_path: Path, bus: str) -> None:
    """Without a session bus the caller is told what is wrong with it (exit 9), and what to do without one."""
    row = BUSES[bus]
    python = OwnPython(tmp_path / "double")
    with Staged(command=python.command) as live:
        if row.address:
            live.environment["DBUS_SESSION_BUS_ADDRESS"] = row.address(live.root)
        live.start()
        python.wrap(NO_OVERRIDE if is_root() else 'exec "$@"')
        scene = Scene(live)
        scene.configure("default", box.url, SECRET_SERVICE)
        scene.wait("default", in_trouble)
        python.restore()  # the next store's files belong to the test
        check(scene, box, "default", row.words)


@pytest.mark.parametrize("activation", [False, True], ids=["no-daemon", "never-made"])
def test_no_keyring_on_the_bus(box: Sandbox, activation: bool) -> None:
    """A bus without a keyring, or whose keyring was never made and nobody is there to make one: told, not prompted."""
    with (
        KeyringSession(activation=activation, keyring=False) as session,
        Live(DBUS_SESSION_BUS_ADDRESS=session.address) as live,
    ):
        live.start()
        scene = Scene(live)
        scene.configure("default", box.url, SECRET_SERVICE)
        if activation:  # an empty store: the first `login` makes it
            scene.wait("default", in_trouble)
            done = scene.ask("default")
            assert (done.returncode, "d7agent login" in done.stderr) == (4, True), done.stderr
            assert box.stats.logins == 0
        else:
            check(scene, box, "default", ("the keyring is not there",))


BACKENDS = {
    "module": "nowhere.Keyring",
    "class": "keyring.backends.SecretService.Nothing",
    "function": "os.path.join",
    "other-class": "collections.OrderedDict",
}


@pytest.mark.parametrize("kind", BACKENDS)
def test_no_such_backend(box: Sandbox, kind: str) -> None:
    """A backend that is none is told by its name (exit 9), and never called."""
    with Live() as live:
        live.start()
        scene = Scene(live)
        scene.configure("default", box.url, f"keyring:{BACKENDS[kind]}")
        check(scene, box, "default", (BACKENDS[kind], "d7agent login --store keyring"))
