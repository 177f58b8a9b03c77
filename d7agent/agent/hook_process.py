"""One hook as a process: nothing on its stdin, its words to the journal, and a hard time limit."""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping
from typing import Final, Self

MAX_OUTPUT: Final = 16 * 1024  # bytes kept; the rest is read and forgotten, lest the hook block on a full pipe
MAX_LINES: Final = 20  # lines of one hook that go to the journal
MAX_LINE: Final = 400  # characters of each
CHUNK: Final = 65_536  # bytes; what a pipe holds
MORE: Final = "(more is not shown)"


class Failure(Exception):
    """How a hook failed, to be read after its name."""


async def run(argv: tuple[str, ...], environment: Mapping[str, str], limit: float, output: "Output") -> None:
    """Run `argv` in a session of its own until it ends; what it started and left running stays.

    Past `limit` seconds, or when this is cancelled, its whole process group is killed. Raises Failure: not started, too
    slow, or not ended with status 0.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=dict(environment),
            stdin=DEVNULL,
            stdout=output.writing,
            stderr=output.writing,
            start_new_session=True,
        )
    except OSError as error:
        raise Failure(f"cannot be started: {error.strerror}") from None
    try:
        async with asyncio.timeout(limit):
            await process.wait()
    except TimeoutError:
        raise Failure(f"did not end within {limit:.0f} s and was killed") from None
    finally:
        await _end(process)
    if process.returncode:
        raise Failure(_ending(process.returncode))


async def _end(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())


def _ending(status: int) -> str:
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"


class Output:
    """What a hook prints, through a pipe of ours: a grandchild that keeps it open holds nobody up. Use with `with`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._kept = bytearray()
        self._reading, self.writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reading, False)

    def __enter__(self) -> Self:
        self._loop.add_reader(self._reading, self.read)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.remove_reader(self._reading)
        os.close(self._reading)
        os.close(self.writing)

    @property
    def lines(self) -> list[str]:
        """The first lines, printable, fit for the journal."""
        found = [line.rstrip() for line in self._kept.decode(errors="replace").splitlines() if line.strip()]
        shown = ["".join(sign if sign.isprintable() else " " for sign in line[:MAX_LINE]) for line in found[:MAX_LINES]]
        return [*shown, MORE] if len(found) > MAX_LINES or len(self._kept) == MAX_OUTPUT else shown

    def read(self) -> None:
        """Take what is there now."""
        with contextlib.suppress(BlockingIOError):
            chunk = os.read(self._reading, CHUNK)
            self._kept += chunk[: MAX_OUTPUT - len(self._kept)]
