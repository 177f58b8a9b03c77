"""Crash consistency: SIGKILL at random moments while the agent logs in, stores, reloads, writes sinks and state."""

import contextlib
import json
import os
import random
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from d7agent.client.blocking import Agent, AgentError
from d7agent.sandbox import Sandbox, Settings
from tests.support.live import Live
from tests.support.scene import Scene

LIFETIME: Final = 2.0  # seconds of a token: there is always a refresh near
BUSY: Final = "busy"  # a profile that may log in as often as it likes, and always has to
THRIFTY: Final = "thrifty"  # one with the usual budget and nothing remembered: it wants a login after every kill
CREDENTIALS: Final = {"first-id": "first-secret", "second-id": "second-secret"}
CAPACITY, PER_HOUR = 30, 30  # of the usual budget (d7agent.core.budget)
JWT: Final = re.compile(r"[\w-]+\.[\w-]+\.[\w-]{43}")  # a whole one: an HS256 signature has 43 characters
SINKS: Final = {
    "token": re.compile(rf"{JWT.pattern}\n"),
    "env": re.compile(rf"D7_API_TOKEN={JWT.pattern}\nD7_TOKEN_BOOT_ID=[0-9a-f-]{{36}}\nD7_TOKEN_USE_BEFORE=\d+\n"),
    "json": re.compile(r"\{.*\}\n"),
}
PATIENCE: Final = 20.0  # seconds after which what should come by itself counts as missing


class Broken(AssertionError):
    """What a kill has broken."""


class Kills:
    """One home, and an agent in it that is killed again and again. `run` raises Broken."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.live = Live()
        self.scene = Scene(self.live)
        self.box = Sandbox(Settings(lifetime=LIFETIME, applications=CREDENTIALS))
        self.thrifty = Sandbox(Settings(no_exp=True, applications=CREDENTIALS))
        self.begun = 0.0
        self.restarts = 0

    def run(self, count: int) -> dict[str, int]:
        """So many kills; what happened meanwhile, in figures."""
        with self.live, self.box, self.thrifty:
            self._prepare()
            for _ in range(count):
                self._round()
            self._start()
            self._check_running()
            self._check_budget()
            self.live.stop()
            return {
                "kills survived": count,
                "logins": self.box.stats.logins,
                "logins of the thrifty profile": self.thrifty.stats.logins,
            }

    def _prepare(self) -> None:
        folder = self.live.config / "profiles"
        folder.mkdir(parents=True, mode=0o700)
        for name, box in ((BUSY, self.box), (THRIFTY, self.thrifty)):
            self.scene.credential(name, {"client_id": "first-id", "client_secret": "first-secret"})
            self._write_profile(name, box)
        self.begun = time.monotonic()

    def _write_profile(self, name: str, box: Sandbox) -> None:
        lines = [f'base_url = "{box.url}"', f'store = "directory:{self.live.root}/cred-{name}"']
        lines += [f'max_age = "{self.chance.randrange(1, 9)}h"']
        lines += ["logins_per_hour = 3600"] if name == BUSY else ["remember_token = false"]
        for form in SINKS:
            if form == "token" or self.chance.random() < 0.8:
                lines += ["[[sinks]]", f'path = "{self._sink(name, form)}"', f'format = "{form}"']
        path = self.live.config / "profiles" / f"{name}.toml"
        new = path.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        new.replace(path)

    def _sink(self, name: str, form: str) -> Path:
        return self.live.runtime / "sinks" / f"{name}.{form}"

    def _round(self) -> None:
        """Start, look, work, kill."""
        if self.chance.random() < 0.1:
            self.live.start(ready=False)
            self._kill_after(self.chance.uniform(0, 0.6))
            return
        self._start()
        with self._at_work():
            self._kill_after(self.chance.uniform(0, 1.2))
        self._check_files()

    def _start(self) -> None:
        self.live.start()
        self.restarts += 1
        with Agent(str(self.live.socket)) as agent:
            status = agent.status()["agent"]
            _need(status["pid"] == self.live.pid, "another agent serves the socket")
            _need(status["config_problems"] == [], f"the configuration is broken: {status['config_problems']}")
        if self.restarts % 10 == 1:
            self._check_running()

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """Clients that store, renew, reject and reload without pause while the block runs."""
        workers = [threading.Thread(target=self._work, args=(act,)) for act in (self._store, self._reload, self._renew)]
        for worker in workers:
            worker.start()
        try:
            yield
        finally:
            for worker in workers:
                worker.join()

    def _work(self, act: Any) -> None:
        with contextlib.suppress(AgentError, OSError), Agent(str(self.live.socket), timeout=10) as agent:
            while True:
                act(agent)

    def _store(self, agent: Agent) -> None:
        name = self.chance.choice(list(CREDENTIALS))
        given = {"profile": BUSY, "client_id": name, "client_secret": CREDENTIALS[name]}
        agent.call("StoreCredential", given | {"verify": self.chance.random() < 0.5})

    def _reload(self, agent: Agent) -> None:
        self._write_profile(BUSY, self.box)
        agent.call("Reload")

    def _renew(self, agent: Agent) -> None:
        with contextlib.suppress(AgentError):
            agent.call("RenewToken", {"profile": BUSY, "max_wait": 1})
        agent.status()

    def _kill_after(self, seconds: float) -> None:
        time.sleep(seconds)  # real time: the moment is what is random
        helpers = [os.pidfd_open(pid) for pid in self._helpers()]
        self.live.kill()
        for helper in helpers:
            os.close(helper)
        end = time.monotonic() + PATIENCE
        while left := self._helpers():
            _need(time.monotonic() < end, f"helpers outlive their agent: {left}")
            time.sleep(0.01)  # real time: the kernel ends them

    def _helpers(self) -> list[int]:
        """The helpers that belong to this home, whoever their parent is."""
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                ours = folder.name.isdigit() and str(self.live.home).encode() in (folder / "environ").read_bytes()
                if ours and b"d7agent.helper" in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
        return found

    def _check_files(self) -> None:
        """With no agent running: everything on disk is whole."""
        for path in self.live.state.glob("*.state"):
            _need("level" in json.loads(path.read_bytes()), f"{path.name} is broken")
        for name in (BUSY, THRIFTY):
            for form, whole in SINKS.items():
                path = self._sink(name, form)
                _need(not path.exists() or whole.fullmatch(path.read_text()), f"half a sink: {path.name}")

    def _check_running(self) -> None:
        """With an agent running: it gets itself a token with a whole credential, and tidies up."""
        self.scene.wait(BUSY, lambda profile: profile["state"] in ("fresh", "stale") and _sinks_are_well(profile))
        folder = self.live.root / f"cred-{BUSY}"
        found = tuple((folder / part).read_text().strip() for part in ("client_id", "client_secret"))
        _need(CREDENTIALS.get(found[0]) == found[1], f"the credential is broken: {found}")
        left = [path.name for path in self.live.root.rglob(".*.tmp")]
        _need(left == [], f"half-made files are left: {left}")
        self._check_budget()

    def _check_budget(self) -> None:
        allowed = CAPACITY + PER_HOUR * (time.monotonic() - self.begun) / 3600 + 1
        made = self.thrifty.stats.logins
        _need(made <= allowed, f"{made} logins where the budget has {allowed:.1f}")


def _sinks_are_well(profile: dict[str, Any]) -> bool:
    return bool(profile["sinks"]) and all(sink["ok"] for sink in profile["sinks"])


def _need(fine: object, what: str) -> None:
    if not fine:
        raise Broken(what)
