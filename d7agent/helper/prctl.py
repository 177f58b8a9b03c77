"""What the kernel is asked for this process and those it starts: nobody looks in, nothing outlives its parent."""

import ctypes
import resource
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


def _set(option: int, value: int) -> None:
    if _prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
