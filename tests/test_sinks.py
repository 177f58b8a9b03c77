"""Always-fresh files: what is in them, when they change, when they go, and what the rest of the agent feels of them."""

import asyncio
import os
import stat
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from d7agent.agent import sinks as sinks_module
from d7agent.agent import slot as slot_module
from d7agent.agent.aside import Aside, Work
from d7agent.agent.sinks import MARGIN, Sinks
from d7agent.core import states
from d7agent.core.config import Profile, Sink, SinkFormat
from d7agent.core.forms import Facts, sink_form
from tests.support import agents
from tests.support.agents import World, profile, until
from tests.support.fakes import DOWN, NO_APP
from tests.support.osfaults import on_full_disk, unprivileged

Story = Callable[[World, Sinks], Awaitable[None]]


class Gate(Aside):
    """Work waits at it until it is let through: a file system that hangs. `count` is how much has come."""

    def __init__(self) -> None:
        super().__init__()
        self.held: deque[Work] = deque()
        self.open = True
        self.count = 0

    def run(self, work: Work) -> None:
        self.count += 1
        if self.open:
            super().run(work)
        else:
            self.held.append(work)

    def release(self) -> None:
        super().run(self.held.popleft())


async def settle(sinks: Sinks) -> None:
    """Wait until every file is what it should be, or has failed to be."""
    await asyncio.sleep(0)  # real time: none; the comparison is due in this turn of the loop
    await sinks._settled(list(sinks._slots.values()), 20)


def tell(folder: Path, story: Story, aside: Aside | None = None) -> None:
    """Run a story with sinks; they are closed at its end."""

    async def whole(w: World) -> None:
        sinks = Sinks(w.agent, aside)
        try:
            await story(w, sinks)
        finally:
            await sinks.close(5)

    agents.run(folder, whole)


def error(sinks: Sinks, name: str = "default") -> str:
    """The error of the profile's first sink, "" for none."""
    status = sinks.status(name)[0]
    assert status.ok == (status.error is None)
    return status.error or ""


def content(w: World, form: SinkFormat = "env") -> bytes:
    """What a sink of this format is to hold now."""
    grant = w.keeper.state.grant
    assert grant is not None
    assert grant.expires is not None
    facts = Facts("default", w.clock.now().boot_id, int(grant.expires))
    return bytes(sink_form(form, w.token, facts))


@pytest.mark.parametrize("form", ["token", "header", "curl", "env", "json"])
def test_each_format_follows_the_token(tmp_path: Path, form: SinkFormat) -> None:
    """Written after the first login, and anew after every other one; USE_BEFORE is the expiry on the boot clock."""

    async def story(w: World, sinks: Sinks) -> None:
        path = tmp_path / "made" / "for" / "it" / "sink"
        w.configure(profile(Sink(str(path), form)))
        await w.calm()
        await settle(sinks)
        first = content(w, form)
        assert path.read_bytes() == first
        await w.refresh()
        await settle(sinks)
        assert path.read_bytes() == content(w, form) != first
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert {stat.S_IMODE(p.stat().st_mode) for p in list(path.parents)[:3]} == {0o700}
        assert os.listdir(path.parent) == ["sink"]

    tell(tmp_path, story)


def test_a_reader_of_the_old_file_reads_it_to_its_end(tmp_path: Path) -> None:
    """The file is replaced, never written over."""

    async def story(w: World, sinks: Sinks) -> None:
        path = tmp_path / "sink"
        w.configure(profile(Sink(str(path))))
        await w.calm()
        await settle(sinks)
        before = content(w)
        with path.open("rb", buffering=0) as reader:
            begin = reader.read(10)
            await w.refresh()
            await settle(sinks)
            assert begin + reader.read() == before
        assert path.read_bytes() == content(w)

    tell(tmp_path, story)


def expire(w: World) -> None:
    w.d7.fault = DOWN
    w.clock.advance(4000)
    w.keeper.tick()


def refuse(w: World) -> None:
    w.d7.fault = NO_APP
    w.clock.advance(11)
    w.keeper.feed(states.Renewed())


def log_out(w: World) -> None:
    w.keeper.feed(states.Forgotten())


def remove_profile(w: World) -> None:
    w.configure(profile(name="other"))


def remove_sink(w: World) -> None:
    w.configure(profile())


def move_sink(w: World) -> None:
    w.configure(profile(Sink(str(w.folder / "elsewhere"))))


def change_base_url(w: World) -> None:
    w.d7.fault = DOWN
    w.configure(msgspec.structs.replace(w.keeper.profile, base_url="https://other.example"))


