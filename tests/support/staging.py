"""A Live whose agent is started by another program: in a mount namespace, with limits, with a Python of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

import pytest

from tests.support.live import COMMAND, Live, notify_socket, wait_ready

HELPER: Final = b"d7agent.helper"
TMPFS: Final = 'mount -t tmpfs -o size=64k,mode=700 d7agent-test "$0" && exec "$@"'
FULL: Final = (
    'mount -t tmpfs -o size=64k,mode=700 d7agent-test "$0" && { cat /dev/zero >"$0/ballast" 2>/dev/null; exec "$@"; }'
)
READ_ONLY: Final = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


class Staged(Live):
    """`start` puts `prefix` before the agent's command line, which `command` holds."""

    def __init__(self, prefix: Sequence[str] = (), command: Sequence[str] = (COMMAND,), **environment: str) -> None:
        super().__init__(**environment)
        self.prefix = prefix
        self.command = command

    def start(self, *arguments: str, ready: bool = True, **environment: str) -> Self:
        """Start `d7agent run -v` behind the prefix, which has to exec it, and wait for READY=1."""
        with notify_socket(self.root / "notify") as (path, listening):
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    [*self.prefix, *self.command, "run", "-v", *arguments],
                    env={**self.environment, "NOTIFY_SOCKET": path, **environment},
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                )
            if ready:
                wait_ready(listening, self.process, self.log)
        return self

    def seen(self, path: Path) -> Path:
        """The path as the agent sees it, with its own mounts."""
        return Path(f"/proc/{self.pid}/root{path}")


def mounted(script: str, folder: Path) -> list[str]:
    """A prefix: a mount namespace in which `script` (TMPFS, READ_ONLY) has changed the folder."""
    flags = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    argv = ["unshare", *flags, "sh", "-c", script, str(folder)]
    if shutil.which("unshare") is None or subprocess.run([*argv, "true"], capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: full and read-only disks; no mount namespaces here")
    return argv


class OwnPython:
    """A virtual environment that is a double of ours, with an interpreter that can be replaced while an agent runs."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "bin" / "python"
        self.path.parent.mkdir(parents=True)
        self.path.symlink_to(sys.executable)
        (folder / "pyvenv.cfg").write_text((Path(sys.prefix) / "pyvenv.cfg").read_text())
        (folder / "lib").symlink_to(Path(sys.prefix) / "lib")

    @property
    def command(self) -> list[str]:
        """What starts d7agent with it."""
        return [str(self.path), "-P", "-m", "d7agent"]

    def remove(self) -> None:
        """From now on it cannot be started."""
        self.path.unlink()

    def wrap(self, script: str) -> None:
        """From now on a shell script stands in its place; `"$@"` in it starts the real one."""
        self.remove()
        self.path.write_text(f'#!/bin/sh\nset -- {sys.executable} "$@"\n{script}\n')
        self.path.chmod(0o755)

    def restore(self) -> None:
        """As at first."""
        self.remove() if self.path.exists() else None
        self.path.symlink_to(sys.executable)


def helpers_of(pid: int) -> list[int]:
    """The helpers that this agent has running."""
    return [child for child in children(pid) if HELPER in _read(f"/proc/{child}/cmdline")]


def children(pid: int) -> Iterator[int]:
    """The child processes of all its threads."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        yield from map(int, _read(f"{task}/children").split())


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
