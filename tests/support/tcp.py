"""A TCP server on loopback that plays what no HTTP server would: for each connection, a function with the socket."""

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Tcp:
    """Serves one connection at a time with `play(connection, request)`, in a thread of its own, until the end."""

    def __init__(self, play: Callable[[socket.socket, bytes], None]) -> None:
        self._play = play
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._open: socket.socket | None = None
        self.asked: list[bytes] = []

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        if self._open:
            with contextlib.suppress(OSError):
                self._open.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                self._open, _ = self._listener.accept()
            except OSError:
                return
            with self._open, contextlib.suppress(OSError):
                self.asked.append(_request(self._open))
                self._play(self._open, self.asked[-1])


def _request(connection: socket.socket) -> bytes:
    """What was asked: a whole HTTP request if it is one, else the first bytes."""
    data = connection.recv(65536)
    size = re.search(rb"Content-Length: (\d+)", data)
    while size and len(data.partition(b"\r\n\r\n")[2]) < int(size[1]) and (piece := connection.recv(65536)):
        data += piece
    return data


def says(data: bytes) -> Callable[[socket.socket, bytes], None]:
    """Sends these bytes and closes."""
    return lambda connection, _: connection.sendall(data)


def silent(connection: socket.socket, _: bytes) -> None:
    """Says nothing until the other end, or the test, is done."""
    connection.recv(1)
