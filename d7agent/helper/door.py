"""The process around a job: closed to others, one request in, one reply out, and no word of a secret if it crashes."""

import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Final, NoReturn

import msgspec

from d7agent.core.clock import boot_time
from d7agent.core.jobs import READY, Failed, Job, Reply, decode_job, encode
from d7agent.helper.prctl import close_to_others, die_with_parent, tracer
from d7agent.helper.runner import WITH_PARAMETERS, perform
from d7agent.helper.session import Limits

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

MAX_REQUEST: Final = 256 * 1024  # bytes: the job with a 16 KiB token and 64 KiB of parameters, and their escapes
CRASH_HINT: Final = "this is a bug in d7agent; please report it with the agent's log"
TRACE_HINT: Final = "see what it is (ps -p PID) and end it; the sysctl kernel.yama.ptrace_scope=1 forbids such tracing"
MEMORY_HINT: Final = "a helper needs some 60 MB for a moment: see the machine's free memory, ulimit -v and MemoryMax="


def main(limits: Limits | None = None) -> NoReturn:
    """Read one job from stdin, write its reply to what stdout was, leave. `limits`: other than the usual, for tests."""
    started = boot_time()
    replies = _set_apart()
    try:
        close_to_others()
        die_with_parent()
        reply = _traced() or _answer(replies, started, limits or Limits())
    except BaseException as error:  # noqa: BLE001  whatever it is, the agent gets a reply and nobody gets a traceback
        reply = _crashed(error)
    _leave(replies, reply)


def _crashed(error: BaseException) -> Failed:
    if isinstance(error, MemoryError):
        return Failed("helper_failed", f"the helper ran out of memory ({place(error)})", MEMORY_HINT)
    return Failed("helper_failed", f"the helper failed with {place(error)}", CRASH_HINT)


def _traced() -> Failed | None:
    """The answer in place of READY where somebody looks in all the same."""
    pid = tracer()
    if pid is None:
        return None
    return Failed("helper_failed", f"process {pid} traces the agent's helper: it is given no secret", TRACE_HINT)


def _answer(replies: int, started: float, limits: Limits) -> Reply:
    os.write(replies, READY)
    job, raw = _request()
    return perform(job, raw, started, limits)


def place(error: BaseException) -> str:
    """The exception's type and where it was raised. Not its words: they may hold a secret."""
    step, where = error.__traceback__, ""
    while step:
        where = f" in {os.path.basename(step.tb_frame.f_code.co_filename)}:{step.tb_lineno}"
        step = step.tb_next
    return type(error).__name__ + where


def _set_apart() -> int:
    """The descriptor for the reply. What prints to stdout from now on (a keyring plugin) goes to stderr."""
    replies = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    sys.excepthook = _excepthook
    sys.unraisablehook = _unraisablehook
    return replies


def _excepthook(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
    os.write(2, f"d7agent.helper: {place(error)}\n".encode())


def _unraisablehook(unraisable: "UnraisableHookArgs") -> None:
    if unraisable.exc_value:
        os.write(2, f"d7agent.helper: ignored {place(unraisable.exc_value)}\n".encode())


def _request() -> tuple[Job, bytes]:
    """The job and the raw parameters. The end of input is awaited only where parameters are."""
    data = bytearray()
    while 0 not in data and _more(data):
        pass
    head, _, raw = data.partition(b"\0")
    try:
        job = decode_job(bytes(head))
    except msgspec.DecodeError:
        job = None
    if job is None:
        raise ValueError("no job")
    while isinstance(job, WITH_PARAMETERS) and _more(raw):
        pass
    return job, bytes(raw)


def _more(data: bytearray) -> bool:
    piece = os.read(0, 64 * 1024)
    data += piece
    if len(data) > MAX_REQUEST:
        raise ValueError("the request is too large")
    return bool(piece)


def _leave(replies: int, reply: Reply) -> NoReturn:
    """Write the reply whole, then go without waiting for threads that are still blocked."""
    data = encode(reply)
    try:
        while data:
            data = data[os.write(replies, data) :]
    except OSError:  # nobody is there to read it
        os._exit(1)
    os._exit(0)
