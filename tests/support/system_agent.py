"""The host's agent without touching the host: /etc, /var/lib and /run of a mount namespace of its own, users included.

As root. What is written there is gone with the namespace; processes see this machine's network, and /tmp as it is.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import pytest

from tests.support.live import COMMAND, START_LIMIT, notify_socket, wait_ready

USERS: Final = {"d7agent": 61184, "nagios": 61185, "zabbix": 61186}  # uids that systemd leaves to nobody
LIMIT: Final = 50.0  # seconds for one command
SETUP: Final = r"""
set -eu
scratch=$1; shift
mount -t tmpfs tmpfs "$scratch"
for folder in etc var/lib run; do
    upper=$scratch/$folder/upper work=$scratch/$folder/work
    mkdir -p "$upper" "$work"
    mount -t overlay overlay -o "lowerdir=/$folder,upperdir=$upper,workdir=$work" "/$folder"
done
for user; do
    echo "${user%:*}:x:${user#*:}:${user#*:}::/nonexistent:/bin/sh" >>/etc/passwd
    echo "${user%:*}:x:${user#*:}:" >>/etc/group
done
rm -rf /etc/d7agent /var/lib/d7agent /run/d7agent
mkdir -m 755 /etc/d7agent /run/d7agent
mkdir -m 700 /var/lib/d7agent
echo ready
exec cat
"""


class SystemAgent:
    """A namespace with the users above, and at most one `d7agent run --system` (as root) in it. Use it with `with`."""

    def __init__(self) -> None:
        if os.geteuid() != 0:
            pytest.skip("NOT TESTED: the host's agent and its other users; run the tests as root")
        self.root = Path(tempfile.mkdtemp(prefix="d7s-"))
        self.root.chmod(0o755)
        self._holder: subprocess.Popen[bytes] | None = None
        self._agent: subprocess.Popen[bytes] | None = None
        self.log = self.root / "agent.log"

    def __enter__(self) -> Self:
        scratch = self.root / "scratch"
        scratch.mkdir()
        users = [f"{name}:{uid}" for name, uid in USERS.items()]
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", SETUP, "sh", str(scratch), *users],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            said = self._holder.communicate()[1].decode(errors="replace").strip()
            shutil.rmtree(self.root, ignore_errors=True)
            pytest.skip(f"NOT TESTED: the host's agent; no overlay file systems in a mount namespace here: {said}")
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.kill()
        if self._holder is not None:
            self._holder.communicate()  # its stdin's end lets it go, and the namespace with it
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The agent's pid."""
        assert self._agent is not None
        return self._agent.pid

    def start(self) -> None:
        """Start the agent and wait for READY=1."""
        with notify_socket(self.root / "notify") as (path, listening), self.log.open("ab") as log:
            argv = self._argv(["env", "-i", f"NOTIFY_SOCKET={path}", f"PATH={os.environ['PATH']}", "LC_ALL=C.UTF-8"])
            self._agent = subprocess.Popen([*argv, COMMAND, "run", "--system", "-v"], stdout=log, stderr=log)
            wait_ready(listening, self._agent, self.log)

    def stop(self) -> None:
        """SIGTERM, and wait until it has ended."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._agent is not None:
            self._agent.send_signal(number)
            self._agent.wait(START_LIMIT)
            self._agent = None

    def run(self, *argv: str, user: str = "root", text: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a command as this user, with nothing in its environment but a PATH: as a daemon would."""
        become: Sequence[str] = []
        if user != "root":
            uid = str(USERS[user])
            become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"]
        bare = [*become, "env", "-i", "PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8"]
        return subprocess.run(
            self._argv([*bare, *argv]), input=text, capture_output=True, text=True, check=False, timeout=LIMIT
        )

    def d7agent(self, *arguments: str, user: str = "root", text: str = "") -> "subprocess.CompletedProcess[str]":
        """Run `d7agent ARGUMENTS` as this user."""
        return self.run(COMMAND, *arguments, user=user, text=text)

    def configure(self, text: str) -> None:
        """Write /etc/d7agent/config.toml."""
        done = self.run("sh", "-c", "cat >/etc/d7agent/config.toml", text=text)
        assert done.returncode == 0, done.stderr

    def need_command(self, user: str) -> None:
        """Skip, loudly, where this Python cannot be run by another user: one below root's home, as pyenv makes it."""
        done = self.d7agent("--version", user=user)
        if done.returncode:
            why = done.stderr.strip().splitlines()[-1:]
            pytest.skip(f"NOT TESTED: d7agent as another user: {sys.executable} cannot be run by others: {why}")

    def _argv(self, argv: Sequence[str]) -> list[str]:
        assert self._holder is not None
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--", *argv]
