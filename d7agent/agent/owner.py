"""The methods that only owner and root may call: credentials, the lock, the agent itself."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol

import msgspec

from d7agent.agent import credentials
from d7agent.agent.agent import Agent
from d7agent.agent.call import Call
from d7agent.agent.keeper import Keeper
from d7agent.core.errors import AgentError
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

    def call(self, name: str, call: Call) -> None:
        """Answer a call of this name, now or later. Raises AgentError."""
        _METHODS[name](self, call)

    def store_credential(self, call: Call) -> None:
        """StoreCredential of the interface."""
        wish = decode_parameters(_store_credential, call.parameters)
        raw = bytearray(call.parameters)

        async def work() -> None:
            keeper = await credentials.store(self._agent, wish, raw)
            shown = self._shown(keeper)
            call.reply(msgspec.json.encode(messages.StoreReply(profile=shown)))

        self._later(call, work())

    def forget_credential(self, call: Call) -> None:
        """ForgetCredential of the interface."""
        wish = decode_parameters(_forget_credential, call.parameters)
        self._agent.resolve(wish.profile)

        async def work() -> None:
            kept = await credentials.forget(self._agent, wish.profile)
            call.reply(msgspec.json.encode(messages.ForgetReply(kept=kept)))

        self._later(call, work())

    def lock(self, call: Call) -> None:
        """Lock of the interface."""
        self._replied(call, self._agent.lock.lock(bytearray(call.parameters)))

    def unlock(self, call: Call) -> None:
        """Unlock of the interface."""
        self._replied(call, self._agent.lock.unlock(call.peer.uid, bytearray(call.parameters)))

    def _replied(self, call: Call, work: Awaitable[None]) -> None:
        async def whole() -> None:
            await work
            call.reply(_EMPTY)

        self._later(call, whole())

    def reload(self, call: Call) -> None:
        """Reload of the interface."""
        problems = self._agent.reload()
        call.reply(msgspec.json.encode(messages.ReloadReply(problems=problems)))

    def shutdown(self, call: Call) -> None:
        """Shutdown of the interface."""
        log.info("uid %d asked the agent to end", call.peer.uid)
        call.reply(_EMPTY)
        self._around.shutdown()

    def _later(self, call: Call, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end, whether or not the caller stays: half a change would be worse than none."""

        async def whole() -> None:
            try:
                await work
            except AgentError as error:
                call.error(error)

        task = asyncio.get_running_loop().create_task(whole())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settled(self) -> None:
        """Wait until every change under way is done."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)


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
