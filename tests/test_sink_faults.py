"""Always-fresh files where the file system fails: full, read-only, in the way, hung."""

import asyncio
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from d7agent.agent import slot as slot_module
from d7agent.agent.aside import Aside
from d7agent.agent.sinks import Sinks
from d7agent.core.config import Sink
from tests.support import agents
from tests.support.agents import World, profile, until
from tests.support.osfaults import on_full_disk, unprivileged
from tests.support.sinks import Gate, content, error, settle, tell


def test_a_failure_is_told_once_and_tried_again_until_it_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent's own retries find the folder mended, and say that too."""
    caplog.set_level("INFO")
    monkeypatch.setattr(slot_module, "RETRY_FIRST", 0.001)
    tries = threading.Semaphore(0)
    real = slot_module._carried_out

    def counted(*args: Any, **more: Any) -> slot_module.Outcome:
        tries.release()
        return real(*args, **more)

    monkeypatch.setattr(slot_module, "_carried_out", counted)

    async def story(w: World, sinks: Sinks) -> None:
        changed = asyncio.Event()
        w.agent.on_changed.append(lambda _: changed.set())
        (tmp_path / "sink").mkdir()
        w.configure(profile(Sink(str(tmp_path / "sink"))))
        await until(lambda: bool(error(sinks)), changed)
        await asyncio.get_running_loop().run_in_executor(None, lambda: [tries.acquire() for _ in range(4)])
        assert "there is a folder in its place" in error(sinks)
        (tmp_path / "sink").rmdir()
        await until(lambda: not error(sinks), changed)
        assert (tmp_path / "sink").read_bytes() == content(w)

    tell(tmp_path, story)
    told = [record.getMessage() for record in caplog.records if "sink" in record.getMessage()]
    assert len([line for line in told if "in its place" in line]) == 1
    assert len([line for line in told if "well again" in line]) == 1
    assert not any("eyJ" in line for line in told)


def test_retries_become_rare_and_meet(tmp_path: Path) -> None:
    """From five seconds on at multiples of five: a thousand failing sinks are one wake-up, some once a minute."""
    delays = [slot_module.retry_at(1003.0, failures) - 1003.0 for failures in (1, 2, 3, 4, 7, 8, 100)]
    assert delays[:3] == [1.0, 2.0, 4.0]
    assert all((1003.0 + delay) % 5 == 0 for delay in delays[3:])
    assert all(60 <= delay <= 65 for delay in delays[4:])


FULL_DISK = """
import asyncio, pathlib
from d7agent.agent.sinks import Sinks
from d7agent.core.config import Sink
from tests.support import agents
from tests.support import sinks as t

disk = pathlib.Path(FOLDER)

async def story(w, sinks):
    changed = asyncio.Event()
    w.agent.on_changed.append(lambda _: changed.set())
    path = disk / "sink"
    w.configure(agents.profile(Sink(str(path))))
    await w.calm()
    await t.settle(sinks)
    old = path.read_bytes()
    try:
        (disk / "ballast").write_bytes(bytes(1 << 20))
    except OSError:
        pass
    await w.refresh()
    await t.settle(sinks)
    print(t.error(sinks), path.read_bytes() == old, sorted(p.name for p in disk.iterdir()))
    (disk / "ballast").unlink()
    await agents.until(lambda: not t.error(sinks), changed)
    print(path.read_bytes() == t.content(w), sorted(p.name for p in disk.iterdir()))
    (disk / "ballast").touch()
    try:
        (disk / "ballast").write_bytes(bytes(1 << 20))
    except OSError:
        pass
    await w.refresh()
    await t.settle(sinks)
    w.clock.advance(3700)
    sinks._slots[str(path)]._again()
    await t.settle(sinks)
    print(t.error(sinks), path.exists())

import tempfile
t.tell(pathlib.Path(tempfile.mkdtemp()), story)
print(sorted(p.name for p in disk.iterdir()))
"""


