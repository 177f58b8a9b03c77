"""The one place that reads time. CLOCK_BOOTTIME counts through suspends and never steps (clock_gettime(2))."""

import time
from pathlib import Path
from typing import Protocol

from d7agent.core.model import Stamp


class Clock(Protocol):
    """Where the agent gets its instants from; tests hand in a fake."""

    def now(self) -> Stamp:
        """The present instant on both clocks."""


class SystemClock:
    """The kernel's clocks. The boot id (random(4), /proc/sys/kernel/random/boot_id) is read once."""

    def __init__(self) -> None:
        self.boot_id = read_boot_id()

    def now(self) -> Stamp:
        """The present instant on both clocks."""
        return Stamp(boot=boot_time(), wall=time.time(), boot_id=self.boot_id)


def boot_time() -> float:
    """CLOCK_BOOTTIME in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def monotonic_usec() -> int:
    """CLOCK_MONOTONIC in microseconds, as a service manager wants it (sd_notify(3), MONOTONIC_USEC=)."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def read_boot_id() -> str:
    """The kernel's id of this boot, or "" where /proc does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
