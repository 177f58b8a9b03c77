"""The table of faults: disks that are full, read-only or broken, and what cannot be written to them."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from d7agent.sandbox import DEFAULT_ID, DEFAULT_SECRET, Sandbox, Settings
from tests.support.live import Live
from tests.support.scene import CREDENTIAL, Scene, is_fresh
from tests.support.staging import FULL, READ_ONLY, TMPFS, OwnPython, Staged, mounted

TYPED = "sandbox-id\nsandbox-secret\n"
USAGE, UNAVAILABLE, STORE = 2, 6, 9  # exit statuses
DISKS = {"full": (TMPFS, "No space left on device"), "read-only": (READ_ONLY, "Read-only file system")}
BOTH_DISKS = pytest.mark.parametrize("disk", DISKS)


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(Settings(lifetime=600)) as sandbox:
        yield sandbox


def on_disk(disk: str, folder: Callable[[Live], Path]) -> Staged:
    """A home in which this folder is on such a disk, as the agent sees it."""
    live = Staged()
    path = folder(live)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    live.prefix = mounted(DISKS[disk][0], path)
    return live


def fill(live: Staged, folder: Path) -> None:
    """Not a byte more fits (on a full disk)."""
    path = live.seen(folder) / "ballast"
    try:
        with path.open("wb", buffering=0) as ballast:
            while ballast.write(b"x" * 512):
                pass
    except OSError:
        return


def no_spare(live: Live) -> None:
    """Beside the socket no budget can be kept either."""
    live.socket.parent.mkdir(mode=0o700, exist_ok=True)
    (live.socket.parent / "state").write_text("no folder")


@BOTH_DISKS
def test_state_cannot_be_written(box: Sandbox, disk: str) -> None:
    """Callers are served; with the budget in memory alone there is one login in 2 min, and the journal says why."""
    with on_disk(disk, lambda live: live.state) as live:
        no_spare(live)
        live.start()
        fill(live, live.state)
        scene = Scene(live)
        scene.add("default", box.url)
        scene.wait("default", is_fresh)
        assert scene.works(box)
        done = live.run("login", "--stdin", text=TYPED)
        assert (done.returncode, "budget" in done.stderr) == (UNAVAILABLE, True), done.stderr
        assert box.stats.logins == 1
        assert DISKS[disk][1] in live.journal()
        assert scene.works(box)
        scene.nothing_lost()


@BOTH_DISKS
def test_restarts_while_state_cannot_be_written(box: Sandbox, disk: str) -> None:
    """The budget is kept beside the socket: a restart loop of five makes the two logins that it has, not five."""
    with on_disk(disk, lambda live: live.state) as live:
        live.prefix = mounted({"full": FULL, "read-only": READ_ONLY}[disk], live.state)
        scene = Scene(live)
        live.start()
        scene.add("default", box.url, logins_per_hour=2, remember_token=False)
        codes = []
        for _ in range(5):
            codes.append(scene.ask("default", "--max-wait", "10").returncode)
            live.kill()
            live.start()
        assert (codes, box.stats.logins) == ([0, 0, UNAVAILABLE, UNAVAILABLE, UNAVAILABLE], 2), live.journal()
        told = [line for line in live.journal().splitlines() if f"cannot be written to {live.state}" in line]
        assert DISKS[disk][1] in told[0]
        assert f"kept in {live.socket.parent}/state" in told[0]
        assert len(told) <= 5
        scene.nothing_lost()


@BOTH_DISKS
def test_sink_cannot_be_written(box: Sandbox, disk: str) -> None:
    """The file is the former one whole, or none; status says why; nothing half made is seen, then or when it ends."""
    with on_disk(disk, lambda live: live.root / "sinks") as live:
        live.start()
        scene = Scene(live)
        folder = live.root / "sinks"
        real = folder if disk == "read-only" else live.seen(folder)  # where a disk is read-only, it was not always so
        (real / "token").write_text("an older token\n")
        fill(live, folder)
        scene.add("default", box.url)
        with (live.config / "profiles" / "default.toml").open("a") as profile:
            profile.write(f'[[sinks]]\npath = "{folder}/token"\nformat = "token"\n')
        scene.reload()
        status = scene.wait("default", lambda profile: any(not sink["ok"] for sink in profile["sinks"]))
        assert DISKS[disk][1] in status["sinks"][0]["error"]
        assert {path.name for path in live.seen(folder).iterdir()} <= {"token", "ballast"}
        assert live.seen(folder / "token").read_text() == "an older token\n"
        assert scene.works(box)
        if disk == "full":
            (live.seen(folder) / "ballast").unlink()
            scene.reload()
            scene.wait("default", lambda profile: all(sink["ok"] for sink in profile["sinks"]))
            with scene.agent() as agent:
                assert live.seen(folder / "token").read_text() == f"{agent.token('default')}\n"
            assert [path.name for path in live.seen(folder).iterdir()] == ["token"]


@BOTH_DISKS
def test_credential_cannot_be_written(box: Sandbox, disk: str) -> None:
    """`login` fails with the cause and stores nothing; the former credential and its token stay."""
    with on_disk(disk, lambda live: live.root / "cred") as live:
        live.start()
        scene = Scene(live)
        folder = live.root / "cred"
        for name, text in CREDENTIAL.items():  # where a disk is read-only, it was not always so
            path = (folder if disk == "read-only" else live.seen(folder)) / name
            path.write_text(text)
            path.chmod(0o600)
        scene.configure("default", box.url, f"directory:{folder}")
        scene.wait("default", is_fresh)
        fill(live, folder)
        box.configure(applications={DEFAULT_ID: DEFAULT_SECRET, "new-id": "new-secret"})
        done = live.run("login", "--stdin", text="new-id\nnew-secret\n")
        code, words = {"full": (STORE, DISKS["full"][1]), "read-only": (USAGE, "is read-only here")}[disk]
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr
        assert scene.works(box)
        found = {path.name: path.read_text() for path in live.seen(folder).glob("client_*")}
        assert found == CREDENTIAL
        assert not list(live.seen(folder).glob(".*.tmp"))


@BOTH_DISKS
def test_profile_cannot_be_written(box: Sandbox, disk: str) -> None:
    """The credential is stored and in use, and `login` says that the profile file is missing (exit 9)."""
    with on_disk(disk, lambda live: live.config) as live:
        live.start()
        fill(live, live.config)
        folder = live.root / "cred"
        folder.mkdir(mode=0o700)
        done = live.run("login", "--stdin", "--base-url", box.url, "--store", f"directory:{folder}", text=TYPED)
        assert done.returncode == STORE
        assert "the profile file could not be written" in done.stderr
        assert DISKS[disk][1] in done.stderr
        assert Scene(live).works(box)
        assert box.stats.logins == 1


FAILING = """
import errno, os, sys

