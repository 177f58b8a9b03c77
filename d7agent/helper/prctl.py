"""What the kernel is asked for this process and those it starts: nobody looks in, nothing outlives its parent."""

import ctypes
import re
import resource
from pathlib import Path
from typing import Final

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
PR_SET_DUMPABLE: Final = 4  # linux/prctl.h
SIGKILL: Final = 9
_prctl = ctypes.CDLL(None, use_errno=True).prctl


def close_to_others() -> None:
    """No core file; no ptrace and no /proc/PID/mem for other processes of this uid (prctl(2), ptrace(2))."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _set(PR_SET_DUMPABLE, 0)


def die_with_parent() -> None:
    """Killed by the kernel when the thread that started this process ends. Fit to be called between fork and exec."""
    _set(PR_SET_PDEATHSIG, SIGKILL)


def tracer() -> int | None:
    """The process that traces this one, unless it is root's (proc(5): TracerPid, Uid); None for none.

    Whoever began before close_to_others() goes on. Only its status tells whose it is: it may have hidden the rest.
    """
    pid = _status("self", r"TracerPid:\s*(\d+)")
    if not pid or pid == "0":
        return None
    return None if _status(pid, r"Uid:\s*(\d+)") == "0" else int(pid)


def _status(pid: str, field: str) -> str | None:
    try:
        found = re.search(field, Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return found[1] if found else None


def _set(option: int, value: int) -> None:
    if _prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
