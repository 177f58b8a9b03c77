"""What keeps d7agent fast and small, held by counts, never by times: imports, system calls, memory, turns, logins."""

import asyncio
import gc
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from d7agent.agent import replies
from d7agent.agent.access import Policy
from d7agent.agent.agent import Agent
from d7agent.agent.keeper import Keeper
from d7agent.agent.server import Server
from d7agent.agent.service import Service
from d7agent.agent.waiters import SLACK, Waiter, Waiters
from d7agent.core import answers, states
from d7agent.core.clock import SystemClock
from d7agent.core.config import Config
from d7agent.core.errors import AgentError
from d7agent.core.model import Grant, Stamp
from d7agent.core.states import Ask
from d7agent.sandbox import Sandbox, Settings
from tests.support import agents, processes
from tests.support.agents import FakeHelpers, World
from tests.support.desk import Around
from tests.support.fakes import FakeClock, FakeD7, FakeStore
from tests.support.live import COMMAND, Live, notify_socket, wait_ready
from tests.support.osfaults import paths_in
from tests.support.wire import BOTH_LOOPS, run

REQUEST: Final = b'{"method":"io.d7agent.GetToken"}\0'
SHORT_WAY: Final = {"_socket", "d7agent", "d7agent.__main__"}
AGENT_MODULES: Final = 260  # 236 today, 81 of them ours and 29 of asyncio; a heavy package brings a hundred
WARM: Final = 500  # requests after which every cache is filled
MANY: Final = 10_000
REFRESHES: Final = 1_000  # asked for; one in four finds a login 10 s old or less, and is none
LEFT: Final = 200  # blocks that so many requests may leave behind: none of them one each
TRIP: Final = 3.5  # system calls: the loop's wait, recv, send; a fourth would make it 4
VISIT: Final = 12.5  # ten, and two when the client connects before it asks: see the test
SERVED: Final = 400  # requests of each kind


def test_the_short_way_imports_nothing_more() -> None:
    """`d7agent token` loads its door, the package around it and `_socket` on its way to the answer."""
    assert processes.modules_after_import("d7agent.__main__") <= SHORT_WAY


def test_the_agent_imports_few_modules() -> None:
    """The resident process holds no more code than it uses."""
    assert len(processes.modules_after_import("d7agent.agent.daemon")) <= AGENT_MODULES


def ask_often(path: Path, count: int) -> None:
    """So many requests on one connection."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(path))
        for _ in range(count):
            sock.send(REQUEST)
            assert b'"access_token"' in sock.recv(65536)


def visit_often(path: Path, count: int) -> None:
    """So many connections with one request each."""
    for _ in range(count):
        ask_often(path, 1)


def marked(path: Path) -> None:
    """A request whose answer marks a place in the trace."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(path))
        sock.send(b'{"method":"org.varlink.service.GetInfo"}\0')
        assert b"vendor" in sock.recv(65536)


