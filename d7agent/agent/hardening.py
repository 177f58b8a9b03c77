"""What the agent takes from itself at start: core files, and being read by other processes of its user."""

import ctypes
import os
import resource
from typing import Final

PR_SET_DUMPABLE: Final = 4  # prctl(2); 0: no core file, no ptrace and no /proc/PID/mem for the same uid


def harden() -> str:
    """Close what can be closed; how secrets in memory are guarded, in words, for `status`."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        return "no core files; other processes of this user could trace the agent"
    return "not traceable, no core files; may be swapped out where swap is not encrypted"