def test_a_full_disk(tmp_path: Path) -> None:
    """A real one: the old token stays while it is good, the error says why, room brings the new one."""
    done = on_full_disk(tmp_path, FULL_DISK.replace("FOLDER", repr(str(tmp_path))))
    if done is None:
        pytest.skip("a full disk needs unshare(1) and the right to mount: run the tests as root")
    assert done.stdout.splitlines() == [
        "cannot be written: No space left on device True ['ballast', 'sink']",
        "True ['sink']",
        "cannot be written: No space left on device False",
        "['ballast']",
    ], done.stderr


def test_a_read_only_folder(tmp_path: Path) -> None:
    """The error says so; a folder made writable gets its file at the next reload."""
    with unprivileged() as folder:

        async def story(w: World, sinks: Sinks) -> None:
            place = folder / "ro"
            place.mkdir(0o500)
            w.configure(profile(Sink(str(place / "sink"))))
            await w.calm()
            await settle(sinks)
            assert error(sinks) == "cannot be written: Permission denied"
            place.chmod(0o700)
            w.configure(w.keeper.profile)
            await settle(sinks)
            assert error(sinks) == ""
            assert (place / "sink").read_bytes() == content(w)

        tell(folder, story)


def test_a_token_that_env_cannot_hold_is_said_to_be_so(tmp_path: Path) -> None:
    """The error names the formats that can."""

    async def story(w: World, sinks: Sinks) -> None:
        w.store.ready = "$(reboot)"
        w.store.remembered = w.d7.granted(w.store.ready, ready_made=True)
        w.configure(profile(Sink(str(tmp_path / "a")), Sink(str(tmp_path / "b"), "token")))
        await w.calm()
        await settle(sinks)
        assert "choose format token or json" in error(sinks)
        assert not (tmp_path / "a").exists()
        assert (tmp_path / "b").read_text() == "$(reboot)\n"

    tell(tmp_path, story)


def test_a_hung_file_system_stops_nobody_and_what_is_late_changes_nothing(tmp_path: Path) -> None:
    """The loop goes on, status says what hangs, and an older token that gets through at last is not put in place."""
    gate = Gate()

    async def story(w: World, sinks: Sinks) -> None:
        path = tmp_path / "sink"
        w.configure(profile(Sink(str(path))))
        gate.open = False
        await w.calm()
        await w.refresh()
        await asyncio.sleep(0)  # real time: none; one turn of the loop
        assert len(gate.held) == 1
        before = w.token
        await w.refresh()
        assert w.token != before
        assert len(gate.held) == 1
        w.clock.advance(30)
        assert "has not answered for" in error(sinks)
        gate.open = True
        gate.release()
        await settle(sinks)
        assert path.read_bytes() == content(w)
        assert error(sinks) == ""

    tell(tmp_path, story, gate)


def test_closing_does_not_wait_for_what_hangs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The agent ends in time and says which file it could not remove."""
    gate = Gate()

    async def story(w: World) -> None:
        sinks = Sinks(w.agent, gate)
        w.configure(profile(Sink(str(tmp_path / "sink"))))
        await w.calm()
        await settle(sinks)
        gate.open = False
        await sinks.close(0.01)

    agents.run(tmp_path, story)
    assert "could not be removed in time" in caplog.text


def test_work_aside_takes_turns_in_few_threads_which_then_end() -> None:
    """At most as many at once as there may be; one that hangs does not stop the others; none is left at rest."""
    aside = Aside(2)
    stuck, done = threading.Event(), threading.Event()
    order: list[int] = []

    def hang() -> None:
        stuck.wait(20)

    aside.run(hang)
    for number in range(50):
        aside.run(partial(order.append, number))
    aside.run(done.set)
    assert done.wait(20)
    assert order == list(range(50))
    stuck.set()
    for thread in threading.enumerate():
        if thread.name == "aside":
            thread.join(20)
    assert aside._threads == 0


def test_work_is_done_even_where_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process at its limit of threads writes its files all the same."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    aside = Aside()
    done: list[int] = []
    aside.run(partial(done.append, 1))
    aside.run(partial(done.append, 2))
    assert done == [1, 2]
