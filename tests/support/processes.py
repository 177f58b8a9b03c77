"""A fresh interpreter, to see what an import brings along."""

import subprocess
import sys

# `site` may already load something for the environment; only what the import adds is told.
_TELL = "import sys; before = set(sys.modules); import {0}; print(*(set(sys.modules) - before))"


def modules_after_import(module: str) -> set[str]:
    """All modules that importing this one loads in a fresh interpreter; AssertionError if it cannot be imported."""
    argv = [sys.executable, "-I", "-c", _TELL.format(module)]
    run = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert run.returncode == 0, f"importing {module} failed:\n{run.stderr}"
    return set(run.stdout.split())
