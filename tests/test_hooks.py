"""Hooks: when they run, what they are told, and what becomes of those that fail, hang or flood."""

import asyncio
import logging
import os
import select
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from d7agent.agent import hooks as hooks_module
from d7agent.agent.hook_process import MORE
from d7agent.agent.hooks import QUEUE, Hooks
from d7agent.agent.sinks import Sinks
from d7agent.core import config
from d7agent.core.config import Sink
from d7agent.core.states import Hooked, HookEvent
from d7agent.sandbox import Sandbox, Settings
from tests.support import agents
from tests.support.agents import World, profile
from tests.support.fakes import DOWN, NO_APP
from tests.support.live import Live

Story = Callable[[World, Hooks], Awaitable[None]]
KEPT = {"PATH": os.environ["PATH"], "HOME": "/home/x", "LC_ALL": "C"}
ENVIRONMENT = KEPT | {"NOTIFY_SOCKET": "/x", "D7_CLIENT_SECRET": "s"}


def script(folder: Path, text: str, name: str = "hook") -> tuple[str, ...]:
    """The argv of a shell script."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return (str(path),)


def tell(folder: Path, story: Story, limit: float = 30.0) -> None:
    """Run a story with hooks, which are closed at its end."""

    async def whole(w: World) -> None:
        hooks = Hooks(w.agent, ENVIRONMENT, limit=limit)
        try:
            await story(w, hooks)
        finally:
            await hooks.close()

    agents.run(folder, whole)


async def finished(hooks: Hooks) -> None:
    """Wait until no hook runs or waits."""
    while hooks._task is not None:
        await asyncio.gather(hooks._task)


def hook(w: World, event: HookEvent = "refreshed", message: str = "") -> None:
    """Let an event happen."""
    w.agent.hooked(w.keeper, Hooked(event, message=message))


def test_each_event_runs_its_hook_with_what_happened(tmp_path: Path) -> None:
    """A login, an outage that ends, a refused credential: event, profile, reason and message, and never a token."""
    seen = tmp_path / "seen"
    argv = script(tmp_path, f'echo "$@ $D7AGENT_EVENT $D7AGENT_PROFILE $D7AGENT_REASON:$D7AGENT_MESSAGE" >>{seen}')

    async def story(w: World, hooks: Hooks) -> None:
        w.d7.faults = [DOWN]
        on = config.Hooks(on_refreshed=(*argv, "a"), on_recovered=(*argv, "b"), on_rejected=(*argv, "c d"))
        w.configure(profile(), hooks=on)
        await w.calm()
        await w.pass_time(2)
        await finished(hooks)
        told = sorted(seen.read_text().splitlines())
        assert told == ["a refreshed default :", "b recovered default connect:working again"]
        w.d7.fault = NO_APP
        await w.refresh()
        await finished(hooks)
        assert seen.read_text().splitlines()[2:] == [f"c d rejected default {NO_APP.code}:{NO_APP.message}"]
        assert hooks.status() == ()

    tell(tmp_path, story)


def test_a_hook_gets_no_token_and_nothing_of_the_agents_own(tmp_path: Path) -> None:
    """Its environment is the whitelist and four variables; stdin is empty; no descriptor but the usual three."""
    seen = tmp_path / "seen"
    argv = script(tmp_path, f"env >{seen}; cat >>{seen}; ls /proc/self/fd >>{seen}; cat /proc/$$/cmdline >>{seen}")

    async def story(w: World, hooks: Hooks) -> None:
        w.configure(profile(), hooks=config.Hooks(on_refreshed=argv))
        await w.calm()
        await finished(hooks)
        text = seen.read_text()
        assert w.token not in text
        names = {line.partition("=")[0] for line in text.splitlines() if "=" in line}
        ours = {"D7AGENT_EVENT", "D7AGENT_PROFILE", "D7AGENT_REASON", "D7AGENT_MESSAGE"}
        assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == KEPT.keys() | ours
        assert [line for line in text.splitlines() if line.isdigit()] == ["0", "1", "2", "3"]  # 3: ls itself

    tell(tmp_path, story)


def test_hooks_run_one_at_a_time_in_order(tmp_path: Path) -> None:
    """A hook finds nobody else at work."""
    seen, busy = tmp_path / "seen", tmp_path / "busy"
    argv = script(tmp_path, f"mkdir {busy} || exit 7; echo $D7AGENT_MESSAGE >>{seen}; rmdir {busy}")

    async def story(w: World, hooks: Hooks) -> None:
        w.configure(profile(), hooks=config.Hooks(on_recovered=argv))
        await w.calm()
        for number in range(12):
            hook(w, "recovered", str(number))
        await finished(hooks)
        assert seen.read_text().split() == [str(number) for number in range(12)]
        assert hooks.status() == ()

    tell(tmp_path, story)


def dies(pidfd: int) -> bool:
    """Whether the process ends within 20 s."""
    try:
        return bool(select.select([pidfd], [], [], 20)[0])
    finally:
        os.close(pidfd)


async def child_of_hook(fifo: Path) -> int:
    """A pidfd of the process whose pid a hook writes into the pipe."""
    text = await asyncio.get_running_loop().run_in_executor(None, fifo.read_text)
    return os.pidfd_open(int(text))


def test_a_hook_that_takes_too_long_is_killed_with_all_it_started(tmp_path: Path) -> None:
    """And the next one has its turn; status and log say what happened."""
    fifo, seen = tmp_path / "fifo", tmp_path / "seen"
    os.mkfifo(fifo)
    slow = script(tmp_path, f"sleep 1000 & echo $! >{fifo}; echo waiting; wait", "slow")
    quick = script(tmp_path, f"echo ran >{seen}", "quick")

    async def story(w: World, hooks: Hooks) -> None:
        w.configure(profile(), hooks=config.Hooks(on_refreshed=slow, on_recovered=quick))
        await w.calm()
        hook(w, "recovered")
        child = await child_of_hook(fifo)
        await finished(hooks)
        assert dies(child)
        assert hooks.status() == (f"on_refreshed: {slow[0]} did not end within 0 s and was killed (profile default)",)
        assert seen.read_text() == "ran\n"

    tell(tmp_path, story, limit=0.3)


def test_closing_ends_the_hook_under_way_and_drops_the_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An agent that is told to end does not wait for a pager."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    argv = script(tmp_path, f"sleep 1000 & echo $! >{fifo}; wait")

    async def story(w: World, hooks: Hooks) -> None:
        w.configure(profile(), hooks=config.Hooks(on_refreshed=argv))
        await w.calm()
        hook(w)
        child = await child_of_hook(fifo)
        await hooks.close()
        assert dies(child)
        hook(w)
        assert hooks._task is None

    tell(tmp_path, story)
    assert "1 hooks are not run" in caplog.text


def test_what_a_hook_left_running_holds_nobody_up(tmp_path: Path) -> None:
    """A hook's life is that of the process we started: a mailer in the background may take its time."""
    fifo, seen = tmp_path / "fifo", tmp_path / "seen"
    os.mkfifo(fifo)
    argv = script(tmp_path, f"(read -r line <{fifo}; echo $line >{fifo}.out) & echo sent")

    async def story(w: World, hooks: Hooks) -> None:
        os.mkfifo(f"{fifo}.out")
        w.configure(profile(), hooks=config.Hooks(on_refreshed=argv))
        await w.calm()
        await finished(hooks)
        assert hooks.status() == ()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, fifo.write_text, "still here\n")
        assert await loop.run_in_executor(None, Path(f"{fifo}.out").read_text) == "still here\n"
        assert not seen.exists()

    tell(tmp_path, story)


