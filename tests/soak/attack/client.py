"""The well-behaved client: what it waits for its token, on a connection that it keeps and on a new one each time."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from tests.soak.broken import need

ASK: Final = b'{"method":"io.d7agent.GetToken"}\0'
PAUSE: Final = 0.0005  # seconds between two questions of a client that has something else to do as well
SPELL: Final = 0.25  # seconds of each way in turn
PRIORITY: Final = 20  # of SCHED_FIFO (sched(7))
PATIENCE: Final = 10.0  # seconds after which a token that does not come has failed the round


class Waits(NamedTuple):
    """Seconds of each question: on the connection that stays open, and with a new connection each."""

    kept: list[float]
    new: list[float]


@contextmanager
def measuring(pid: int) -> Iterator[None]:
    """The agent alone on one processor, everybody else on another, and the one that measures before all of those.

    How the kernel shares a processor among a client, its attackers and whatever else runs here is not what is measured.
    Needs root and two processors.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    ours, agents = os.sched_getaffinity(0), [int(task) for task in os.listdir(f"/proc/{pid}/task")]
    for task in agents:
        os.sched_setaffinity(task, {first})
        os.sched_setscheduler(task, os.SCHED_FIFO, os.sched_param(PRIORITY))
    os.sched_setaffinity(0, {others[0]})
    os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    try:
        yield
    finally:
        for task in (0, *agents):
            with suppress(ProcessLookupError):  # a thread that has ended
                os.sched_setscheduler(task, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(0, ours)


class Client:
    """Asks both ways."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.waits = Waits([], [])

    def ask(self, seconds: float) -> None:
        """Ask for so long, in spells of the one way and the other."""
        end, spell = time.perf_counter() + seconds, min(SPELL, seconds / 2)
        while time.perf_counter() < end:
            self._keep(time.perf_counter() + spell)
            self._visit(time.perf_counter() + spell)

    def _keep(self, end: float) -> None:
        with self._connected() as sock:
            for _ in range(10):  # of which the first ones show the agent what client this is
                _token(sock)
            self._timed(self.waits.kept, lambda: _token(sock), end)

    def _visit(self, end: float) -> None:
        def visit() -> None:
            with self._connected() as sock:
                _token(sock)

        self._timed(self.waits.new, visit, end)

    def _timed(self, waits: list[float], ask: Callable[[], None], end: float) -> None:
        """Ask, once at least."""
        while not waits or time.perf_counter() < end:
            began = time.perf_counter()
            ask()
            waits.append(time.perf_counter() - began)
            time.sleep(PAUSE)  # real time: a client's own

    def _connected(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self._path)
        sock.settimeout(PATIENCE)
        return sock


def _token(sock: socket.socket) -> None:
    sock.send(ASK)
    reply = sock.recv(65_536)
    need(b'"access_token"' in reply, f"a well-behaved client got {reply[:200]!r}")


def percentile(waits: list[float], percent: int) -> float:
    """In microseconds."""
    return sorted(waits)[len(waits) * percent // 100] * 1e6
