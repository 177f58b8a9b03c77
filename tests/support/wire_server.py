"""A server in a process of its own: python -m tests.support.wire_server LOOP PATH [careless].

Passes the parameters of every call but GetToken on to /dev/null, from the receive buffer, as the agent does to its
helper; `careless` keeps a copy of them, to prove that a scan of this process finds one. A StoreCredential with
`"hold":true` is answered by the next `Reload` of any connection.
"""

import asyncio
import os
import socket
import sys

from d7agent.agent.call import Call
from d7agent.agent.limits import Limits
from d7agent.agent.peers import Peer
from d7agent.agent.server import Server
from d7agent.core.errors import AgentError
from tests.support.wire import LOOPS

HOLD = b'{"hold":true'


class PassOn:
    """The handler."""

    def __init__(self, *, careless: bool) -> None:
        self._null = os.open(os.devnull, os.O_WRONLY)
        self._careless = careless
        self._kept: list[bytes] = []
        self._held: list[Call] = []

    def quick(self, peer: Peer, request: bytes) -> bytes | None:
        return None

    def admit(self, peer: Peer) -> AgentError | None:
        return None

    def call(self, call: Call) -> None:
        os.write(self._null, call.parameters)
        if self._careless:
            self._kept.append(bytes(call.parameters))
        if call.method.endswith(".Reload"):
            for held in self._held:
                held.reply(b"{}")
            self._held.clear()
        if call.parameters[: len(HOLD)] == HOLD:
            self._held.append(call)
        else:
            call.reply(b"{}")


async def main(path: str, *, careless: bool) -> None:
    """Serve until killed."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    await Server(PassOn(careless=careless), Limits()).listen(sock)
    os.write(1, b"ready\n")
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=LOOPS[sys.argv[1]]) as runner:
        runner.run(main(sys.argv[2], careless="careless" in sys.argv))
