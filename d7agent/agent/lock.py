"""The agent's lock: a passphrase that wipes every token and keeps the agent silent until it comes again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from d7agent.agent.shred import shred
from d7agent.agent.tries import Tries
from d7agent.core import jobs, states
from d7agent.core.errors import (
    AgentError,
    InvalidParameter,
    Locked,
    PermissionDenied,
    StoreUnavailable,
    TokenUnavailable,
)
from d7agent.core.jobs import Failed
from d7agent.core.model import Secret

if TYPE_CHECKING:
    from d7agent.agent.agent import Agent
    from d7agent.agent.keeper import Keeper

log = logging.getLogger(__name__)


class Lock:
    """Agent-wide; not kept over a restart."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._hashed: jobs.Hashed | None = None
        self.tries = Tries(agent.clock, agent.alarm.set)
        self._busy = asyncio.Lock()

    @property
    def locked(self) -> bool:
        """Whether the agent is locked."""
        return self._hashed is not None

    def error(self) -> AgentError:
        """What callers get meanwhile."""
        return Locked("the agent is locked", "unlock it with: d7agent unlock")

    async def lock(self, raw: bytearray, settle: Callable[[], Awaitable[None]]) -> None:
        """Lock with the passphrase in the raw parameters: tokens wiped, remembered tokens deleted.

        `settle` ends what must not come to its end in the lock; it is called when nothing can keep the lock from
        coming. Raises Locked when it is locked already, StoreUnavailable when it is locked now but a remembered token
        could not be deleted, and what a failing helper turns into: then nothing has changed.
        """
        async with self._busy:
            if self.locked:
                raise self.error()
            reply = await self._agent.helpers.run(jobs.HashPassphrase(), raw=raw, urgent=lambda: True)
            if not isinstance(reply, jobs.Hashed):
                raise _helper_error(reply)
            await settle()
            await self._close(reply)

    async def _close(self, hashed: jobs.Hashed) -> None:
        remembered = [keeper for keeper in self._agent.keepers.values() if _may_remember(keeper)]
        tokens = self._tokens()
        self._hashed = hashed
        for keeper in self._agent.keepers.values():
            keeper.feed(states.LockedUp())
        for token in tokens:
            shred([token])
            await asyncio.sleep(0)  # others get their turn: one token takes some 20 ms
        log.info("locked; every token is wiped")
        await self._forget(remembered)

    def _tokens(self) -> list[Secret]:
        grants = [keeper.state.grant for keeper in self._agent.keepers.values()]
        return [grant.access_token for grant in grants if grant is not None]

    async def _forget(self, keepers: "list[Keeper]") -> None:
        targets = [jobs.Forget(keeper.target(), token_only=True) for keeper in keepers]
        replies = await asyncio.gather(
            *(keeper.run(job) for keeper, job in zip(keepers, targets, strict=True)),
        )
        left = [
            f"{keeper.profile.name} ({reply.message})"
            for keeper, reply in zip(keepers, replies, strict=True)
            if isinstance(reply, Failed) and not reply.missing and _was_read(keeper)
        ]
        if left:
            raise StoreUnavailable(
                f"the agent is locked, but a remembered token is still in the store of: {', '.join(left)}",
                "open the store, then unlock and lock the agent again",
                reason="store_unreachable",
            )

    async def unlock(self, uid: int, raw: bytearray, begun: Callable[[], None]) -> None:
        """Unlock with the passphrase in the raw parameters. Raises PermissionDenied when it is wrong.

        Each wrong try of a uid delays its next one; nobody else waits. Until `begun` is called the try may be
        cancelled; then it is looked at, and counts.
        """
        self._wanted()
        async with self.tries.turn(uid):
            hashed = self._wanted()  # somebody else may have opened it meanwhile
            begun()
            job = jobs.CheckPassphrase(hashed.salt, hashed.digest)
            reply = await self._agent.helpers.run(job, raw=raw, urgent=lambda: True)
            if not isinstance(reply, jobs.Checked):
                raise _helper_error(reply)
            if not reply.right:
                raise self.tries.wrong(uid)
        async with self._busy:  # a lock that is still wiping and forgetting comes to its end first
            if self._hashed is hashed:
                self._open()

    def _wanted(self) -> jobs.Hashed:
        """What the right passphrase gives. Raises PermissionDenied when nothing is locked."""
        if self._hashed is None:
            raise PermissionDenied("the agent is not locked", "lock it with: d7agent lock")
        return self._hashed

    def _open(self) -> None:
        self._hashed = None
        self.tries.over()
        log.info("unlocked")
        for keeper in self._agent.keepers.values():
            keeper.feed(states.Unlocked())


def _may_remember(keeper: "Keeper") -> bool:
    """Whether a token of ours may be in the store. Where the store could not be read, we do not try."""
    state = keeper.state
    looking = state.phase == "recall" and not state.failures  # the first look, which the lock cuts short
    return keeper.profile.remember_token and (_was_read(keeper) or looking)


def _was_read(keeper: "Keeper") -> bool:
    """Whether the store could be read in this agent's life: that it cannot now is worth an error."""
    return keeper.state.recalled or keeper.state.serial > 0


def _helper_error(reply: jobs.Reply) -> AgentError:
    if isinstance(reply, Failed):
        if reply.invalid is not None:
            return InvalidParameter(reply.message, reply.hint, parameter=reply.invalid)
        return TokenUnavailable(reply.message, reply.hint, reason=reply.reason)
    return TokenUnavailable("the helper gave an answer to another question", "see the journal", reason="helper_failed")