@pytest.mark.parametrize(
    ("text", "says"),
    [("exit 3", "ended with status 3"), ("kill -9 $$", "was ended by signal 9")],
)
def test_a_hook_that_fails_is_told_until_it_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, says: str
) -> None:
    """In status and log; subscribers of the status hear of both."""

    async def story(w: World, hooks: Hooks) -> None:
        changes: list[tuple[str, ...]] = []
        argv = script(tmp_path, text)
        w.configure(profile(), hooks=config.Hooks(on_refreshed=argv))
        await w.calm()
        w.agent.on_changed.append(lambda _: changes.append(hooks.status()))
        await finished(hooks)
        failed = (f"on_refreshed: {argv[0]} {says} (profile default)",)
        assert hooks.status() == failed
        script(tmp_path, "exit 0")
        hook(w)
        await finished(hooks)
        assert changes == [failed, ()]

    tell(tmp_path, story)
    assert f"{says}" in caplog.text


@pytest.mark.parametrize(("name", "says"), [("none", "No such file"), ("plain", "Permission denied"), ("", "denied")])
def test_a_hook_that_cannot_be_started_is_told(tmp_path: Path, name: str, says: str) -> None:
    """And forgotten with the configuration that named it."""
    (tmp_path / "plain").write_text("no program")

    async def story(w: World, hooks: Hooks) -> None:
        w.configure(profile(), hooks=config.Hooks(on_refreshed=(str(tmp_path / name),)))
        await w.calm()
        await finished(hooks)
        assert says in hooks.status()[0]
        w.configure(profile())
        assert hooks.status() == ()

    tell(tmp_path, story)


