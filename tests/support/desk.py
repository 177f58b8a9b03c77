"""The real service in a fake world, called by peers of any uid: calls made by hand, and what is answered to them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from d7agent.agent.access import Policy
from d7agent.agent.call import Call
from d7agent.agent.peers import Peer
from d7agent.agent.service import Service
from d7agent.core.errors import AgentError
from d7agent.wire.framing import encode_error
from d7agent.wire.messages import SinkStatus
from tests.support import agents
from tests.support.agents import World

OWNER: Final = 1000
ROOT: Final = 0
PATIENCE: Final = 10.0  # seconds after which an answer that does not come has failed the test
TURNS: Final = 30  # of the loop: whatever needs no time has happened after so many


class Around:
    """Surroundings in which nothing is going on."""

    systemd = False

    def memory(self) -> str:
        return ""

    def sinks(self, profile: str) -> tuple[SinkStatus, ...]:
        return ()

    async def sinks_settled(self, profile: str) -> None:
        return

    def hooks(self) -> tuple[str, ...]:
        return ()

    def connections(self) -> int:
        return 0

    def shutdown(self) -> None:
        raise AssertionError("nobody asked for that")


class Asked:
    """One call in hand, and its Line. `replies` so far; each is the message as it would go over the wire."""

    def __init__(self, service: Service, uid: int, method: str, parameters: dict[str, Any], *, more: bool) -> None:
        self.replies: list[dict[str, Any]] = []
        self._answered = asyncio.Event()
        view = memoryview(json.dumps(parameters).encode())
        self.call = Call(self, Peer(uid, uid, 0), f"io.d7agent.{method}", view, more=more)
        try:
            service.call(self.call)
        except AgentError as error:
            self.answer(self.call, encode_error(error), last=True)

    def answer(self, call: Call, frame: bytes, *, last: bool) -> None:
        """The line's part."""
        self.replies.append(json.loads(frame[:-1]))
        self._answered.set()

    async def reply(self) -> dict[str, Any]:
        """The next reply."""
        await asyncio.wait_for(self._answered.wait(), PATIENCE)
        reply = self.replies.pop(0)
        if not self.replies:
            self._answered.clear()
        return reply

    async def error(self) -> str:
        """The name of the error that is the next reply, "" when it is none."""
        return str((await self.reply()).get("error", "")).rpartition(".")[2]

    @property
    def silent(self) -> bool:
        """Whether nothing was answered."""
        return not self.replies

    def leave(self) -> None:
        """The caller is gone."""
        self.call.gone()


class Desk:
    """A world with a service in it. Root and OWNER may do everything."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.service = Service(world.agent, Policy(OWNER, system=False), Around())

    def ask(self, method: str, uid: int = OWNER, more: bool = False, **parameters: Any) -> Asked:
        """A call; what it brings about by itself may still lie ahead."""
        return Asked(self.service, uid, method, parameters, more=more)

    def locked(self) -> bool:
        """Whether the agent is locked."""
        return self.world.agent.lock.locked

    async def lock(self, passphrase: str = "sesame") -> None:
        """Lock, and be told so."""
        assert await self.ask("Lock", passphrase=passphrase).reply() == {"parameters": {}}

    async def turns(self) -> None:
        """Whatever can happen without time has happened."""
        for _ in range(TURNS):
            await asyncio.sleep(0)  # real time: none; a turn of the loop

    async def pass_time(self, seconds: float) -> None:
        """Time passes, and what was due by then has happened."""
        await self.world.pass_time(seconds)
        await self.turns()


def tell(folder: Path, story: Callable[[World, Desk], Awaitable[None]]) -> None:
    """Run a story at a desk, with one profile that has a token."""

    async def whole(world: World) -> None:
        world.configure(agents.profile())
        await world.calm()
        desk = Desk(world)
        await story(world, desk)
        await desk.service.owner.settled()

    agents.run(folder, whole)
