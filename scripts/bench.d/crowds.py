"""Many at once: a stampede, subscribers, profiles; and one D7 that hangs."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from place import Home, other_uid
from processes import on_one_processor, rss
from scene import RENEWABLE, US, Scene, service_of, until
from wire import TOKEN_REQUEST, Service, Talk, median_and_99th, visits

from d7agent.client.blocking import Agent
from d7agent.sandbox import Sandbox, Settings

CROWD = (Path(__file__).parent / "crowd.py").read_text()  # handed over as text: another user may not reach the file
OF_A_UID = 8_000  # connections, a few less than the agent lets one uid have
LOGIN = 1.5  # seconds that D7 takes while the stampede comes in


class Crowd:
    """Clients in processes of their own: half of them root's where there are two uids."""

    def __init__(self, home: Home, profile: str, count: int, what: str) -> None:
        uids = [None] if home.uid is None else [home.uid, None]
        parts = [count - count // 2, count // 2] if len(uids) > 1 else [count]
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-I", "-c", CROWD, str(home.socket), profile, str(part), what],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                user=uid,
                group=uid,
            )
            for uid, part in zip(uids, parts, strict=True)
        ]

    def told(self) -> dict[str, float]:
        """The next line of all of them, as one: the first instant and the last, the sum of errors."""
        lines = [json.loads(process.stdout.readline()) for process in self._processes if process.stdout]
        found = {"first": min((line["first"] for line in lines if "first" in line), default=0.0)}
        found["last"] = max(line.get("last", line.get("connected", 0.0)) for line in lines)
        return found | {"errors": sum(line.get("errors", 0) for line in lines)}

    def leave(self) -> None:
        """All hang up."""
        for process in self._processes:
            process.communicate()


class Clocked:
    """A D7 that notes when it gave its last token."""

    def __init__(self, settings: Settings) -> None:
        self.logins: list[float] = []
        self.box = Sandbox(settings, lambda _: self.logins.append(time.monotonic()))


@contextmanager
def crowded(most: int, *profiles: str) -> Iterator[tuple[Clocked, Home, int]]:
    """A D7, an agent that is not yet started, and how many clients it can have."""
    uid = other_uid() if most > OF_A_UID else None
    with ExitStack() as stack:
        clocked = Clocked(Settings())
        stack.enter_context(clocked.box)
        home = stack.enter_context(Home(uid))
        for profile in profiles:
            home.profile(profile, clocked.box.url)
        yield clocked, home, most if uid is not None else min(most, OF_A_UID)


def measure_crowd(scene: Scene) -> None:
    """Everybody at once on an empty agent; a new token for everybody who subscribed."""
    sizes = (1, 100, 10_000)
    with crowded(max(sizes), *(f"p{size}" for size in sizes)) as (clocked, home, most):
        home.begin()
        for size in sizes:
            _ask(home, f"p{size}")
        ready = time.monotonic()
        for size in (1_000, 10_000):
            _stampede(scene, size)
        for size in sizes:
            _push(scene, clocked, home, (f"p{size}", min(size, most)), ready)


def _stampede(scene: Scene, wanted: int) -> None:
    with crowded(wanted, "default") as (clocked, home, count):
        clocked.box.faults.add(f"slow:delay={LOGIN}")
        home.begin()
        crowd = Crowd(home, "default", count, "ask")
        connected = crowd.told()
        answered = crowd.told()
        crowd.leave()
        began = max(clocked.logins[0] + LOGIN, connected["last"])
        report = scene.report
        report.alone("crowd", f"{count:,} clients on an empty agent: logins", "", [len(clocked.logins)], bar=1.0)
        report.alone("crowd", f"{count:,} clients on an empty agent: errors", "", [answered["errors"]], bar=0.0)
        took = (answered["last"] - began) * 1e3
        report.alone("crowd", f"{count:,} clients: login (or last client) to last answer", "ms", [took])


def _push(scene: Scene, clocked: Clocked, home: Home, whom: tuple[str, int], ready: float) -> None:
    profile, count = whom
    before = rss(home.pid)
    crowd = Crowd(home, profile, count, "follow")
    crowd.told()
    errors = crowd.told()["errors"]
    grown = (rss(home.pid) - before) * 1024 / count
    time.sleep(max(0.0, ready + RENEWABLE - time.monotonic()))
    _ask(home, profile, "RenewToken")
    pushed = crowd.told()
    crowd.leave()
    first, last = ((pushed[name] - clocked.logins[-1]) * 1e3 for name in ("first", "last"))
    report, what = scene.report, f"{count:,} subscribers" if count > 1 else "1 subscriber"
    report.alone("crowd", f"{what}: D7's answer to first arrival", "ms", [first])
    report.alone("crowd", f"{what}: D7's answer to last arrival", "ms", [last], bar=1000.0)
    if count > 1:
        report.alone("crowd", f"{what}: errors", "", [errors + pushed["errors"]], bar=0.0)
        report.alone("crowd", f"{what}: memory of one", "KiB", [grown])


