"""The methods that only owner and root may call: credentials, the lock, the agent itself."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

import msgspec

from d7agent.agent import credentials
from d7agent.agent.agent import Agent
from d7agent.agent.call import Call
from d7agent.agent.keeper import Keeper
from d7agent.core.errors import AgentError, TokenUnavailable
from d7agent.wire import messages
from d7agent.wire.framing import decode_parameters

log = logging.getLogger(__name__)

_EMPTY: Final = b"{}"


class Surroundings(Protocol):
    """What the service needs of the daemon."""

    systemd: bool

    def memory(self) -> str:
        """How secrets in memory are guarded."""

    def sinks(self, profile: str) -> tuple[messages.SinkStatus, ...]:
        """How the profile's always-fresh files do."""

    async def sinks_settled(self, profile: str) -> None:
        """Wait until the profile's always-fresh files are as they should be."""

    def hooks(self) -> tuple[str, ...]:
        """What went wrong with hooks lately."""

    def connections(self) -> int:
        """Open connections."""

    def shutdown(self) -> None:
        """End the agent, after the replies under way."""


class Owner:
    """Answers the owner's calls."""

    def __init__(
        self, agent: Agent, surroundings: Surroundings, shown: Callable[[Keeper], messages.ProfileStatus]
    ) -> None:
        self._agent = agent
        self._around = surroundings
        self._shown = shown
        self._tasks: set[asyncio.Task[None]] = set()
        self._changes: set[asyncio.Task[None]] = set()  # those of a credential
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # one change of a profile at a time
        self._locking = False  # the lock is about to fall

    def call(self, name: str, call: Call) -> None:
        """Answer a call of this name, now or later. Raises AgentError."""
        _METHODS[name](self, call)

    def store_credential(self, call: Call) -> None:
        """StoreCredential of the interface."""
        wish = decode_parameters(_store_credential, call.parameters)
        raw = bytearray(call.parameters)

        async def work() -> None:
            try:
                async with self._turns[wish.profile]:
                    keeper = await credentials.store(self._agent, wish, raw)
            finally:
                raw[:] = bytes(len(raw))
            call.reply(msgspec.json.encode(messages.StoreReply(profile=self._shown(keeper))))

        self._change(call, work())

    def forget_credential(self, call: Call) -> None:
        """ForgetCredential of the interface."""
        wish = decode_parameters(_forget_credential, call.parameters)
        self._agent.resolve(wish.profile)

        async def work() -> None:
            async with self._turns[wish.profile]:
                kept = await credentials.forget(self._agent, wish.profile)
            await self._around.sinks_settled(wish.profile)
            call.reply(msgspec.json.encode(messages.ForgetReply(kept=kept)))

        self._change(call, work())

    def lock(self, call: Call) -> None:
        """Lock of the interface."""
        raw = bytearray(call.parameters)
        self._replied(call, raw, self._lock(raw))

    async def _lock(self, raw: bytearray) -> None:
        try:
            await self._agent.lock.lock(raw, self._end_changes)
        finally:
            self._locking = False
        for name in list(self._agent.keepers):
            await self._around.sinks_settled(name)

    async def _end_changes(self) -> None:
        """End every change of a credential: one that came to its end in the lock would bring a token back."""
        self._locking = True
        for task in self._changes:
            task.cancel()
        await asyncio.gather(*self._changes, return_exceptions=True)

    def _change(self, call: Call, work: Coroutine[Any, Any, None]) -> None:
        """Start a change of a credential, unless the agent is being locked."""
        if self._locking:
            work.close()
            raise self._agent.lock.error()
        task = self._later(call, work)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)

    def unlock(self, call: Call) -> None:
        """Unlock of the interface. A try that waits leaves with its caller."""
        raw = bytearray(call.parameters)

        def begun() -> None:
            call.on_gone = None

        task = self._replied(call, raw, self._agent.lock.unlock(call.peer.uid, raw, begun))

        def leave() -> None:
            task.cancel()

        call.on_gone = leave

    def _replied(self, call: Call, raw: bytearray, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        async def whole() -> None:
            try:
                await work
            finally:
                raw[:] = bytes(len(raw))
            call.reply(_EMPTY)

        return self._later(call, whole())

    def reload(self, call: Call) -> None:
        """Reload of the interface."""
        problems = self._agent.reload()
        call.reply(msgspec.json.encode(messages.ReloadReply(problems=problems)))

    def shutdown(self, call: Call) -> None:
        """Shutdown of the interface."""
        log.info("uid %d asked the agent to end", call.peer.uid)
        call.reply(_EMPTY)
        self._around.shutdown()

    def _later(self, call: Call, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run `work` to its end, whether or not the caller stays: half a change would be worse than none."""

        async def whole() -> None:
            try:
                await work
            except AgentError as error:
                call.error(error)
            except Exception:
                log.exception("%s failed", call.method)
                call.error(_UNEXPECTED)
            except asyncio.CancelledError:
                call.error(self._agent.lock.error() if self._locking else _ENDING)
                raise

        task = asyncio.get_running_loop().create_task(whole())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def settled(self) -> None:
        """Wait until every change under way is done."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0)  # what takes them out of the set comes in the loop's next turn, from Python 3.12 on


_UNEXPECTED: Final = TokenUnavailable(
    "the agent met an error that nobody foresaw",
    "its log names the place; please report it at the project's issue tracker",
    reason="helper_failed",
)
_ENDING: Final = TokenUnavailable(
    "the agent ended before it was done", "start it again, then try again", reason="helper_failed"
)
_store_credential = msgspec.json.Decoder(messages.StoreCredential)
_forget_credential = msgspec.json.Decoder(messages.ForgetCredential)

_METHODS: Final[dict[str, Callable[[Owner, Call], None]]] = {
    "StoreCredential": Owner.store_credential,
    "ForgetCredential": Owner.forget_credential,
    "Lock": Owner.lock,
    "Unlock": Owner.unlock,
    "Reload": Owner.reload,
    "Shutdown": Owner.shutdown,
}
