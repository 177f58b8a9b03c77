"""Starts an agent, sees that it is the only one, and kills it with SIGKILL; nothing of it may live on."""

import contextlib
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Final

from d7agent.client.blocking import Agent
from tests.soak.broken import Broken, need
from tests.support.live import COMMAND, START_LIMIT, Live
from tests.support.staging import HELPER, helpers_of

ORPHANS_END: Final = 5.0  # seconds, on a busy machine, for what the kernel and the helper itself do at once
REFUSED: Final = "already runs"


class Killer:
    """The lives of the agents of one home."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self.met = 0  # kills that met a helper at work
        self.refused = 0  # second agents

    def start(self) -> None:
        """One more life. Raises Broken if the agent is not the one that serves, or finds its files broken."""
        self._live.start()
        self._only_one()

    def start_two(self) -> None:
        """Two agents at once: one serves, the other says so and ends."""
        other = self._rival()
        try:
            with contextlib.suppress(AssertionError):  # it may be the one that has to go
                self._live.start()
            mine = self._live.process
            if mine is None or mine.poll() is not None:
                self._live.process, other = other, mine or other
            need(other.wait(START_LIMIT), "a second agent ended as if all were well")
            self.refused += 1
        except subprocess.TimeoutExpired:
            other.kill()
            raise Broken("two agents at once") from None
        self._only_one()

    def _rival(self) -> "subprocess.Popen[bytes]":
        with self._live.log.open("ab") as log:
            return subprocess.Popen(
                [COMMAND, "run"], env=self._live.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _only_one(self) -> None:
        with Agent(str(self._live.socket)) as agent:
            status = agent.status()["agent"]
        need(status["pid"] == self._live.pid, "another agent serves the socket")
        need(status["config_problems"] == [], f"the configuration is broken: {status['config_problems']}")

    def kill_during_start(self, seconds: float) -> None:
        """A life that ends before it is ready."""
        self._live.start(ready=False)
        self.kill(seconds)

    def kill(self, seconds: float) -> None:
        """SIGKILL after so many seconds, and a look that the helpers go as well."""
        time.sleep(seconds)  # real time: the moment is what is random
        helpers = [fd for pid in helpers_of(self._live.pid) if (fd := _pidfd(pid)) is not None]
        self.met += bool(helpers)
        self._live.kill()
        try:
            end = time.monotonic() + ORPHANS_END
            need(all(_ended(helper, end) for helper in helpers), "a helper outlives its agent")
            self._nobody_left(end)
        finally:
            for helper in helpers:
                os.close(helper)

    def _nobody_left(self, end: float) -> None:
        """Nor one that was started in the very moment of the kill, which only its environment gives away."""
        while left := self._helpers():
            need(time.monotonic() < end, f"helpers outlive their agent: {left}")
            time.sleep(0.01)  # real time: the kernel ends them

    def _helpers(self) -> list[int]:
        """The helpers that belong to this home, whoever their parent is; root alone can tell."""
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                ours = folder.name.isdigit() and HELPER in (folder / "cmdline").read_bytes()
                if ours and str(self._live.home).encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return found


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _ended(pidfd: int, end: float) -> bool:
    return bool(select.select([pidfd], [], [], max(0.0, end - time.monotonic()))[0])