def test_what_a_hook_prints_goes_to_the_journal_within_limits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Both streams, at info, printable, so many lines; a flood does not block the hook."""
    caplog.set_level(logging.INFO)
    argv = script(
        tmp_path, "printf 'hello\\033[1m\\n'; echo oops >&2; head -c 1000000 /dev/zero | tr '\\0' '\\n'; seq 50"
    )

    async def story(w: World, hooks: Hooks) -> None:
        w.configure(profile(), hooks=config.Hooks(on_refreshed=argv))
        await w.calm()
        await finished(hooks)
        assert hooks.status() == ()

    tell(tmp_path, story)
    said = [record.getMessage() for record in caplog.records if record.name == hooks_module.__name__]
    assert said[:2] == ["on_refreshed (default): hello [1m", "on_refreshed (default): oops"]
    assert said[-1].endswith(MORE)
    assert len(said) <= 22


def test_when_events_come_too_fast_refreshes_are_dropped_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A page that wakes somebody is kept as long as there is anything else to drop; the log says so, not per event."""
    seen = tmp_path / "seen"
    argv = script(tmp_path, f"echo $D7AGENT_EVENT $D7AGENT_MESSAGE >>{seen}")

    async def story(w: World, hooks: Hooks) -> None:
        w.configure(profile(), hooks=config.Hooks(on_rejected=argv, on_refreshed=argv))
        await w.calm()
        await finished(hooks)
        seen.unlink()
        hook(w, "rejected", "first")
        for number in range(QUEUE + 20):
            hook(w, "refreshed", str(number))
        await finished(hooks)
        lines = seen.read_text().splitlines()
        assert len(lines) == QUEUE
        assert lines[0] == "rejected first"
        assert lines[-1] == f"refreshed {QUEUE + 19}"

    tell(tmp_path, story)
    assert len([line for line in caplog.messages if "dropped" in line]) == 2
    assert "21 in all were dropped" in caplog.text


def test_a_message_is_one_printable_line_of_bounded_length(tmp_path: Path) -> None:
    """Whatever D7 or a proxy put into it."""
    seen = tmp_path / "seen"
    argv = script(tmp_path, f'printf %s "$D7AGENT_MESSAGE" >{seen}')

    async def story(w: World, hooks: Hooks) -> None:
        w.configure(profile(), hooks=config.Hooks(on_rejected=argv))
        await w.calm()
        hook(w, "rejected", "a\0b\nc\x1b" + "d" * 5000)
        await finished(hooks)
        assert seen.read_text() == "a b c " + "d" * 994

    tell(tmp_path, story)


def test_a_refresh_hook_finds_the_new_token_in_the_file(tmp_path: Path) -> None:
    """So that it can make a service read it again."""
    seen, sink = tmp_path / "seen", tmp_path / "sink"
    argv = script(tmp_path, f"cat {sink} >{seen}")

    async def story(w: World) -> None:
        sinks = Sinks(w.agent)
        hooks = Hooks(w.agent, ENVIRONMENT, before=sinks.settled)
        w.configure(profile(Sink(str(sink), "token")), hooks=config.Hooks(on_refreshed=argv))
        await w.calm()
        await w.refresh()
        await finished(hooks)
        assert seen.read_text() == f"{w.token}\n"
        await hooks.close()
        await sinks.close(5)

    agents.run(tmp_path, story)


@pytest.mark.system
def test_a_real_agent_runs_hooks_and_shows_their_failures(tmp_path: Path) -> None:
    """From config.toml to the journal and `status --json`."""
    argv = script(tmp_path, "echo hello from $D7AGENT_EVENT; exit 4")
    with Sandbox(Settings(lifetime=600)) as box, Live() as live:
        (live.root / "cred").mkdir(mode=0o700)
        live.config.mkdir(parents=True)
        (live.config / "config.toml").write_text(f'[hooks]\non_refreshed = ["{argv[0]}"]\n')
        live.start()
        live.login(box.url, "--store", f"directory:{live.root}/cred")
        while not (hooks := live.status()["agent"]["hooks"]):
            assert live.pid
        assert hooks == [f"on_refreshed: {argv[0]} ended with status 4 (profile default)"]
        assert "on_refreshed (default): hello from refreshed" in live.journal()
        live.stop()
