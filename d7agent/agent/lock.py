"""The agent's lock: a passphrase that wipes every token and keeps the agent silent until it comes again."""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from d7agent.agent.shred import shred
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

DELAY_FIRST: Final = 1.0  # seconds after a peer's first wrong passphrase; doubled by each further one
DELAY_LAST: Final = 60.0  # seconds


class Lock:
    """Agent-wide; not kept over a restart."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._hashed: jobs.Hashed | None = None
        self._wrong: dict[int, int] = {}
        self._not_before: dict[int, float] = {}
        self._turns: dict[int, asyncio.Lock] = {}
        self._busy = asyncio.Lock()

    @property
    def locked(self) -> bool:
        """Whether the agent is locked."""
        return self._hashed is not None

    def error(self) -> AgentError:
        """What callers get meanwhile."""
        return Locked("the agent is locked", "unlock it with: d7agent unlock")

    async def lock(self, raw: bytearray) -> None:
        """Lock with the passphrase in the raw parameters: tokens wiped, remembered tokens deleted.

        Raises Locked when it is locked already, StoreUnavailable when it is locked now but a remembered token could
        not be deleted, and what a failing helper turns into.
        """
        async with self._busy:
            if self.locked:
                raise self.error()
            reply = await self._agent.helpers.run(jobs.HashPassphrase(), raw=raw, urgent=lambda: True)
            if not isinstance(reply, jobs.Hashed):
                raise _helper_error(reply)
            remembered = [keeper for keeper in self._agent.keepers.values() if _may_remember(keeper)]
            tokens = self._tokens()
            self._hashed = reply
            for keeper in self._agent.keepers.values():
                keeper.feed(states.LockedUp())
            log.info("locked; every token is wiped")
            try:
                await self._forget(remembered)
            finally:
                shred(tokens)

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
            if isinstance(reply, Failed) and not reply.missing
        ]
        if left:
            raise StoreUnavailable(
                f"the agent is locked, but a remembered token is still in the store of: {', '.join(left)}",
                "open the store, then unlock and lock the agent again",
                reason="store_unreachable",
            )

    async def unlock(self, uid: int, raw: bytearray) -> None:
        """Unlock with the passphrase in the raw parameters. Raises PermissionDenied when it is wrong.

        Each wrong try of a uid delays the answer to its next one; nobody else waits.
        """
        hashed = self._hashed
        if hashed is None:
            raw[:] = bytes(len(raw))
            raise PermissionDenied("the agent is not locked", "lock it with: d7agent lock")
        async with self._turns.setdefault(uid, asyncio.Lock()):  # or many tries at once would all come before the delay
            await self._delay(uid)
            job = jobs.CheckPassphrase(hashed.salt, hashed.digest)
            reply = await self._agent.helpers.run(job, raw=raw, urgent=lambda: True)
            if not isinstance(reply, jobs.Checked):
                raise _helper_error(reply)
            if not reply.right:
                raise self._wrong_try(uid)
            if self._hashed is hashed:
                self._open()

    async def _delay(self, uid: int) -> None:
        wait = self._not_before.get(uid, 0.0) - self._agent.clock.now().boot
        if wait > 0:
            await asyncio.sleep(wait)

    def _wrong_try(self, uid: int) -> AgentError:
        tries = self._wrong[uid] = self._wrong.get(uid, 0) + 1
        delay = min(DELAY_FIRST * 2.0 ** min(tries - 1, 10), DELAY_LAST)
        self._not_before[uid] = self._agent.clock.now().boot + delay
        log.warning("a wrong passphrase from uid %d (%d in a row)", uid, tries)
        return PermissionDenied("wrong passphrase", f"the next try is answered in {delay:.0f} s at the earliest")

    def _open(self) -> None:
        self._hashed = None
        self._wrong.clear()
        self._not_before.clear()
        log.info("unlocked")
        for keeper in self._agent.keepers.values():
            keeper.feed(states.Unlocked())


def _may_remember(keeper: "Keeper") -> bool:
    """Whether a token of ours may be in the store: not where the store could not even be read in this agent's life."""
    return keeper.profile.remember_token and (keeper.state.recalled or keeper.state.serial > 0)


def _helper_error(reply: jobs.Reply) -> AgentError:
    if isinstance(reply, Failed):
        if reply.invalid is not None:
            return InvalidParameter(reply.message, reply.hint, parameter=reply.invalid)
        return TokenUnavailable(reply.message, reply.hint, reason=reply.reason)
    return TokenUnavailable("the helper gave an answer to another question", "see the journal", reason="helper_failed")