@pytest.mark.parametrize(
    "ending", [expire, refuse, log_out, remove_profile, remove_sink, move_sink, change_base_url], ids=lambda f: f.__name__
)
def test_the_file_goes_with_the_token(tmp_path: Path, ending: Callable[[World], None]) -> None:
    """Nothing dead, forgotten or no longer wanted stays on disk."""

    async def story(w: World, sinks: Sinks) -> None:
        path = tmp_path / "sink"
        w.configure(profile(Sink(str(path))))
        await w.calm()
        await settle(sinks)
        assert path.exists()
        ending(w)
        await w.calm()
        await settle(sinks)
        assert not path.exists()
        assert (tmp_path / "elsewhere").exists() == (ending is move_sink)

    tell(tmp_path, story)


def test_lock_and_shutdown_remove_the_files(tmp_path: Path) -> None:
    """Unlock brings them back."""

    async def story(w: World, sinks: Sinks) -> None:
        path = tmp_path / "sink"
        w.configure(profile(Sink(str(path))))
        await w.calm()
        await settle(sinks)
        await w.lock()
        await settle(sinks)
        assert not path.exists()
        w.agent.lock._open()
        await w.calm()
        await settle(sinks)
        assert path.exists()

    tell(tmp_path, story)
    assert not (tmp_path / "sink").exists()


def test_another_format_mode_or_group_is_put_in_force(tmp_path: Path) -> None:
    """By a new file, without a new token."""

    async def story(w: World, sinks: Sinks) -> None:
        path = str(tmp_path / "sink")
        w.configure(profile(Sink(path)))
        await w.calm()
        await settle(sinks)
        token = w.token
        w.configure(profile(Sink(path, "token", 0o640, str(os.getegid()))))
        await settle(sinks)
        found = os.stat(path)
        assert Path(path).read_text() == f"{token}\n"
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o640, os.getegid())

    tell(tmp_path, story)


def test_a_group_that_is_not_there_is_an_error_until_it_is_mended(tmp_path: Path) -> None:
    """In status and log, once."""

    async def story(w: World, sinks: Sinks) -> None:
        path = str(tmp_path / "sink")
        w.configure(profile(Sink(path, group="no-such-group")))
        await w.calm()
        await settle(sinks)
        assert "there is no group 'no-such-group'" in error(sinks)
        assert os.listdir(tmp_path) == ["state"]
        w.configure(profile(Sink(path)))
        await settle(sinks)
        assert error(sinks) == ""
        assert os.path.exists(path)

    tell(tmp_path, story)


def test_a_dead_agents_file_is_replaced_or_removed_but_not_before_it_is_known_which(tmp_path: Path) -> None:
    """While the first login is under way the leftover stays: it may be the token that is asked for right now."""
    paths = [tmp_path / "good", tmp_path / "bad"]
    for path in paths:
        path.write_text("leftover")
    (tmp_path / ".bad.tmp").write_text("half")

    async def story(w: World, sinks: Sinks) -> None:
        w.helpers.hold = asyncio.Event()
        w.d7.faults = [DOWN]
        w.configure(profile(Sink(str(paths[1]))), profile(Sink(str(paths[0])), name="other"))
        for _ in range(5):
            await settle(sinks)
        assert [path.read_text() for path in paths] == ["leftover", "leftover"]
        w.helpers.hold.set()
        await w.calm()
        await settle(sinks)
        assert "D7_API_TOKEN=" in paths[0].read_text()
        assert not paths[1].exists()
        assert not (tmp_path / ".bad.tmp").exists()

    tell(tmp_path, story)


def no_expiry(w: World, *, until_boot: float) -> bytes:
    facts = Facts("default", w.clock.now().boot_id, int(until_boot))
    return bytes(sink_form("env", w.token, facts))


def test_a_token_without_expiry_is_good_for_max_age_and_an_hour(tmp_path: Path) -> None:
    """The same bytes again count from then on; where D7 is down, the agent that still serves it says so anew."""

    async def story(w: World, sinks: Sinks) -> None:
        path = tmp_path / "sink"
        w.d7.lifetime, w.d7.same = None, True
        w.configure(profile(Sink(str(path)), max_age=7200.0))
        await w.calm()
        await settle(sinks)
        came = w.clock.now().boot
        assert path.read_bytes() == no_expiry(w, until_boot=came + 7200 + MARGIN)
        await w.refresh()
        await settle(sinks)
        again = w.clock.now().boot
        assert again > came
        assert path.read_bytes() == no_expiry(w, until_boot=again + 7200 + MARGIN)
        w.d7.fault = DOWN
        await w.pass_time(7200 + MARGIN / 2 - 10)
        await settle(sinks)
        assert path.read_bytes() == no_expiry(w, until_boot=again + 7200 + MARGIN)
        await w.pass_time(20)
        await settle(sinks)
        assert path.read_bytes() == no_expiry(w, until_boot=w.clock.now().boot + MARGIN)
        before = path.stat().st_ino
        await w.pass_time(600)
        await settle(sinks)
        assert path.stat().st_ino == before
        await w.pass_time(MARGIN / 2)
        await settle(sinks)
        assert path.read_bytes() == no_expiry(w, until_boot=w.clock.now().boot + MARGIN)

    tell(tmp_path, story)


