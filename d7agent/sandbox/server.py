"""Serving: an event loop in a thread of its own, one task a connection, all of it ended at once when asked."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Final

from d7agent.sandbox.answers import plain_detail
from d7agent.sandbox.handler import Handler
from d7agent.sandbox.replies import Line, send
from d7agent.sandbox.requests import MAX_HEAD, BadRequest, read_request
from d7agent.sandbox.stats import Recorder

MAX_CONNECTIONS: Final = 4_096  # at once; those beyond wait in the listen queue
TLS_LIMIT: Final = 10.0  # seconds for a handshake, and for a client to answer the close
NO_DESCRIPTORS_PAUSE: Final = 0.05  # seconds until the next try to accept
GONE: Final = (OSError, EOFError, asyncio.LimitOverrunError)  # how a connection that ends or talks rubbish shows itself


class Server:
    """Serves `handler` on a listening socket, which it closes, until `stop`."""

    def __init__(
        self, listener: socket.socket, tls: ssl.SSLContext | None, handler: Handler, recorder: Recorder
    ) -> None:
        self._listener = listener
        self._tls = tls
        self._handler = handler
        self._recorder = recorder
        self._open: set[asyncio.Task[None]] = set()
        self._up: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = Future()
        self._thread = threading.Thread(target=self._run, name="d7agent-sandbox", daemon=True)

    def start(self) -> None:
        """Returns when the loop runs."""
        self._thread.start()
        self._up.result()

    def stop(self) -> None:
        """Ends every connection, whatever it waits for, and the thread."""
        loop, main = self._up.result()
        if self._thread.is_alive():
            loop.call_soon_threadsafe(main.cancel)
            self._thread.join()

    def drop(self) -> None:
        """Ends every connection and serves on."""
        loop, _ = self._up.result()
        loop.call_soon_threadsafe(lambda: [task.cancel() for task in self._open])

    def _run(self) -> None:
        with self._listener, suppress(asyncio.CancelledError):
            asyncio.run(self._serve())

    async def _serve(self) -> None:
        loop, main = asyncio.get_running_loop(), asyncio.current_task()
        assert main is not None  # noqa: S101  a coroutine of asyncio.run has a task  # nosec B101
        self._listener.setblocking(False)
        room = asyncio.Semaphore(MAX_CONNECTIONS)
        self._up.set_result((loop, main))
        while await room.acquire():
            sock = await self._accept(loop)
            task = loop.create_task(self._connection(sock))
            self._open.add(task)
            task.add_done_callback(_closer(sock, [self._open.discard, lambda _: room.release()]))

    async def _accept(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        while True:
            try:
                return (await loop.sock_accept(self._listener))[0]
            except OSError:  # the client left at once, or descriptors ran out
                await asyncio.sleep(NO_DESCRIPTORS_PAUSE)

    async def _connection(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(MAX_HEAD, loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        limits = {"ssl_handshake_timeout": TLS_LIMIT, "ssl_shutdown_timeout": TLS_LIMIT} if self._tls else {}
        with self._recorder.change() as stats:
            stats.connections += 1
        with suppress(*GONE):
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=self._tls, **limits)
            line = Line(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
            try:
                with suppress(*GONE):
                    await self._talk(line)
                line.writer.close()
                await line.writer.wait_closed()
            finally:
                transport.abort()
                with self._recorder.change() as stats:
                    stats.bytes_sent += line.sent

    async def _talk(self, line: Line) -> None:
        alive = True
        while alive:
            try:
                request = await read_request(line.reader, line.writer)
            except BadRequest as error:
                await send(line, plain_detail(error.status), keep_alive=False, bodiless=False)
                return
            if request is None:
                return
            with self._handler.exchange(request) as answer:
                alive = await send(
                    line, answer, keep_alive=request.keep_alive, bodiless=request.method == "HEAD"
                )  # fmt: skip


def _closer(
    sock: socket.socket, then: list[Callable[[asyncio.Task[None]], None]]
) -> Callable[[asyncio.Task[None]], None]:
    """What to do when a connection's task has ended; one cancelled before its first step still owns its socket."""

    def close(task: asyncio.Task[None]) -> None:
        if task.cancelled():
            sock.close()
        for action in then:
            action(task)

    return close
