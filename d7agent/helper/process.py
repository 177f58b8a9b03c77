"""Running a program with limits on its time and its words; nothing of it stays behind."""

import contextlib
import os
import selectors
import signal
import subprocess
from typing import Final

from msgspec import Struct

from d7agent.core.clock import boot_time
from d7agent.helper.faults import StoreUnreachable
from d7agent.helper.prctl import die_with_parent

MAX_OUTPUT: Final = 64 * 1024  # bytes, of stdout and of stderr; a credential is 1 kB


class Ran(Struct, frozen=True):
    """How it ended: the exit code (negative: the signal), and what it wrote. `out` may hold secrets."""

    code: int
    out: str
    err: str

    def __repr__(self) -> str:
        return f"<Ran to code {self.code}>"


def run(argv: list[str], limit: float, name: str) -> Ran:
    """Run `argv` with nothing on stdin, in a process group of its own, which is killed at the end.

    `name`: what to call it in messages. Raises StoreUnreachable: cannot be started, too late, says too much.
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
            preexec_fn=die_with_parent,  # noqa: PLW1509  one system call, bound before the fork; takes no lock
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        why = error.strerror if isinstance(error, OSError) else "an impossible name"
        hint = "name it by its whole path; the agent's PATH may be shorter than yours"
        raise StoreUnreachable(f"{name} cannot be started: {why}", hint) from None
    with process:
        try:
            out, err = _watched(process, boot_time() + limit, limit, name)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # before it is reaped, so that the number is still its own
        return Ran(process.wait(), out, err)


def _watched(process: subprocess.Popen[bytes], end: float, limit: float, name: str) -> tuple[str, str]:
    """Read until the program itself ends: what it left running may hold the pipes open for ever."""
    out, err = bytearray(), bytearray()
    written = {pipe.fileno(): text for pipe, text in ((process.stdout, out), (process.stderr, err)) if pipe}
    ended = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            for fd in (*written, ended):
                selector.register(fd, selectors.EVENT_READ)
            while ended in selector.get_map():
                ready = [key.fd for key, _ in selector.select(max(0.0, end - boot_time()))]
                if not ready:
                    raise StoreUnreachable(f"{name} did not end within {limit:g} s", "see what it waits for")
                for fd in ready:
                    if fd == ended or not _read(fd, written[fd]):
                        selector.unregister(fd)
                _check(name, out, err)
        for fd, found in written.items():
            os.set_blocking(fd, False)
            with contextlib.suppress(BlockingIOError):
                while len(found) <= MAX_OUTPUT and _read(fd, found):
                    pass
    finally:
        os.close(ended)
    _check(name, out, err)
    return out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


def _check(name: str, *written: bytearray) -> None:
    if max(map(len, written)) > MAX_OUTPUT:
        raise StoreUnreachable(f"{name} writes more than {MAX_OUTPUT // 1024} KiB", "see what it prints")


def _read(fd: int, found: bytearray) -> bool:
    data = os.read(fd, 16 * 1024)
    found += data
    return bool(data)
