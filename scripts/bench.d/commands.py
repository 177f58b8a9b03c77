"""What a script pays: commands, the shell library, and the clients for Python."""

import asyncio
import shutil
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from figures import in_turns
from processes import run
from scene import SINK, US, Scene, until

from d7agent.client import aio, blocking
from d7agent.client.live import Token
from tests.support.live import COMMAND

BARE = "python -I -c pass"
LIBRARY = Path(__file__).parent.parent / "d7agent.sh"
SLOW = ("keyring", "aws")  # those that take more than a tenth of a second


def milliseconds(argv: list[str], environment: dict[str, str]) -> Callable[[], float]:
    """Runs a command that has to succeed."""

    def once() -> float:
        ran = run(argv, environment)
        if ran.status:
            raise RuntimeError(f"{argv} fails with {ran.status}")
        return ran.wall * 1e3

    return once


def bare(scene: Scene) -> Callable[[], float]:
    """The interpreter that starts and ends."""
    return milliseconds([sys.executable, "-I", "-c", "pass"], scene.home.environment)


def measure_command(scene: Scene) -> None:
    """`token` and `header` beside the bare interpreter and what prints a secret elsewhere."""
    report, environment = scene.report, scene.home.environment
    token = milliseconds([COMMAND, "token"], environment)
    others = {name: other.wall for name, other in scene.peers.commands().items()}
    slow = {name: others.pop(name) for name in tuple(others) if name.startswith(SLOW)}
    walls = in_turns(scene.some(12, 60), {US: token, BARE: bare(scene), **others})
    report.beside("command", "`d7agent token`", "ms", walls, {BARE: 1.4})
    if slow:
        report.beside("command", "`d7agent token`", "ms", in_turns(scene.some(3, 10), {US: token, **slow}))
    header = {US: milliseconds([COMMAND, "header"], environment), BARE: bare(scene)}
    report.beside("command", "`d7agent header`", "ms", in_turns(scene.some(10, 40), header), {BARE: 1.4})


def measure_shell(scene: Scene) -> None:
    """A token in a shell loop: from the always-fresh file, and by starting a program for each."""
    fresh = scene.home.runtime / "d7agent" / "default.env"
    profile = scene.home.config / "profiles" / "default.toml"
    if not fresh.exists():
        profile.write_text(f"{profile.read_text()}\n{SINK}")
        scene.home.run("reload", check=True)
        until(fresh.exists, "the always-fresh file")
    path = f"{Path(COMMAND).parent}:{scene.home.environment['PATH']}"
    environment = scene.home.environment | {"PATH": path}
    loops = {
        US: _loop(f'. "{LIBRARY}"', "d7_token -v T", 500, environment),
        "T=$(d7_token)": _loop(f'. "{LIBRARY}"', "T=$(d7_token)", 100, environment),
        "T=$(d7agent token)": _loop("", "T=$(d7agent token)", 10, environment),
    }
    if scene.peers.oidc is not None:
        loops["T=$(oidc-token …)"] = _loop("", "T=$(oidc-token bench)", 20, scene.peers.oidc)
    walls = in_turns(scene.some(5, 21), loops)
    scene.report.beside("shell", "`d7_token -v T` in a loop of sh", "us", walls, {"T=$(oidc-token …)": 1.0})


def _loop(before: str, body: str, count: int, environment: dict[str, str]) -> Callable[[], float]:
    """Microseconds of one turn; what the shell takes to start and to count is taken off."""
    shell = shutil.which("sh") or "/bin/sh"
    script = f'{before}\ni=0\nwhile [ $i -lt $1 ]; do {body}; i=$((i+1)); done\n[ "$1" = 0 ] || [ -n "$T" ]'
    full, empty = ([shell, "-c", script, "sh", str(turns)] for turns in (count, 0))
    once, idle = milliseconds(full, environment), milliseconds(empty, environment)
    return lambda: (once() - idle()) / count * 1e3


def measure_client(scene: Scene) -> None:
    """The clients for Python, in this process."""
    path, count = str(scene.home.socket), scene.some(300, 1000)
    live = Token(socket=path)
    with blocking.Agent(path) as kept:
        calls: dict[str, Callable[[], object]] = {
            "blocking, kept connection": kept.token,
            "blocking, a connection each": lambda: blocking.token(socket=path),
            "`Token()` as the SDK reads it": lambda: f"Bearer {live}",
        }
        timed = {name: _each(call, count) for name, call in calls.items()}
        with asyncio.Runner() as runner:
            agent = aio.Agent(socket=path)
            timed["asyncio, kept connection"] = lambda: runner.run(_each_await(agent.token, count))
            walls = in_turns(scene.some(5, 21), timed)
            runner.run(agent.close())
    for name, values in walls.items():
        scene.report.alone("client", f"Python client: {name}", "us", values)
    _measure_sdk(scene)


def _each(call: Callable[[], object], count: int) -> Callable[[], float]:
    def once() -> float:
        began = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - began) / count * 1e6

    return once


async def _each_await(call: Callable[[], Coroutine[Any, Any, object]], count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        await call()
    return (time.perf_counter() - began) / count * 1e6


def _measure_sdk(scene: Scene) -> None:
    """A call of D7's own SDK against the embedded D7, with a live token and with a string."""
    try:
        import direct7
    except ImportError:
        scene.report.without("direct7, D7's SDK", "not installed in this environment")
        return
    tokens = {
        US: Token(socket=str(scene.home.socket)),
        "the same with a string": scene.home.run("token").stdout.strip(),
    }
    calls = {}
    for name, token in tokens.items():
        client = direct7.Client(api_token=token)
        client.host(scene.box.url)
        client.session.trust_env = False
        calls[name] = _each(partial(client.get, scene.box.url, "/messages/v1/balance"), 5)
    scene.report.beside("client", "a call by D7's SDK with `Token()`", "us", in_turns(scene.some(3, 15), calls))
