"""One helper process: secrets in through a pipe of ours, its answer out into a buffer of ours, and a hard time limit.

Until it has closed itself to others, any process of its user can look into a helper as into every process. So it gets
its request when it says that it has, and not at its start.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from typing import Final, Self

from d7agent.agent.pipes import first_byte, pipe, read_all, written
from d7agent.core.jobs import MAX_REPLY, READY
from d7agent.core.wipe import wipe

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
    """Start `argv` in a session of its own; at its READY write request, NUL and `raw`; read its stdout to the end.

    What it says in place of READY is its answer. `limit` in seconds; past it the whole process group is killed.
    Raises OSError when it cannot be started. Cancelling kills it, too, and returns only when it is gone.
    """
    held = [request]
    del request
    try:
        child = await _started(argv, environment)
        return await _finish(child, held, raw, limit)
    finally:
        wipe(held)


class _Child:
    """A process, our ends of its stdin and stdout, and what it has said so far."""

    def __init__(self, process: asyncio.subprocess.Process, requests: int, replies: int) -> None:
        self.process = process
        self.output = bytearray()
        self._requests = requests
        self._replies = replies

    async def talk(self, request: list[bytes], raw: bytearray | None) -> None:
        """From its READY to its end."""
        if await self._is_ready():
            with contextlib.suppress(BrokenPipeError):  # it has ended: how is told by its status
                for part in (request[0], b"\0", raw or b""):
                    await self._write(part)
        wipe(request)
        self._close_requests()
        await read_all(self._replies, self.output)
        if len(self.output) <= MAX_REPLY:  # else it is ended: what floods us has nothing to say
            await self.process.wait()

    async def end(self) -> None:
        """End it, if it has not ended, with all that it started, and close our ends."""
        self._close_requests()
        os.close(self._replies)
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            await asyncio.shield(self.process.wait())

    async def _is_ready(self) -> bool:
        """Whether it says so; what else it says is kept."""
        self.output += await first_byte(self._replies)
        if self.output != READY:
            return False
        self.output.clear()
        return True

    async def _write(self, data: bytes | bytearray) -> None:
        with memoryview(data) as whole:
            done = 0
            while done < len(whole):
                with whole[done:] as rest:
                    done += await written(self._requests, rest)

    def _close_requests(self) -> None:
        if self._requests >= 0:
            os.close(self._requests)
            self._requests = -1


async def _started(argv: tuple[str, ...], environment: Mapping[str, str]) -> _Child:
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        stdin, requests = pipe(theirs, ours)
        stdout, replies = pipe(theirs, ours, to_us=True)
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=dict(environment),
            stdin=stdin,
            stdout=stdout,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        ours.pop_all()
    return _Child(process, requests, replies)


async def _finish(child: _Child, request: list[bytes], raw: bytearray | None, limit: float) -> Result:
    timed_out = False
    complaints = asyncio.ensure_future(_stderr(child.process))
    try:
        async with asyncio.timeout(limit):
            await child.talk(request, raw)
    except TimeoutError:
        timed_out = True
    except BaseException:
        child.output[:] = bytes(len(child.output))
        raise
    finally:
        await child.end()
        text = await _settled(complaints)
    return Result(child.output, text, child.process.returncode, timed_out=timed_out)


async def _settled(complaints: asyncio.Future[str]) -> str:
    """What was said on stderr; a grandchild that keeps the pipe open does not hold us up."""
    done, _ = await asyncio.wait({complaints}, timeout=1)
    if not done:
        complaints.cancel()
        return ""
    return complaints.result()


async def _stderr(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None  # noqa: S101  it was asked for  # nosec B101
    data = await process.stderr.read(MAX_STDERR)
    while await process.stderr.read(MAX_STDERR):
        pass
    return data.decode(errors="replace").strip()
