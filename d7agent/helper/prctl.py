"""What the kernel is asked for this process and those it starts: nobody looks in, nothing outlives its parent.

It imports little, not even `typing`: until it has been called, other processes of the same user can look in.
"""

import ctypes
import resource

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_DUMPABLE = 4  # linux/prctl.h
SIGKILL = 9
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
    pid = _status("self", "TracerPid:")
    if not pid or pid == "0":
        return None
    return None if _status(pid, "Uid:") == "0" else int(pid)


def _status(pid: str, field: str) -> str | None:
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as lines:
            return next((line.split()[1] for line in lines if line.startswith(field)), None)
    except OSError:
        return None


def _set(option: int, value: int) -> None:
    if _prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
