"""How the agent stands with its service manager: status line, watchdog and reloads, told as they happen."""

import asyncio
import datetime as dt
from collections import Counter
from typing import Final

from d7agent.agent.agent import Agent
from d7agent.agent.keeper import Keeper
from d7agent.agent.systemd import Notifier
from d7agent.core import answers, lifecycle
from d7agent.core.clock import monotonic_usec
from d7agent.core.model import Stamp

STATUS_EVERY: Final = 1.0  # seconds between two status lines: many changes at once are one
FEW: Final = 3  # profiles told one by one; more are counted
BEATS: Final = 3  # turns of the refresh loop within the manager's limit: two may come late


class Standing:
    """Tells the service manager of one agent; does nothing where there is none.

    WATCHDOG=1 is sent when the alarm has turned, and at no other time: an agent that no longer refreshes is restarted.
    """

    def __init__(self, agent: Agent, notifier: Notifier) -> None:
        self._agent = agent
        self._notifier = notifier
        self._told = ""
        self._next: asyncio.TimerHandle | None = None
        self._serving = self._reloading = False
        if not notifier.active:
            return
        agent.on_changed.append(self._changed)
        agent.on_removed.append(self._changed)
        agent.on_reloading.append(self._begin)
        agent.on_configured.append(self._configured)
        if notifier.watchdog is not None:
            agent.alarm.longest_sleep = min(agent.alarm.longest_sleep, notifier.watchdog / BEATS)
            agent.on_turn.append(lambda: notifier.send("WATCHDOG=1"))

    def ready(self) -> None:
        """The sockets answer."""
        self._serving = True
        self._told = status_line(self._agent)
        self._notifier.send("READY=1", f"STATUS={self._told}")

    def ending(self) -> None:
        """The agent is on its way out."""
        self._serving = False
        if self._next is not None:
            self._next.cancel()
        self._notifier.send("STOPPING=1", "STATUS=ending")

    def _begin(self) -> None:
        if self._serving:
            self._reloading = True
            self._notifier.send("RELOADING=1", f"MONOTONIC_USEC={monotonic_usec()}")

    def _configured(self) -> None:
        if self._reloading:
            self._reloading = False
            self.ready()

    def _changed(self, _: Keeper) -> None:
        if self._serving and self._next is None:
            self._next = asyncio.get_running_loop().call_later(STATUS_EVERY, self._tell)

    def _tell(self) -> None:
        self._next = None
        line = status_line(self._agent)
        if line != self._told:
            self._told = line
            self._notifier.send(f"STATUS={line}")


def status_line(agent: Agent) -> str:
    """Profiles and the next refresh, for `systemctl status`: one line, no secret."""
    now = agent.clock.now()
    keepers = list(agent.keepers.values())
    if len(keepers) <= FEW:
        text = "; ".join(_one(keeper, now) for keeper in keepers) or "no profiles"
    else:
        text = _many(keepers, now)
    return f"configuration not taken: {agent.problems[0]}; {text}" if agent.problems else text


def _one(keeper: Keeper, now: Stamp) -> str:
    at = lifecycle.next_attempt(keeper.state)
    text = f"{keeper.profile.name}: {answers.label(keeper.state, now.boot)}"
    return text if at is None else f"{text}, next refresh {_clock_time(at, now)}"


def _many(keepers: list[Keeper], now: Stamp) -> str:
    states = Counter(answers.label(keeper.state, now.boot) for keeper in keepers)
    text = f"{len(keepers)} profiles: " + ", ".join(f"{count} {state}" for state, count in states.most_common())
    due = [(at, keeper.profile.name) for keeper in keepers if (at := lifecycle.next_attempt(keeper.state)) is not None]
    if not due:
        return text
    at, name = min(due)
    return f"{text}; next refresh {_clock_time(at, now)} ({name})"


def _clock_time(boot: float, now: Stamp) -> str:
    """A boot instant as local date and time: the manager shows the line long after it was written."""
    wall = dt.datetime.fromtimestamp(boot - now.boot + now.wall, tz=dt.UTC).astimezone()
    return wall.strftime("%Y-%m-%d %H:%M:%S")
