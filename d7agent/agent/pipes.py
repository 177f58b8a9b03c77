"""Pipes to and from a helper, whose content is in no buffer but the kernel's and ours."""

import asyncio
import contextlib
import os
from collections.abc import Callable

from d7agent.core.jobs import MAX_REPLY


def pipe(theirs: contextlib.ExitStack, ours: contextlib.ExitStack, *, to_us: bool = False) -> tuple[int, int]:
    """The child's end and our end of a new pipe, each closed by its stack. Ours does not block."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    their, our = (writing, reading) if to_us else (reading, writing)
    theirs.callback(os.close, their)
    ours.callback(os.close, our)
    os.set_blocking(our, False)
    return their, our


async def first_byte(fd: int) -> bytes:
    """The next byte, empty at the end of input."""
    while True:
        with contextlib.suppress(BlockingIOError):
            return os.read(fd, 1)
        await _readable(fd)


async def written(fd: int, data: memoryview) -> int:
    """How many bytes the pipe took, once it took some."""
    while True:
        with contextlib.suppress(BlockingIOError):
            return os.write(fd, data)
        await _writable(fd)


async def read_all(fd: int, into: bytearray) -> None:
    """Read to the end of input, or to just over MAX_REPLY bytes, which no honest reply has."""
    chunk = bytearray(MAX_REPLY)
    try:
        while len(into) <= MAX_REPLY:
            try:
                count = os.readv(fd, [chunk])
            except BlockingIOError:
                await _readable(fd)
                continue
            if count == 0:
                return
            into += memoryview(chunk)[:count]
    finally:
        chunk[:] = bytes(len(chunk))


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    await _told(fd, loop.add_reader, loop.remove_reader)


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    await _told(fd, loop.add_writer, loop.remove_writer)


async def _told(fd: int, add: Callable[[int, Callable[[], None]], object], remove: Callable[[int], object]) -> None:
    ready = asyncio.get_running_loop().create_future()
    add(fd, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        remove(fd)
