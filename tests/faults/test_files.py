"""The table of faults: disks that are full or read-only, and files that are not what they should be."""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from d7agent.sandbox import DEFAULT_ID, DEFAULT_SECRET, Sandbox, Settings
from tests.support import d7client
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


@pytest.fixture
def live() -> Iterator[Live]:
    with Live() as home:
        yield home


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


def works(scene: Scene, box: Sandbox, name: str = "default") -> bool:
    with scene.agent() as agent:
        return d7client.balance(box, agent.token(name)).status == 200


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
        assert works(scene, box)
        done = live.run("login", "--stdin", text=TYPED)
        assert (done.returncode, "budget" in done.stderr) == (UNAVAILABLE, True), done.stderr
        assert box.stats.logins == 1
        assert DISKS[disk][1] in live.journal()
        assert works(scene, box)
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
        assert works(scene, box)
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
        assert works(scene, box)
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
        assert works(Scene(live), box)
        assert box.stats.logins == 1


def test_configuration_replaced_mid_read(box: Sandbox, live: Live) -> None:
    """While a file is replaced without pause every reload takes a whole version or says why not; the last one wins."""
    live.start()
    scene = Scene(live)
    scene.add("default", box.url)
    scene.wait("default", is_fresh)
    path = live.config / "profiles" / "default.toml"
    good = path.read_text()
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.is_set():
            number += 1
            new = path.with_suffix(".new")
            new.write_text(good + "# a comment\n" * (number % 500) + f'max_age = "{number % 20 + 1}h"\n')
            new.replace(path)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with scene.agent() as agent:
            problems = [problem for _ in range(200) for problem in agent.call("Reload")["problems"]]
    finally:
        done.set()
        writer.join()
    assert [problem for problem in problems if "default.toml: keeps changing" not in problem] == []
    path.write_text(good)
    scene.reload()
    assert works(scene, box)
    assert box.stats.logins == 1


HALF: dict[str, tuple[str | bytes, str]] = {
    "in a string": ('base_url = "http://127', "default.toml:1"),
    "in a key": ("base_u", "default.toml:1"),
    "in a character": ('base_url = "\xe4"'.encode("latin-1"), "not UTF-8"),
    "in a value": ("store = \n", "default.toml"),
}


def test_profile_half_written(box: Sandbox, live: Live, subtests: pytest.Subtests) -> None:
    """A file cut off anywhere is refused with its name (exit 1) and changes nothing; the whole one is taken again."""
    live.start()
    scene = Scene(live)
    scene.add("default", box.url)
    scene.wait("default", is_fresh)
    path = live.config / "profiles" / "default.toml"
    good = path.read_text()
    for place, (text, words) in HALF.items():
        with subtests.test(cut=place):
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
            done = live.run("reload")
            assert (done.returncode, words in done.stderr) == (1, True), done.stderr
            assert works(scene, box)
    path.write_text(good)
    assert live.run("reload").returncode == 0
    assert box.stats.logins == 1


def test_profile_half_written_at_start(box: Sandbox, live: Live) -> None:
    """An agent that starts with a bad file runs, says so in status, and takes the mended file without a restart."""
    live.start()
    scene = Scene(live)
    scene.add("work", box.url)
    scene.wait("work", is_fresh)
    live.kill()
    path = live.config / "profiles" / "work.toml"
    good = path.read_text()
    path.write_text(good[:25])
    live.start()
    done = live.run("token", "--profile", "work")
    assert (done.returncode, "work.toml" in done.stderr) == (4, True), done.stderr
    assert "work.toml" in live.status()["agent"]["config_problems"][0]
    path.write_text(good)
    scene.reload()
    assert works(scene, box, "work")
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
        assert works(scene, box)
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
        assert works(scene, box)
        scene.nothing_lost()


