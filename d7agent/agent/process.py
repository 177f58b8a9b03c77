"""One child process: secrets in through a pipe of ours, its answer out into a buffer of ours, and a hard time limit."""

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Mapping
from typing import Final, Self

from d7agent.core.jobs import MAX_REPLY
from d7agent.core.wipe import wipe

PIPE_SIZE: Final = 256 * 1024  # bytes; a request (64 KiB at most) fits whole, so that one write hands it over
MAX_STDERR: Final = 4096  # bytes of a child's complaints worth a journal entry


class Result:
    """What a child did. `output` is wiped when the `with` block that uses the result ends."""

    def __init__(self, output: bytearray, stderr: str, returncode: int | None, *, timed_out: bool) -> None:
        self.output = output
        self.stderr = stderr
        self.returncode = returncode
        self.timed_out = timed_out

    @property
    def ending(self) -> str:
        """How it ended, for a message: `ended with status 1`, `was ended by signal 9`."""
        if self.returncode is not None and self.returncode < 0:
            return f"was ended by signal {-self.returncode}"
        return f"ended with status {self.returncode}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.output[:] = bytes(len(self.output))


async def run(
    argv: tuple[str, ...], environment: Mapping[str, str], request: bytes, raw: bytearray | None, limit: float
) -> Result:
    """Start `argv` in a session of its own, write request, NUL and `raw` to its stdin, read its stdout to the end.

    `limit` in seconds; past it the whole process group is killed. Raises OSError when it cannot be started.
    Cancelling kills it, too, and returns only when it is gone.
    """
    held = [request]
    del request
    with contextlib.ExitStack() as pipes:
        try:
            stdin = _closed_by(pipes, _filled_pipe(held[0], raw))
        finally:
            wipe(held)  # the kernel has it, and nobody needs it any more
        reading, writing = os.pipe2(os.O_CLOEXEC)
        _closed_by(pipes, writing)
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                env=dict(environment),
                stdin=stdin,
                stdout=writing,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            raise
    return await _finish(process, reading, limit)


def _closed_by(stack: contextlib.ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


async def _finish(process: asyncio.subprocess.Process, reading: int, limit: float) -> Result:
    output = bytearray()
    timed_out = False
    complaints = asyncio.ensure_future(_stderr(process))
    try:
        async with asyncio.timeout(limit):
            await _read_all(reading, output)
            if len(output) <= MAX_REPLY:  # else it is ended: what floods us has nothing to say
                await process.wait()
    except TimeoutError:
        timed_out = True
    except BaseException:
        output[:] = bytes(len(output))
        raise
    finally:
        os.close(reading)
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
        text = await _settled(complaints)
    return Result(output, text, process.returncode, timed_out=timed_out)


async def _settled(complaints: asyncio.Future[str]) -> str:
    """What was said on stderr; a grandchild that keeps the pipe open does not hold us up."""
    done, _ = await asyncio.wait({complaints}, timeout=1)
    if not done:
        complaints.cancel()
        return ""
    return complaints.result()


def _filled_pipe(request: bytes, raw: bytearray | None) -> int:
    """The reading end of a pipe that already holds the whole request: no copy waits in a stream's buffer."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        with contextlib.suppress(OSError):  # the default size (64 KiB) still takes all but the largest requests
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        os.writev(writing, [request, b"\0"])
        if raw and os.write(writing, raw) != len(raw):
            raise BlockingIOError(0, "the pipe to the helper is too small for the request")
        os.set_blocking(reading, True)
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return reading


async def _read_all(fd: int, into: bytearray) -> None:
    """Read to the end of input, or to just over MAX_REPLY bytes, which no honest reply has."""
    loop = asyncio.get_running_loop()
    os.set_blocking(fd, False)
    chunk = bytearray(MAX_REPLY)
    try:
        while len(into) <= MAX_REPLY:
            try:
                count = os.readv(fd, [chunk])
            except BlockingIOError:
                await _readable(loop, fd)
                continue
            if count == 0:
                return
            into += memoryview(chunk)[:count]
    finally:
        chunk[:] = bytes(len(chunk))


async def _readable(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    ready = loop.create_future()
    loop.add_reader(fd, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(fd)


async def _stderr(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None  # noqa: S101  it was asked for
    data = await process.stderr.read(MAX_STDERR)
    while await process.stderr.read(MAX_STDERR):
        pass
    return data.decode(errors="replace").strip()
