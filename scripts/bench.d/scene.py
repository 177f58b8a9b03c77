"""What every group of measurements gets: the report, the others, a D7, and an agent with a fresh token."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from figures import Report
from peers import Peers
from place import Home
from wire import TOKEN_REQUEST, Service

from d7agent.sandbox import Sandbox

US = "d7agent"
SINK: Final = '[[sinks]]\npath = "%t/d7agent/default.env"\nformat = "env"\n'
PATIENCE: Final = 60.0  # seconds
RENEWABLE: Final = 10.5  # seconds after a login in which the agent answers RenewToken with the token it has


@dataclass
class Scene:
    """One run of the bench."""

    report: Report
    peers: Peers
    box: Sandbox
    home: Home
    quick: bool
    began: float = 0.0  # when its profiles were logged in, by the monotonic clock

    def some(self, quick: int, full: int) -> int:
        """How many, by the kind of run."""
        return quick if self.quick else full

    @property
    def spare(self) -> list[str]:
        """Profiles whose tokens may be renewed, once each."""
        return [f"spare{number}" for number in range(self.some(4, 12))]

    @property
    def service(self) -> Service:
        """The agent on the wire."""
        return service_of(self.home)


def service_of(home: Home) -> Service:
    """A home's agent on the wire."""
    return Service(str(home.socket), TOKEN_REQUEST, home.pid)


def until(condition: Callable[[], bool], what: str, limit: float = PATIENCE) -> None:
    """Look every 20 ms. Raises RuntimeError after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {limit:.0f} s")
        time.sleep(0.02)


def is_root() -> bool:
    """Whether we are."""
    return os.geteuid() == 0