def test_a_file_that_someone_removed_or_replaced_comes_back(tmp_path: Path) -> None:
    """With its folder; noticed within a minute and a half, without a wake-up of its own."""

    async def story(w: World, sinks: Sinks) -> None:
        one, two = tmp_path / "gone" / "sink", tmp_path / "other"
        w.configure(profile(Sink(str(one)), Sink(str(two), "token")))
        await w.calm()
        await settle(sinks)
        one.unlink()
        one.parent.rmdir()
        two.unlink()
        two.write_text("not a token")
        await w.pass_time(61)
        while sinks._looking:
            await asyncio.sleep(0)  # real time: none; the look is a matter of microseconds in its thread
        await settle(sinks)
        assert one.read_bytes() == content(w)
        assert two.read_text() == f"{w.token}\n"

    tell(tmp_path, story)


def test_a_failure_is_told_once_and_tried_again_until_it_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent's own retries find the folder mended, and say that too."""
    monkeypatch.setattr(slot_module, "RETRY_FIRST", 0.001)
    tries = threading.Semaphore(0)
    real = slot_module._carried_out
    monkeypatch.setattr(slot_module, "_carried_out", lambda *a, **k: (tries.release(), real(*a, **k))[1])

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
    """From five seconds on at multiples of five, so that a thousand failing sinks are one wake-up; at most a minute apart."""
    delays = [slot_module.retry_at(1003.0, failures) - 1003.0 for failures in (1, 2, 3, 4, 7, 8, 100)]
    assert delays[:3] == [1.0, 2.0, 4.0]
    assert all((1003.0 + delay) % 5 == 0 for delay in delays[3:])
    assert all(60 <= delay <= 65 for delay in delays[4:])


FULL_DISK = """
import asyncio, pathlib
from d7agent.agent.sinks import Sinks
from d7agent.core.config import Sink
from tests.support import agents
from tests import test_sinks as t

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
    """A real one: the old token stays while it is good, the error says why, room brings the new one, nothing is left over."""
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


def test_of_a_thousand_profiles_only_the_one_that_changed_is_worked_on(tmp_path: Path) -> None:
    """A refresh costs what its own sinks cost, and a change of status that leaves the token alone costs nothing."""
    gate = Gate()

    async def story(w: World, sinks: Sinks) -> None:
        names = ["default", *(f"p{number}" for number in range(999))]
        w.configure(*(profile(Sink(str(tmp_path / "sinks" / name)), name=name) for name in names))
        await w.calm()
        await settle(sinks)
        assert sorted(os.listdir(tmp_path / "sinks")) == sorted(names)
        before = gate.count
        await w.refresh()
        await settle(sinks)
        assert gate.count == before + 1
        for keeper in w.agent.keepers.values():
            w.agent.changed(keeper)
        await settle(sinks)
        assert gate.count == before + 1

    tell(tmp_path, story, gate)


def test_work_aside_takes_turns_in_few_threads_which_then_end() -> None:
    """At most as many at once as there may be; one that hangs does not stop the others; none is left at rest."""
    aside = Aside(2)
    stuck, done = threading.Event(), threading.Event()
    order: list[int] = []
    aside.run(lambda: [stuck.wait(20), None][1])
    for number in range(50):
        aside.run(lambda number=number: order.append(number))  # type: ignore[misc]
    aside.run(done.set)
    assert done.wait(20)
    assert order == list(range(50))
    stuck.set()
    for thread in threading.enumerate():
        if thread.name == "aside":
            thread.join(20)
    assert aside._threads == 0


def test_nothing_is_written_before_the_configuration_or_without_sinks(tmp_path: Path) -> None:
    """An agent without sinks has neither work nor looks."""
    gate = Gate()

    async def story(w: World, sinks: Sinks) -> None:
        w.configure(Profile())
        await w.calm()
        await w.pass_time(1000)
        await settle(sinks)
        assert gate.count == 0
        assert sinks.status("default") == ()
        assert sinks_module.LOOK_EVERY >= 60

    tell(tmp_path, story, gate)
