"""Always-fresh files: what is in them, when they change, when they go, and what the rest of the agent feels of them."""

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from d7agent.agent import sinks as sinks_module
from d7agent.agent.sinks import MARGIN, Sinks
from d7agent.core import states
from d7agent.core.config import Profile, Sink, SinkFormat
from d7agent.core.forms import Facts, sink_form
from d7agent.sandbox import Sandbox, Settings
from tests.support.agents import World, profile
from tests.support.fakes import DOWN, NO_APP
from tests.support.live import Live
from tests.support.sinks import Gate, Inline, content, error, settle, tell


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
    w.d7.fault, w.store.remembered = DOWN, None  # what is remembered is bound to the base URL
    w.configure(msgspec.structs.replace(w.keeper.profile, base_url="https://other.example"))


@pytest.mark.parametrize(
    "ending",
    [expire, refuse, log_out, remove_profile, remove_sink, move_sink, change_base_url],
    ids=lambda f: f.__name__,
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
        path = tmp_path / "sink"
        w.configure(profile(Sink(str(path))))
        await w.calm()
        await settle(sinks)
        token = w.token
        w.configure(profile(Sink(str(path), "token", 0o640, str(os.getegid()))))
        await settle(sinks)
        found = path.stat()
        assert path.read_text() == f"{token}\n"
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o640, os.getegid())

    tell(tmp_path, story)


def test_a_group_that_is_not_there_is_an_error_until_it_is_mended(tmp_path: Path) -> None:
    """In status and log, once."""

    async def story(w: World, sinks: Sinks) -> None:
        path = tmp_path / "sink"
        w.configure(profile(Sink(str(path), group="no-such-group")))
        await w.calm()
        await settle(sinks)
        assert "there is no group 'no-such-group'" in error(sinks)
        assert os.listdir(tmp_path) == ["state"]
        w.configure(profile(Sink(str(path))))
        await settle(sinks)
        assert error(sinks) == ""
        assert path.exists()

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
        await settle(sinks)
        assert one.read_bytes() == content(w)
        assert two.read_text() == f"{w.token}\n"

    tell(tmp_path, story, Inline())


def test_of_a_thousand_profiles_only_the_one_that_changed_is_worked_on(tmp_path: Path) -> None:
    """A refresh costs what its own sinks cost, and a change of status that leaves the token alone costs nothing."""
    gate = Gate()

    async def story(w: World, sinks: Sinks) -> None:
        names = ["default", *(f"p{number}" for number in range(999))]
        w.store.remembered = w.d7.granted(w.d7.issue())  # a thousand logins would be a thousand budgets on disk
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


@pytest.mark.system
def test_a_real_agent_killed_and_started_again(tmp_path: Path) -> None:
    """The file outlives the agent that was killed, the next one writes it anew, and a stop takes it away."""
    with Sandbox(Settings(lifetime=600)) as box, Live() as live:
        sink = live.runtime / "d7agent" / "default.env"
        (live.root / "cred").mkdir(mode=0o700)
        (live.config / "profiles").mkdir(parents=True)
        (live.config / "profiles" / "default.toml").write_text('[[sinks]]\npath = "%t/d7agent/default.env"\n')
        live.start()
        live.login(box.url, "--store", f"directory:{live.root}/cred")
        token = live.run("token", check=True).stdout.strip()
        while not sink.exists():
            assert live.status()["profiles"][0]["sinks"] == [{"path": str(sink), "ok": True}]
        assert f"D7_API_TOKEN={token}\n" in sink.read_text()
        live.kill()
        before = sink.stat()
        live.start()
        while sink.stat().st_mtime_ns == before.st_mtime_ns:
            assert live.status()["profiles"][0]["sinks"][0]["ok"]
        assert f"D7_API_TOKEN={token}\n" in sink.read_text()
        live.stop()
        assert not sink.exists()
        assert token not in live.journal()
