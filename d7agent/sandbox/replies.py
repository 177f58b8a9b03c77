"""Sending an answer as slowly, as partially or as endlessly as it says."""

import asyncio
import math
import socket
import struct
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Final

from d7agent.sandbox.answers import NOW, Answer, reason

SMOOTH: Final = 20  # pieces a second into which a drip is cut at most
NO_LINGER: Final = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: closing resets the connection (socket(7))


class Line:
    """One client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.sent = 0  # bytes handed to the kernel, or on their way there

    async def pause(self, seconds: float) -> None:
        """Waits, for ever if infinite; ConnectionResetError as soon as the client has left."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(None if math.isinf(left) else left):
                    ahead = await self.reader.read(1)  # a client has nothing to say before it has been answered
            except TimeoutError:
                return
            if not ahead:
                raise ConnectionResetError

    async def write(self, data: bytes) -> None:
        """Sends, waiting for a slow reader, and lets others have their turn; ConnectionError if the client has left."""
        if self.writer.is_closing():
            raise ConnectionResetError
        self.sent += len(data)
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Ends the connection with a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.writer.transport.abort()


async def send(line: Line, answer: Answer, *, keep_alive: bool, bodiless: bool) -> bool:
    """Plays the answer; whether the connection can be used again. `bodiless`: a reply to HEAD."""
    if answer.cut:
        if answer.cut == "reset":
            line.reset()
        return False
    keep_alive = keep_alive and answer.keep is None and (isinstance(answer.body, bytes) or answer.length is not None)
    steps = script(answer, head_of(answer, keep_alive), bodiless=bodiless)
    for step in steps if answer.rate is None else drip(steps, answer.rate):
        if isinstance(step, bytes):
            await line.write(step)
            if not isinstance(answer.body, bytes):
                await asyncio.sleep(0)  # a fast reader of an endless body must not starve the others
        else:
            await line.pause(step)
    return keep_alive


def head_of(answer: Answer, keep_alive: bool) -> bytes:
    """Status line and headers."""
    lines = [f"HTTP/1.1 {answer.status} {reason(answer.status)}", "Server: d7agent-sandbox"]
    if answer.date is not None:
        lines.append("Date: " + (formatdate(usegmt=True) if answer.date == NOW else answer.date))
    lines.append(f"Content-Type: {answer.content_type}")
    lines += [f"{name}: {value}" for name, value in answer.headers]
    length = len(answer.body) if isinstance(answer.body, bytes) else answer.length
    if length is not None:
        lines.append(f"Content-Length: {length}")
    lines.append(f"Connection: {'keep-alive' if keep_alive else 'close'}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


def script(answer: Answer, head: bytes, *, bodiless: bool) -> Iterator[bytes | float]:
    """What to do one after the other: bytes are to be sent, numbers are seconds to wait."""
    before, within, ahead = answer.delays
    body = b"" if bodiless else answer.body
    if before:
        yield before
    if within:
        cut = head.index(b"\r\n") + 10  # past the status line, within the first header
        yield head[:cut]
        yield within
        head = head[cut:]
    if isinstance(body, bytes) and not ahead:
        yield head + body[: answer.keep]
        return
    yield head
    if ahead:
        yield ahead
    yield from [body[: answer.keep]] if isinstance(body, bytes) else body()


def drip(steps: Iterator[bytes | float], rate: float) -> Iterator[bytes | float]:
    """The same steps at `rate` bytes a second."""
    size = max(1, round(rate / SMOOTH))
    for step in steps:
        if isinstance(step, bytes):
            for start in range(0, len(step), size):
                yield step[start : start + size]
                yield size / rate
        else:
            yield step