def traced(live: Live, trace: Path, story: Callable[[], None]) -> list[str]:
    """The lines of strace about an agent of the default verbosity to which this happens."""
    strace = shutil.which("strace")
    assert strace, "NOT TESTED: install strace"
    with notify_socket(live.root / "notify") as (path, listening), live.log.open("ab") as log:
        argv = [strace, "-f", "-qq", "-o", str(trace), COMMAND, "run"]
        live.process = subprocess.Popen(
            argv, env={**live.environment, "NOTIFY_SOCKET": path}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        wait_ready(listening, live.process, live.log)
    story()
    live.run("stop", check=True)
    live.process.wait(20)
    live.process = None
    return trace.read_text(errors="replace").splitlines()


def calls_between_marks(lines: list[str]) -> list[int]:
    """How many system calls the serving thread made from each mark to the next."""
    marks = [number for number, line in enumerate(lines) if "sendto(" in line and "vendor" in line]
    thread = lines[marks[0]].partition(" ")[0]
    begun = re.compile(rf"{thread} +\w+\(")  # neither the second half of one that was interrupted, nor a signal
    return [sum(1 for line in lines[a:b] if begun.match(line)) for a, b in itertools.pairwise(marks)]


@pytest.mark.system
def test_system_calls_of_a_request(tmp_path: Path) -> None:
    """One wait, one recv and one send a request on an open connection; a client that comes and goes costs seven more.

    Those are to accept it, to see that it is a socket, who it is, to watch it, to read its end, to close, and the
    other wait. Where the agent is faster than the client's request, it looks for that twice.
    """
    with Sandbox(Settings()) as box, Live() as live:
        live.start()
        live.login(box.url, "--store", f"directory:{tmp_path}/credential")
        live.stop()

        def story() -> None:
            for what in (ask_often, ask_often, visit_often):
                marked(live.socket)
                what(live.socket, SERVED)
            marked(live.socket)

        _, trips, visits = calls_between_marks(traced(live, tmp_path / "trace", story))
    assert 2 < trips / SERVED <= TRIP
    assert 2 < visits / SERVED <= VISIT


class Present(FakeClock):
    """A fake world's clock that shows the real time."""

    def now(self) -> Stamp:
        return SystemClock().now()

    @property
    def true_wall(self) -> float:
        return self.now().wall


Story = Callable[[asyncio.AbstractEventLoop, Path], Awaitable[None]]


async def serving(story: Story) -> None:
    """A server with the real service and agent, a fake D7 behind them, and a token in hand."""
    clock = Present()
    with tempfile.TemporaryDirectory(prefix="d7") as name, socket.socket(socket.AF_UNIX) as sock:
        folder, path = Path(name), Path(name, "s")
        (folder / "state").mkdir()
        agent = Agent(paths_in(folder), clock, FakeHelpers(FakeD7(clock), FakeStore()))
        server = Server(Service(agent, Policy(os.geteuid(), system=False), Around()), clock=clock)
        agent.alarm.start()
        agent.apply(Config(profiles={"default": agents.profile()}))
        sock.bind(str(path))
        await server.listen(sock)
        await asyncio.to_thread(ask_often, path, WARM)
        try:
            await story(asyncio.get_running_loop(), path)
        finally:
            await server.close(1.0)
            await agent.close()


@BOTH_LOOPS
@pytest.mark.parametrize("often", [ask_often, visit_often])
def test_requests_leave_no_memory_behind(loop: str, often: Callable[[Path, int], None]) -> None:
    """After 10,000 requests Python's allocator holds as many blocks as before them."""

    async def story(_: asyncio.AbstractEventLoop, path: Path) -> None:
        await asyncio.to_thread(often, path, WARM)
        gc.collect()
        before = sys.getallocatedblocks()
        await asyncio.to_thread(often, path, MANY)
        gc.collect()
        assert sys.getallocatedblocks() - before < LEFT

    run(loop, serving(story))


def blocks(world: World) -> int:
    """What Python's allocator holds, the fake D7's memory of its own tokens aside."""
    world.d7.logins.clear()
    for token in list(world.d7._ends)[:-1]:
        del world.d7._ends[token]
    gc.collect()
    return sys.getallocatedblocks()


def test_refreshes_leave_no_memory_behind(tmp_path: Path) -> None:
    """After 1,000 refreshes more Python's allocator holds as many blocks as after the first hour of them."""

    async def story(world: World) -> None:
        world.d7.lifetime = 60.0
        world.configure(agents.profile())
        await world.calm()
        for _ in range(WARM):
            await world.refresh()
        before = blocks(world)
        for _ in range(REFRESHES):
            await world.refresh()
        assert len(world.d7.logins) > REFRESHES / 2
        assert blocks(world) - before < LEFT

    agents.run(tmp_path, story)


def test_an_idle_agent_has_one_timer() -> None:
    """With a token in hand and nobody asking, the loop has nothing to wake up for but the alarm of all profiles."""

    async def story(loop: asyncio.AbstractEventLoop, _: Path) -> None:
        timers: list[asyncio.TimerHandle] = getattr(loop, "_scheduled")  # noqa: B009  of asyncio's own loop
        assert [t for t in timers if not t.cancelled()] != []
        assert len([t for t in timers if not t.cancelled()]) == 1

    run("asyncio", serving(story))


def test_a_quiet_hour_touches_no_profile(tmp_path: Path) -> None:
    """Between two refreshes the alarm turns (twice a minute: test_timer), and no profile is looked at once."""

    async def story(world: World) -> None:
        world.d7.lifetime = 86_400.0
        world.configure(agents.profile())
        await world.calm()
        looked = 0

        def look(_: Keeper) -> None:
            nonlocal looked
            looked += 1

        world.agent.on_changed.append(look)
        for _ in range(120):
            await world.pass_time(world.agent.alarm.longest_sleep)
        assert looked == 0

    agents.run(tmp_path, story)


def test_a_day_has_as_many_logins_as_the_schedule_says(tmp_path: Path) -> None:
    """Tokens of an hour, refreshed at three quarters of life: 32 logins a day, give or take the jitter."""

    async def story(world: World) -> None:
        world.configure(agents.profile())
        await world.calm()
        for _ in range(2 * 60 * 24):
            await world.pass_time(30.0)
            ask(world, 1.0, [])
        assert 30 <= len(world.d7.logins) <= 36

    agents.run(tmp_path, story)


Found = Grant | AgentError


def ask(world: World, seconds: float, into: list[Found]) -> Waiter | None:
    """A caller who waits so long."""
    now = world.clock.now()
    return world.keeper.ask(Ask(asked=now, deadline=now.boot + seconds), into.append)


def test_a_stampede_is_one_login(tmp_path: Path) -> None:
    """10,000 callers on an empty agent are answered by one login, with one look at each when it ends."""

    async def story(world: World) -> None:
        world.helpers.hold = asyncio.Event()
        world.configure(agents.profile())
        found: list[Found] = []
        for _ in range(MANY):
            ask(world, 30.0, found)
        world.helpers.hold.set()
        await world.calm()
        assert len(world.d7.logins) == 1
        assert len(found) == MANY
        assert {type(one) for one in found} == {Grant}

    agents.run(tmp_path, story)


def test_a_caller_who_gives_up_costs_the_others_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,000 who wait for a D7 that hangs, each runs out of time alone: the others are not looked at for that."""
    looks = 0
    answer = answers.answer

    def counted(state: states.State, asked: Ask, now: Stamp) -> answers.Answer:
        nonlocal looks
        looks += 1
        return answer(state, asked, now)

    async def story(world: World) -> None:
        nonlocal looks
        world.helpers.hold = asyncio.Event()
        world.configure(agents.profile())
        found: list[Found] = []
        for number in range(1000):
            ask(world, 5.0 + number, found)
        looks = 0
        for number in range(100):
            world.clock.advance(5.0 if number == 0 else 1.0)
            world.agent.alarm._turn()
        assert len(found) == 100
        assert looks <= 3 * 100
        world.helpers.hold.set()

    monkeypatch.setattr(answers, "answer", counted)
    agents.run(tmp_path, story)


def test_a_token_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask for a token, its reply is encoded once, and once more for the next token."""
    encoded = 0
    encode = replies.Head.encode

    def counted(head: replies.Head, *parts: Any) -> None:
        nonlocal encoded
        encoded += 1
        encode(head, *parts)

    async def story(world: World) -> None:
        world.configure(agents.profile())
        await world.calm()
        for expected in (1, 2):
            for _ in range(100):
                grant: list[Any] = []
                ask(world, 1.0, grant)
                world.keeper.frame(grant[0], continues=True)
            assert encoded == expected
            await world.refresh()

    monkeypatch.setattr(replies.Head, "encode", counted)
    agents.run(tmp_path, story)


def test_callers_who_leave_are_forgotten() -> None:
    """What is kept of those who wait does not grow with those who have left."""
    waiters = Waiters()
    stays = Waiter(Ask(asked=Stamp(boot=0.0, wall=0.0), deadline=30.0), lambda _: None)
    waiters.add(stays)
    for number in range(MANY):
        leaves = Waiter(Ask(asked=Stamp(boot=0.0, wall=0.0), deadline=20.0 + number), lambda _: None)
        waiters.add(leaves)
        waiters.remove(leaves)
    assert len(waiters) == 1
    assert len(waiters._heap) <= 2 + SLACK
    assert (waiters.deadline, waiters.overdue(29.0), waiters.overdue(30.0)) == (30.0, [], [stays])
