"""The table of faults: files that are not what they should be, or not whose they should be."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from d7agent.sandbox import Sandbox, Settings
from tests.support.agents import is_root
from tests.support.live import Live
from tests.support.osfaults import NOBODY
from tests.support.scene import Scene, is_fresh

NO_PROFILE = 4  # exit status


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(Settings(lifetime=600)) as sandbox:
        yield sandbox


@pytest.fixture
def live() -> Iterator[Live]:
    with Live() as home:
        yield home


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
    assert scene.works(box)
    assert box.stats.logins == 1


def given_away(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


STRANGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "someone else's file": (given_away, "the file {path} belongs to uid 65534"),
    "a file that others write": (lambda path: path.chmod(0o646), "others can write to the file {path} (mode 0646)"),
    "someone else's folder": (lambda path: given_away(path.parent), "the folder {path.parent} belongs to uid 65534"),
    "a folder that others write": (lambda path: path.parent.chmod(0o777), "can write to the folder {path.parent}"),
}


@pytest.mark.parametrize("what", STRANGE)
def test_configuration_that_others_can_change(box: Sandbox, live: Live, what: str) -> None:
    """Refused with its name and the remedy (exit 1), while the former one serves on; at a start it is not taken."""
    if not is_root():
        pytest.skip("NOT TESTED: other users' files; run the tests as root")
    live.start()
    scene = Scene(live)
    scene.add("work", box.url)
    scene.wait("work", is_fresh)
    path = live.config / "profiles" / "work.toml"
    before = {one: one.stat() for one in (path, path.parent)}
    fault, words = STRANGE[what]
    fault(path)
    done = live.run("reload")
    assert (done.returncode, words.format(path=path) in done.stderr) == (1, True), done.stderr
    assert scene.works(box, "work")
    live.kill()
    live.start()
    assert words.format(path=path) in live.status()["agent"]["config_problems"][0]
    assert live.run("token", "--profile", "work").returncode == NO_PROFILE
    for one, found in before.items():
        os.chown(one, found.st_uid, found.st_gid)
        one.chmod(found.st_mode & 0o7777)
    scene.reload()
    assert scene.works(box, "work")
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
            assert scene.works(box)
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
    assert scene.works(box, "work")
    assert box.stats.logins == 1


def test_default_profile_faulty_at_start(box: Sandbox, live: Live) -> None:
    """Nobody gets another profile's token in its place, nor is another store or D7 asked; mended, it is served."""
    live.start()
    scene = Scene(live)
    for name in ("default", "work"):
        scene.add(name, box.url)
        scene.wait(name, is_fresh)
    live.kill()
    path = live.config / "profiles" / "default.toml"
    good = path.read_text()
    path.write_text("stoer" + good)
    live.start()
    done = live.run("token")
    assert (done.returncode, done.stdout, "default.toml:1" in done.stderr) == (4, "", True), done.stderr
    assert scene.works(box, "work")
    assert live.run("check").returncode == 1
    path.write_text(good)
    scene.reload()
    assert scene.works(box, "default")
    assert box.stats.logins == 2


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
            assert scene.works(box, name)
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
    assert status["refresh_at"] <= profile_time(live) + 3600 + 1  # it is told in whole seconds
    assert box.stats.logins == 0
    assert live.run("renew", "--profile", "work").returncode == 0
    assert scene.works(box, "work")
    assert scene.status("work")["budget_left"] <= 19


def profile_time(live: Live) -> float:
    """When the profile was written, unix seconds."""
    return (live.config / "profiles" / "work.toml").stat().st_mtime