def _ask(home: Home, profile: str, method: str = "GetToken") -> None:
    """Ask an agent that may be another user's, which our own clients would not talk to."""
    request = f'{{"method":"io.d7agent.{method}","parameters":{{"profile":"{profile}"}}}}\0'
    Service(str(home.socket), request.encode(), home.pid).prove(b'"access_token"')


def measure_profiles(scene: Scene) -> None:
    """The same question with 1, 100 and 1,000 profiles in the agent."""
    with ExitStack() as stack:
        homes = {}
        for count in (1, 50) if scene.quick else (1, 100, 1000):
            ready_made = {f"P{number}_D7_API_TOKEN": f"ready-made-token-of-p{number}" for number in range(count - 1)}
            home = homes[count] = stack.enter_context(Home(**ready_made))
            home.profile("default", scene.box.url)
            for number in range(count - 1):
                home.write(f"p{number}", f'base_url = "{scene.box.url}"\nstore = "environment:P{number}_"\n')
            home.begin()
            service_of(home).prove(b'"access_token"')
            _settled(home)
        talks = {count: Talk(service_of(home)) for count, home in homes.items()}
        trips: dict[str, list[float]] = {str(count): [] for count in reversed(homes)}
        comings: dict[str, list[float]] = {str(count): [] for count in reversed(homes)}
        with on_one_processor(*(home.pid for home in homes.values())):
            for _ in range(scene.some(7, 21)):
                for count, home in homes.items():
                    trips[str(count)].append(median_and_99th(talks[count].times(500))[0])
                    comings[str(count)].append(median_and_99th(visits(service_of(home), 200))[0])
        most = max(homes)
        for what, found in (("open connection", trips), ("connect, ask, close", comings)):
            named = {US if name == str(most) else f"{name} profile(s)": found[name] for name in found}
            bars = {"1 profile(s)": 1.1}
            scene.report.beside("profiles", f"GetToken with {most:,} profiles, {what}, p50", "us", named, bars)
        size = (rss(homes[most].pid) - rss(homes[1].pid)) * 1024 / (most - 1)
        scene.report.alone("profiles", f"memory of one of {most:,} profiles", "KiB", [size])


def _settled(home: Home) -> None:
    """Wait until every profile has its token."""
    with Agent(str(home.socket)) as agent:
        until(
            lambda: all(profile["serial"] for profile in agent.status()["profiles"]),
            "a token for each profile",
            limit=300,
        )


def measure_hung(scene: Scene) -> None:
    """One D7 hangs, and somebody waits for its token; another profile is asked."""
    with Sandbox(Settings()) as hanging, Home() as home:
        home.profile("default", scene.box.url)
        home.profile("hung", hanging.url)
        hanging.faults.add("hang")
        home.begin()
        service_of(home).prove(b'"access_token"')
        wait = TOKEN_REQUEST.replace(b'"}', b'","parameters":{"profile":"hung","max_wait":60}}')
        waiting = Service(str(home.socket), wait, home.pid).connect()
        waiting.send(wait)
        talks = {US: Talk(service_of(home)), "the same with no D7 hanging": Talk(scene.service)}
        found: dict[str, list[float]] = {name: [] for name in talks}
        with on_one_processor(home.pid, scene.home.pid):
            for _ in range(scene.some(10, 30)):
                for name, talk in talks.items():
                    found[name].append(median(talk.times(500)) * 1e6)
        waiting.close()
    scene.report.beside(
        "hung", "GetToken while the D7 of another profile hangs", "us", found, {"the same with no D7 hanging": 1.1}
    )
    if scene.peers.oidc is not None:
        _hung_oidc(scene, scene.peers.oidc)


def _hung_oidc(scene: Scene, environment: dict[str, str]) -> None:
    """The same with oidc-agent, which is given 3 s."""
    provider = scene.peers.provider
    provider.going_on.clear()
    stuck = subprocess.Popen(["oidc-token", "--force-new", "other"], env=environment, stdout=-3, stderr=-3)
    released = threading.Timer(3.0, provider.going_on.set)
    time.sleep(0.3)
    released.start()
    began = time.perf_counter()
    subprocess.run(["oidc-token", "bench"], env=environment, stdout=-3, stderr=-3, check=False, timeout=20)
    took = time.perf_counter() - began
    released.join()
    stuck.wait(20)
    scene.report.alone("hung", "the same of oidc-agent, whose provider hangs for 3 s", "s", [took])
