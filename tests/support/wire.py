"""A server with a made-up handler, a client that can misbehave, and both event loops to run them on."""

import asyncio
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from d7agent.agent.call import Call
from d7agent.agent.limits import Limits
from d7agent.agent.peers import Peer
from d7agent.agent.server import Server
from d7agent.core.clock import Clock
from d7agent.core.errors import AgentError
from d7agent.core.model import Stamp

PATIENCE = 10.0  # seconds after which an answer that does not come has failed the test
TOKEN = b'{"token":{"access_token":"T"}}'
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
BOTH_LOOPS = pytest.mark.parametrize("loop", LOOPS)
SWIFT = Limits(sweep=0.02)  # looks often; the times themselves are a hand clock's
Message = dict[str, Any]


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> Stamp:
        return Stamp(boot=self.seconds, wall=self.seconds, boot_id="b")


class FakeHandler:
    """Answers GetToken at once, StoreCredential by keeping it in hand, and the rest as the test says."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.seen: list[bytes] = []
        self.frames: dict[bytes, bytes] = {}
        self.asked_quick: list[bytes] = []
        self.refusal: AgentError | None = None
        self.admitted = 0
        self.on_call: dict[str, Callable[[Call], None]] = {}
        self.arrived = asyncio.Event()

    def quick(self, peer: Peer, request: bytes) -> bytes | None:
        self.asked_quick.append(request)
        return self.frames.get(request)

    def admit(self, peer: Peer) -> AgentError | None:
        self.admitted += 1
        return self.refusal

    def call(self, call: Call) -> None:
        self.calls.append(call)
        self.seen.append(bytes(call.parameters))
        self.arrived.set()
        name = call.method.rpartition(".")[2]
        answer = self.on_call.get(name)
        if answer is None:
            call.reply(TOKEN)
        else:
            answer(call)

    async def next_call(self) -> Call:
        """The latest call, once one more has come."""
        await asyncio.wait_for(self.arrived.wait(), PATIENCE)
        self.arrived.clear()
        return self.calls[-1]


class Client:
    """One connection, byte by byte if need be."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def ask(self, method: str, parameters: object = None, **flags: object) -> None:
        name = method if "." in method else f"io.d7agent.{method}"
        call = {"method": name, "parameters": parameters or {}, **flags}
        self.send(json.dumps(call).encode() + b"\0")

    async def reply(self) -> Message:
        frame = await asyncio.wait_for(self.reader.readuntil(b"\0"), PATIENCE)
        reply: Message = json.loads(frame[:-1])
        return reply

    async def call(self, method: str, parameters: object = None, **flags: object) -> Message:
        self.ask(method, parameters, **flags)
        return await self.reply()

    async def ended(self) -> bytes:
        """What still comes until the server closes."""
        rest = b""
        try:
            while chunk := await asyncio.wait_for(self.reader.read(65536), PATIENCE):
                rest += chunk
        except ConnectionResetError:
            pass
        return rest

    async def close(self) -> None:
        self.writer.transport.abort()
        with suppress(OSError):
            await self.writer.wait_closed()


class Stand:
    """A running server and where to reach it."""

    def __init__(self, server: Server, handler: FakeHandler, path: str) -> None:
        self.server = server
        self.handler = handler
        self.path = path
        self._clients: list[Client] = []

    async def client(self) -> Client:
        client = Client(*await asyncio.open_unix_connection(self.path, limit=16 * 1024 * 1024))
        self._clients.append(client)
        return client

    async def works(self) -> bool:
        """Whether a new client gets a token."""
        client = await self.client()
        reply = await client.call("GetToken")
        await client.close()
        return "token" in reply["parameters"]

    async def leave(self) -> None:
        for client in self._clients:
            await client.close()


async def until(condition: Callable[[], bool]) -> None:
    """Give the loop turns until the condition holds; fails the test when it never does."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not happen"
        await asyncio.sleep(0.001)  # real time: what goes on in the kernel and at the other end has no event


@asynccontextmanager
async def serving(limits: Limits | None = None, clock: Clock | None = None) -> AsyncIterator[Stand]:
    """A server on a socket of its own."""
    handler = FakeHandler()
    server = Server(handler, limits, clock)
    with tempfile.TemporaryDirectory(prefix="d7") as folder:
        path = str(Path(folder, "s"))
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        await server.listen(sock)
        stand = Stand(server, handler, path)
        try:
            yield stand
        finally:
            await stand.leave()
            await server.close(1.0)


def play(
    loop: str,
    scene: Callable[[Stand], Awaitable[None]],
    limits: Limits | None = None,
    clock: Clock | None = None,
) -> None:
    """Run `scene` with a server on the named loop."""

    async def main() -> None:
        async with serving(limits, clock) as stand:
            await scene(stand)

    run(loop, main())


def run(loop: str, main: Coroutine[Any, Any, None]) -> None:
    """asyncio.run on the named loop."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main)


def hold(call: Call) -> None:
    """Leave a call open."""


def slow_client(path: str) -> socket.socket:
    """A client that reads only when told."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    sock.setblocking(False)
    return sock


async def swept(stand: Stand) -> None:
    """Wait for three sweeps."""
    for _ in range(3):
        timer = stand.server._sweeper
        await until(lambda timer=timer: stand.server._sweeper is not timer)  # type: ignore[misc]
