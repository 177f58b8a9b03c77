"""Subscribers: calls with `more` that stay open and hear of every newer token or every change of status."""

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol

from d7agent.agent.agent import Agent, no_such_profile
from d7agent.agent.call import Call
from d7agent.agent.keeper import Keeper
from d7agent.core import answers, lifecycle
from d7agent.core.errors import AgentError
from d7agent.core.model import Grant
from d7agent.core.states import Hooked
from d7agent.core.wipe import wipe

STATUS_PAUSE: Final = 0.1  # seconds between two status replies: a burst of changes is one change


class StatusFrame(Protocol):
    """Makes a status reply of one profile, or of all."""

    def __call__(self, profile: str | None, *, continues: bool = False) -> bytes:
        """Raises NoSuchProfile."""


class Streams:
    """All open streams of one agent."""

    def __init__(self, agent: Agent, status_frame: StatusFrame) -> None:
        self._agent = agent
        self._status_frame = status_frame
        self._tokens: dict[str, set[Call]] = {}
        self._status: dict[Call, str | None] = {}
        self._changed: set[str] = set()
        self._flush: asyncio.TimerHandle | None = None
        agent.on_pushed.append(self._pushed)
        agent.on_gone.append(self._gone)
        agent.on_hooked.append(self._hooked)
        agent.on_changed.append(self._note_change)
        agent.on_removed.append(self._removed)
        agent.on_configured.append(self._note_all)

    def count(self, profile: str) -> int:
        """Open token streams of a profile."""
        return len(self._tokens.get(profile, ()))

    def follow_token(self, call: Call, keeper: Keeper, grant: Grant) -> None:
        """The first reply now, one more for every newer token."""
        name = keeper.profile.name
        self._tokens.setdefault(name, set()).add(call)
        call.on_gone = lambda: self._left(name, call)
        _sent([keeper.frame(grant, continues=True)], [call])

    def follow_status(self, call: Call, profile: str | None, frame: bytes) -> None:
        """The first reply now, one more for every change."""
        self._status[call] = None if profile is None else self._agent.resolve(profile).profile.name
        call.on_gone = lambda: self._unfollow(call)
        call.reply_frame(frame, continues=True)

    def _unfollow(self, call: Call) -> None:
        self._status.pop(call, None)

    def _left(self, name: str, call: Call) -> None:
        calls = self._tokens.get(name)
        if calls is not None:
            calls.discard(call)
            if not calls:
                del self._tokens[name]

    def _pushed(self, keeper: Keeper) -> None:
        """One frame for all subscribers: it is made once."""
        calls = self._tokens.get(keeper.profile.name)
        grant = lifecycle.alive(keeper.state.grant, self._agent.clock.now().boot)
        if not calls or grant is None:
            return
        _sent([keeper.frame(grant, continues=True)], tuple(calls))

    def _gone(self, keeper: Keeper) -> None:
        """The token died. Streams end if that is for good: the agent was locked, or D7 refused the credential."""
        if self._agent.lock.locked:
            self._end(keeper.profile.name, self._agent.lock.error())

    def _hooked(self, keeper: Keeper, effect: Hooked) -> None:
        if effect.event == "rejected":
            self._end(keeper.profile.name, answers.trouble(keeper.state, None))

    def _removed(self, keeper: Keeper) -> None:
        name = keeper.profile.name
        error = no_such_profile(name, self._agent.keepers)
        self._end(name, error)
        for call in [call for call, profile in self._status.items() if profile == name]:
            del self._status[call]
            call.error(error)

    def _end(self, name: str, error: AgentError) -> None:
        for call in self._tokens.pop(name, set()):
            call.error(error)

    def _note_all(self) -> None:
        for keeper in self._agent.keepers.values():
            self._note_change(keeper)

    def _note_change(self, keeper: Keeper) -> None:
        if not self._status:
            return
        self._changed.add(keeper.profile.name)
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(STATUS_PAUSE, self._send_status)

    def _send_status(self) -> None:
        self._flush = None
        changed, self._changed = self._changed, set()
        frames: dict[str | None, bytes] = {}
        for call, profile in tuple(self._status.items()):
            if profile is None or profile in changed:
                if profile not in frames:
                    frames[profile] = self._status_frame(profile, continues=True)
                call.reply_frame(frames[profile], continues=True)


def _sent(frame: list[bytes], calls: Iterable[Call]) -> None:
    """Send the one frame to all of them. It is overwritten then, unless one that reads slowly still waits for it."""
    for call in calls:
        call.reply_frame(frame[0], continues=True)
    wipe(frame)
