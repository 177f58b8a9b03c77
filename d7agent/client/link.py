"""One connection to the agent from asyncio or uvloop. Bare sockets: when a task is cancelled, nothing is left open."""

import asyncio
import contextlib
import socket as sockets
from collections.abc import Iterator
from typing import Final, Self

from d7agent.client.blocking import MAX_REPLY, AgentError, candidates, check_peer, gone, not_connected

CROWDED: Final = 0.01  # seconds until the next try while the agent's backlog is full: its loop turns faster than that


class Link:
    """A connection to a server whose uid is trusted, for one task at a time."""

    def __init__(self, sock: sockets.socket, path: str) -> None:
        self.path = path
        self._sock = sock
        self._data = bytearray()

    @classmethod
    async def open(cls, path: str | None, limit: float) -> Self:
        """Connect to `path`, else to the first that accepts, in `limit` seconds. Raises NoAgent, PermissionDenied."""
        failures: dict[str, OSError] = {}
        for place in candidates(path):
            sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM | sockets.SOCK_NONBLOCK)
            try:
                async with asyncio.timeout(limit):
                    await _connect(sock, place)
                check_peer(sock, place)
            except OSError as error:
                sock.close()
                failures[place] = error
            except BaseException:
                sock.close()
                raise
            else:
                return cls(sock, place)
        raise not_connected(failures)

    def idle(self) -> bool:
        """Whether the connection stands and nothing came on it that no one asked for."""
        try:
            self._sock.recv(1, sockets.MSG_PEEK)
        except OSError as error:
            return isinstance(error, BlockingIOError) and not self._data
        return False

    async def ask(self, request: bytes, limit: float | None) -> bytes:
        """Send a request and receive its (first) reply, in `limit` seconds. Raises NoAgent, AgentError."""
        with self._telling(limit):
            async with asyncio.timeout(limit):
                await asyncio.get_running_loop().sock_sendall(self._sock, request)
                return await self._receive()

    async def receive(self) -> bytes:
        """The next reply without its NUL, whenever it comes. Raises NoAgent, AgentError."""
        with self._telling(None):
            return await self._receive()

    def close(self) -> None:
        """Close the connection, at once."""
        self._sock.close()

    @contextlib.contextmanager
    def _telling(self, limit: float | None) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise gone(self.path, limit, error) from None

    async def _receive(self) -> bytes:
        loop = asyncio.get_running_loop()
        while (end := self._data.find(0)) < 0:
            piece = await loop.sock_recv(self._sock, 65536)
            if not piece:
                raise ConnectionResetError(0, "it closed the connection")
            self._data += piece
            if len(self._data) > MAX_REPLY:
                raise AgentError(f"the agent's answer is larger than {MAX_REPLY} bytes")
        reply = bytes(self._data[:end])
        del self._data[: end + 1]
        return reply


async def _connect(sock: sockets.socket, path: str) -> None:
    # Not loop.sock_connect: it takes the EAGAIN of a full backlog for a connection under way.
    while True:
        try:
            sock.connect(path)
        except BlockingIOError:
            await asyncio.sleep(CROWDED)
        else:
            return
