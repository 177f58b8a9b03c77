"""Real conditions of the operating system that make file work fail."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from d7agent.core.paths import Paths

NOBODY = 65534


def paths_in(folder: Path) -> Paths:
    """A user's places below this folder."""
    return Paths(
        config_dir=f"{folder}/config",
        profile_dirs=(f"{folder}/config/profiles",),
        written_dir=f"{folder}/config/profiles",
        state_dir=f"{folder}/state",
        socket=f"{folder}/run/agent.sock",
        folders={"h": str(folder), "t": f"{folder}/run"},
    )


@contextmanager
def unprivileged() -> Iterator[Path]:
    """A folder of our own, and no right to ignore permissions: root becomes nobody meanwhile."""
    root = os.geteuid() == 0
    groups = os.getgroups()
    folder = Path(tempfile.mkdtemp(prefix="d7agent-test-"))
    if root:
        os.chown(folder, NOBODY, NOBODY)
        os.setgroups([])
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(folder)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Another umask for a while."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process can grow beyond `size`: write(2) answers EFBIG, midway through the data."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def open_files_limit(size: int) -> Iterator[None]:
    """No descriptor of number `size` or above."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def on_full_disk(folder: Path, script: str) -> subprocess.CompletedProcess[str] | None:
    """Run Python with a tmpfs of 64 KiB on `folder`, in a mount namespace of its own; None where that is forbidden."""
    flags = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    mount = 'mount -t tmpfs -o size=64k d7agent-test "$0" && exec "$@"'
    argv = ["unshare", *flags, "sh", "-c", mount, str(folder)]
    if shutil.which("unshare") is None or subprocess.run([*argv, "true"], capture_output=True, check=False).returncode:
        return None
    return subprocess.run(
        [*argv, sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=20
    )