def failing(*_):
    raise OSError(errno.{name}, os.strerror(errno.{name}))

os.fsync = failing
from {module} import main
main()
"""
FAULTS = {"EIO": "Input/output error", "EDQUOT": "Disk quota exceeded"}


@pytest.mark.parametrize("name", FAULTS)
def test_writes_that_fail_late(box: Sandbox, name: str) -> None:
    """A disk error, or a quota on a server, that shows when the file is synced: told by `login`, and served on."""
    program = FAILING.format(name=name, module="d7agent.__main__")
    with Staged(command=[sys.executable, "-P", "-c", program]) as live:
        live.start()
        (live.root / "cred").mkdir(mode=0o700)
        done = live.run("login", "--stdin", "--base-url", box.url, "--store", f"directory:{live.root}/cred", text=TYPED)
        assert (done.returncode, FAULTS[name] in done.stderr) == (STORE, True), done.stderr
        scene = Scene(live)
        assert scene.works(box)
        assert f"nor to {live.socket.parent}/state: {FAULTS[name]}" in live.journal()
        assert not list(live.config.rglob("*.toml"))
        assert box.stats.logins == 1
        scene.nothing_lost()


@pytest.mark.parametrize("name", FAULTS)
def test_a_credential_whose_writing_fails_late(box: Sandbox, name: str, tmp_path: Path) -> None:
    """The same in the helper: `login` tells it, and the former credential stays with its token."""
    python = OwnPython(tmp_path / "double")
    program = tmp_path / "program.py"
    program.write_text(FAILING.format(name=name, module="d7agent.helper.door"))
    with Staged(command=python.command) as live:
        live.start()
        scene = Scene(live)
        folder = scene.add("default", box.url)
        scene.wait("default", is_fresh)
        python.wrap(f"exec {sys.executable} -P {program}")
        box.configure(applications={DEFAULT_ID: DEFAULT_SECRET, "new-id": "new-secret"})
        done = live.run("login", "--stdin", text="new-id\nnew-secret\n")
        assert (done.returncode, FAULTS[name] in done.stderr) == (STORE, True), done.stderr
        assert f"{folder} cannot be written" in done.stderr
        python.restore()
        assert scene.works(box)
        scene.nothing_lost()
