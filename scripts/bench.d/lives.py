"""An agent's life: its start, its logins, its size, its sleep."""

import shutil
import socket
import subprocess
import time
from typing import Self

from commands import BARE, bare
from figures import in_turns
from place import Home
from processes import NULL, children_cpu, cpu, peak, rss, run, unique, wakeups
from scene import RENEWABLE, US, Scene, service_of, until
from wire import MOST, TOKEN_REQUEST

from d7agent.client.blocking import Agent
from d7agent.sandbox import Sandbox, Settings
from tests.support.live import COMMAND

SHORT = 2.0  # seconds a token lives where many refreshes are wanted: one a second and profile
MANY = 4  # profiles that refresh at once


def measure_start(scene: Scene) -> None:
    """Start to READY, and the first token over a socket that starts the agent."""
    with Home() as home:
        home.profile("default", scene.box.url)
        home.begin()
        service_of(home).prove(b'"access_token"')
        home.stop()
        rounds = in_turns(scene.some(3, 15), {US: lambda: _ready(home), BARE: bare(scene)})
        scene.report.beside("start", "start to READY", "ms", rounds, {BARE: 20.0})
        activate = shutil.which("systemd-socket-activate")
        if activate is None:
            scene.report.without("cold start by socket activation", "no systemd-socket-activate on this machine")
            return
        rounds = in_turns(scene.some(3, 15), {US: lambda: _cold(home, activate), BARE: bare(scene)})
        scene.report.beside("start", "first token by socket activation, remembered", "ms", rounds)


def _ready(home: Home) -> float:
    began = time.perf_counter()
    home.begin()
    took = time.perf_counter() - began
    home.stop()
    return took * 1e3


def _cold(home: Home, activate: str) -> float:
    path = home.root / "cold.sock"
    path.unlink(missing_ok=True)
    passed = [f"-E{name}" for name in home.environment]
    with home.log.open("ab") as log:
        argv = [activate, "-l", str(path), *passed, COMMAND, "run"]
        process = subprocess.Popen(argv, env=home.environment, stdin=NULL, stdout=log, stderr=log)
    try:
        until(path.exists, "systemd-socket-activate")
        began = time.perf_counter()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(str(path))
            sock.send(TOKEN_REQUEST)
            reply = sock.recv(MOST)
        took = time.perf_counter() - began
    finally:
        process.terminate()
        process.wait()
    if b'"access_token"' not in reply:
        raise RuntimeError(f"a cold agent answers {reply!r}")
    return took * 1e3


def measure_login(scene: Scene) -> None:
    """What a login takes, from the call to the token, with the helper that makes it."""
    pid, walls, used = scene.home.pid, [], []
    time.sleep(max(0.0, scene.began + RENEWABLE - time.monotonic()))
    with Agent(str(scene.home.socket)) as agent:
        for profile in scene.spare:
            before, began = children_cpu(pid), time.perf_counter()
            agent.call("RenewToken", {"profile": profile})
            walls.append((time.perf_counter() - began) * 1e3)
            until(lambda before=before: children_cpu(pid) > before, "the helper's end")  # type: ignore[misc]
            used.append((children_cpu(pid) - before) * 1e3)
    count = len(walls)
    rounds = {US: walls, BARE: [bare(scene)() for _ in range(count)]}
    if scene.peers.oidc is not None:
        forced = [shutil.which("oidc-token") or "", "--force-new", "bench"]
        rounds["oidc-token --force-new"] = [run(forced, scene.peers.oidc).wall * 1e3 for _ in range(count)]
    scene.report.beside("login", "RenewToken, the helper included", "ms", rounds)
    scene.report.alone("login", "CPU of that helper", "ms", used)


def measure_memory(scene: Scene) -> None:
    """Size when idle, after a refresh, after many; no growth."""
    report = scene.report
    with Home() as idle:
        idle.begin()
        report.alone("memory", "resident, no token yet", "MiB", [rss(idle.pid)])
    report.alone("memory", "resident after a refresh", "MiB", [rss(scene.home.pid)], bar=28.0)
    report.alone("memory", "resident at its highest, after all of the above", "MiB", [peak(scene.home.pid)])
    own = unique(scene.home.pid)
    if own is None:
        report.without("unique size", "only root may read it of a process that is not dumpable")
    else:
        report.alone("memory", "unique (what no other process shares)", "MiB", [own])
    for name, service in (("ssh-agent", scene.peers.ssh_agent),):
        if service is not None:
            report.beside("memory", "resident", "MiB", {US: [rss(scene.home.pid)], name: [rss(service.pid)]})
    _grow(scene, scene.some(40, 1000))


def _grow(scene: Scene, wanted: int) -> None:
    """Refreshes of short tokens, until there were as many as wanted: the size after a tenth of them and at the end."""
    with Sandbox(Settings(lifetime=SHORT)) as box, Home() as home, Agent(str(home.socket)) as agent:
        for number in range(MANY):
            home.profile(f"p{number}", box.url, "remember_token = false\nlogins_per_hour = 3600\n")
        home.begin()

        def refreshes() -> int:
            return sum(profile["serial"] for profile in agent.status()["profiles"])

        until(lambda: refreshes() >= wanted / 10 + MANY, "refreshes", limit=600)
        early = rss(home.pid)
        until(lambda: refreshes() >= wanted + MANY, "refreshes", limit=600)
        late = rss(home.pid)
    scene.report.alone("memory", f"growth over {wanted * 9 // 10} refreshes", "KiB", [(late - early) * 1024], bar=512.0)


class Sleeper:
    """An agent with a token and nobody to ask for it, which is looked at again at the end. Use it with `with`."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._home = Home()
        self._home.profile("default", scene.box.url)

    def __enter__(self) -> Self:
        self._home.begin()
        service_of(self._home).prove(b'"access_token"')
        time.sleep(1)
        self._began = time.monotonic()
        self._before = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        self._home.__exit__()

    def _now(self) -> tuple[int, float]:
        return wakeups(self._home.pid), cpu(self._home.pid)

    def report(self) -> None:
        """How it slept, after 20 s (60 in a full run) at the earliest."""
        least = self._scene.some(20, 60)
        time.sleep(max(0.0, self._began + least - time.monotonic()))
        minutes = (time.monotonic() - self._began) / 60
        woken, used = (after - before for after, before in zip(self._now(), self._before, strict=True))
        self._scene.report.alone("idle", "wake-ups a minute, configuration watched", "", [woken / minutes], bar=60.0)
        self._scene.report.alone("idle", "CPU a minute", "ms", [used * 1e3 / minutes])