REMEMBERED: dict[str, bytes] = {
    "rubbish": b"\xff\x00rubbish",
    "empty": b"",
    "cut off": b'{"v":1,"access_token":"eyJ',
    "of another shape": b'{"v":"one","access_token":[]}',
    "of another version": b'{"v":99}',
    "nested": b"[" * 60_000,
    "huge": b'{"v":1,"access_token":"' + b"x" * 5_000_000 + b'"}',
    "of another application": json.dumps({
        "v": 1, "access_token": "a.b.c", "token_type": "bearer", "base_url": "http://127.0.0.1:9", "client_hash": "0",
        "received_boot": 1.0, "received_wall": 1.0, "boot_id": "x",
    }).encode(),
}  # fmt: skip


def test_remembered_token_that_is_none(box: Sandbox, live: Live, subtests: pytest.Subtests) -> None:
    """Whatever stands where a token was kept, it is not served: one login makes a new one, which takes its place."""
    live.start()
    scene = Scene(live)
    names = {what: f"kept{number}" for number, what in enumerate([*REMEMBERED, "a folder", "a pipe", "open to all"])}
    for what, name in names.items():
        path = scene.credential(name) / f".{name}.token"
        if what == "a folder":
            path.mkdir()
        elif what == "a pipe":
            os.mkfifo(path, 0o600)
        else:
            path.write_bytes(REMEMBERED.get(what, b"{}"))
            path.chmod(0o644 if what == "open to all" else 0o600)
        scene.configure(name, box.url, f"directory:{path.parent}")
    for what, name in names.items():
        with subtests.test(remembered=what):
            status = scene.wait(name, is_fresh)
            assert status["remembered"] is (what != "a folder")
            assert works(scene, box, name)
    assert box.stats.logins == len(names)
    scene.nothing_lost()


FAR = 400_000_000_000.0  # unix seconds, in the year 14645
STATES: dict[str, bytes] = {
    "rubbish": b"\xff\x00rubbish",
    "empty": b"",
    "cut off": b'{"level":29.0,"wa',
    "of another shape": b'{"level":"many","wall":[]}',
    "nested": b"[" * 100_000,
    "huge": b'{"level":1.0,"wall":1.0,"boot_id":"' + b"x" * 5_000_000 + b'"}',
    "from the future": json.dumps({"level": 30, "wall": FAR, "retry_at": FAR + 10, "logins": [FAR]}).encode(),
    "absurd numbers": json.dumps({"level": 1e300, "wall": -1e300, "failures": -5}).encode(),
}


def test_state_file_that_is_none(box: Sandbox, live: Live, subtests: pytest.Subtests) -> None:
    """Whatever the state file holds, the agent starts and logs in, and the budget is no larger than a full one."""
    live.state.mkdir(mode=0o700, parents=True)
    scene = Scene(live)
    live.start()
    names = {what: f"state{number}" for number, what in enumerate(STATES)}
    for what, name in names.items():
        (live.state / f"{name}.state").write_bytes(STATES[what])
        scene.add(name, box.url)
    (live.state / "folder.state").mkdir()
    scene.add("folder", box.url)
    for what, name in names.items():
        with subtests.test(state=what):
            scene.wait(name, is_fresh)
            assert scene.status(name)["budget_left"] <= 29
            written = json.loads((live.state / f"{name}.state").read_bytes())
            assert written["level"] <= 30
    scene.wait("folder", is_fresh)
    assert box.stats.logins == len(STATES) + 1
    scene.nothing_lost()


def test_backoff_from_the_future(box: Sandbox, live: Live) -> None:
    """A backoff set by a clock that was years ahead is an hour at most; `renew` does not wait for it."""
    live.state.mkdir(mode=0o700, parents=True)
    snapshot = {"level": 20.0, "wall": FAR, "failures": 9, "retry_at": FAR + FAR}
    (live.state / "work.state").write_text(json.dumps(snapshot))
    live.start()
    scene = Scene(live)
    scene.add("work", box.url)
    status = scene.wait("work", lambda profile: profile.get("refresh_at", 0) > profile_time(live) + 60)
    assert status["refresh_at"] <= profile_time(live) + 3600
    assert box.stats.logins == 0
    assert live.run("renew", "--profile", "work").returncode == 0
    assert works(scene, box, "work")
    assert scene.status("work")["budget_left"] <= 19


def profile_time(live: Live) -> float:
    """When the profile was written, unix seconds."""
    return (live.config / "profiles" / "work.toml").stat().st_mtime
