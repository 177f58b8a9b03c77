"""The scene: an embedded D7, and agents in throw-away homes, maybe as another user."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

from d7agent.sandbox import DEFAULT_ID, DEFAULT_SECRET
from tests.support.live import COMMAND, Live, notify_socket, wait_ready

OTHER = 61190  # a uid that systemd leaves to nobody: with root's there are two, each with its half of the connections


class Home(Live):
    """An agent that logs as it does by default. `uid`: whose it is, if not the caller's."""

    def __init__(self, uid: int | None = None, **environment: str) -> None:
        super().__init__(LC_ALL="C.UTF-8", **environment)
        self.uid = uid

    def profile(self, name: str, url: str, extra: str = "") -> None:
        """A profile whose credential is in a folder of its own."""
        credential = self.root / "credentials" / name
        credential.mkdir(parents=True, mode=0o700)
        for file, text in (("client_id", DEFAULT_ID), ("client_secret", DEFAULT_SECRET)):
            (credential / file).write_text(text)
            (credential / file).chmod(0o600)
        self.write(name, f'base_url = "{url}"\nstore = "directory:{credential}"\n{extra}')

    def write(self, name: str, text: str) -> None:
        """The profile's file."""
        folder = self.config / "profiles"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / f"{name}.toml").write_text(text)

    def begin(self) -> Self:
        """Start the agent, wait for READY=1."""
        if self.uid is not None:
            for file in (self.root, *self.root.rglob("*")):
                os.chown(file, self.uid, self.uid)
        with notify_socket(self.root / "notify") as (path, listening), self.log.open("ab") as log:
            Path(path).chmod(0o666)
            self.process = subprocess.Popen(
                [COMMAND, "run"],
                env={**self.environment, "NOTIFY_SOCKET": path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self.uid,
                group=self.uid,
                extra_groups=None if self.uid is None else [],
            )
            wait_ready(listening, self.process, self.log)
        return self


def other_uid() -> int | None:
    """A second uid that can run this Python; None where we may not become one, or it cannot."""
    if os.geteuid() != 0:
        return None
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import d7agent.agent"], user=OTHER, group=OTHER, cwd="/", check=False
        )
    except OSError:
        return None
    return OTHER if done.returncode == 0 else None


def program(name: str) -> str | None:
    """The path of a program, Debian's own first; of one that pyenv has, the program and not the script before it."""
    found = shutil.which(name, path=f"/usr/bin:/bin:{os.environ['PATH']}")
    if found and "/shims/" in found:
        found = subprocess.run(["pyenv", "which", name], capture_output=True, text=True, check=False).stdout.strip()
    return found or None
