"""Asking systemd: the user's manager or the system's, through its own command."""

import os
import pwd
import re
import subprocess
from pathlib import Path
from typing import Final

from d7agent.cli.output import Failure

LIMIT: Final = 60.0  # seconds; starting and stopping units waits for them
LINGER: Final = "/var/lib/systemd/linger"  # where logind keeps a file for each user who lingers


class Manager:
    """One service manager. `system`: the host's, else that of the user who runs this."""

    def __init__(self, *, system: bool) -> None:
        self.system = system
        self._argv = ["systemctl", *([] if system else ["--user"])]

    @property
    def command(self) -> str:
        """How a person calls it."""
        return " ".join(self._argv)

    def check(self) -> None:
        """Raise Failure unless the manager answers."""
        done = self._run("show-environment")
        if done.returncode == 0:
            return
        said = _last(done)
        if self.system:
            raise Failure(f"systemd does not run this machine: {said}", "start `d7agent run --system` by other means")
        hint = "log in on the console, by ssh or with `machinectl shell USER@`, not by su or sudo"
        others = "without systemd: d7agent start"
        if os.geteuid() == 0:
            others = "for the host's agent: d7agent service install --system"
        raise Failure(f"your systemd user manager does not answer: {said}", f"{hint}; {others}")

    def version(self) -> int:
        """systemd's version; 0 where it cannot be read."""
        found = re.match(r"systemd (\d+)", self._run("--version").stdout)
        return int(found[1]) if found else 0

    def do(self, *arguments: str) -> None:
        """Run systemctl and wait until it is done. Raises Failure with its own words."""
        done = self._run(*arguments)
        if done.returncode:
            journal = "journalctl" if self.system else "journalctl --user"
            raise Failure(
                f"`{self.command} {' '.join(arguments)}` failed: {_last(done)}",
                f"{journal} -u d7agent.service -u d7agent.socket tells more",
            )

    def tried(self, *arguments: str) -> bool:
        """The same, whatever comes of it; whether it worked."""
        done = _without_fail([*self._argv, *arguments])
        return done is not None and done.returncode == 0

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit, by name; nothing where the manager does not answer."""
        done = _without_fail([*self._argv, "show", unit, "--property", ",".join(properties)])
        if done is None or done.returncode:
            return {}
        return {name: value for name, _, value in (line.partition("=") for line in done.stdout.splitlines())}

    def _run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return run([*self._argv, *arguments])


def run(argv: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command of the system, its words kept. Raises Failure when it is missing or does not end."""
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=LIMIT
        )
    except FileNotFoundError:
        raise Failure(f"there is no {argv[0]} on this machine", "without systemd: d7agent start") from None
    except subprocess.TimeoutExpired:
        raise Failure(f"`{' '.join(argv)}` did not end within {LIMIT:g} s", "see what systemd waits for") from None


def _without_fail(argv: list[str]) -> "subprocess.CompletedProcess[str] | None":
    try:
        return run(argv)
    except Failure:
        return None


def lingers(uid: int) -> bool | None:
    """Whether the user's manager runs without a session; None where neither logind nor its file tells."""
    done = _without_fail(["loginctl", "show-user", str(uid), "--property", "Linger"])
    if done is not None and done.returncode == 0:
        return done.stdout.strip() == "Linger=yes"
    try:
        return Path(LINGER, pwd.getpwuid(uid).pw_name).exists() if os.path.isdir(LINGER) else None
    except KeyError:
        return None


def _last(done: "subprocess.CompletedProcess[str]") -> str:
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1] if lines else f"status {done.returncode}"
