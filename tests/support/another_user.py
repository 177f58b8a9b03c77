"""Running this Python as another user, who has no right but his own."""

import os
import shutil
import subprocess
import sys
from typing import Final

import pytest

UID: Final = 61_187  # nobody's


def as_another(*argv: str) -> list[str]:
    """The command line, run as user UID without any privilege. Skips, loudly, where that cannot be."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("NOT TESTED: another user; run the tests as root, with setpriv from util-linux")
    become = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--no-new-privs"]
    if subprocess.run(
        [*become, sys.executable, "-I", "-c", "import d7agent"], check=False, capture_output=True
    ).returncode:
        pytest.skip(f"NOT TESTED: another user, who cannot run {sys.executable}: use a Python outside of root's home")
    return [*become, *argv]
