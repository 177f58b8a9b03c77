"""A whole d7agent in a throw-away home: the installed command as a process, READY awaited on a notify socket."""

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

COMMAND = str(Path(sys.executable).with_name("d7agent"))
START_LIMIT = 20.0  # seconds; a busy CI machine starts an agent in one
_KEPT = ("PATH", "LANG", "LC_ALL", "COVERAGE_PROCESS_START")


class Live:
    """A home, a runtime folder, and at most one agent in them. Use as a context manager."""

    def __init__(self, **environment: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="d7a-"))  # short: a socket path has 107 bytes
        self.home, self.runtime = self.root / "home", self.root / "run"
        self.home.mkdir(mode=0o700)
        self.runtime.mkdir(mode=0o700)
        self.environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self.environment |= {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.runtime), **environment}
        self.process: subprocess.Popen[bytes] | None = None
        self.log = self.root / "agent.log"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
        if self.socket.exists():  # a command may have started an agent by itself
            self.run("stop")
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def socket(self) -> Path:
        """Where the agent listens."""
        return self.runtime / "d7agent" / "agent.sock"

    @property
    def config(self) -> Path:
        """The configuration folder."""
        return self.home / ".config" / "d7agent"

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.home / ".local" / "state" / "d7agent"

    @property
    def pid(self) -> int:
        """The agent's pid."""
        assert self.process is not None
        return self.process.pid

    def start(self, *arguments: str, ready: bool = True, verbosity: str = "-v", **environment: str) -> Self:
        """Start `d7agent run` and wait for READY=1."""
        with notify_socket(self.root / "notify") as (path, listening):
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    [COMMAND, "run", *filter(None, [verbosity]), *arguments],
                    env={**self.environment, "NOTIFY_SOCKET": path, **environment},
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                )
            if ready:
                wait_ready(listening, self.process, self.log)
        return self

    def stop(self) -> int:
        """SIGTERM and the exit status."""
        assert self.process is not None
        self.process.terminate()
        status = self.process.wait(START_LIMIT)
        self.process = None
        return status

    def kill(self) -> None:
        """SIGKILL, if it runs."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def run(
        self, *arguments: str, text: str = "", check: bool = False, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """One `d7agent` command; `text` is its stdin."""
        done = subprocess.run(
            [COMMAND, *arguments],
            env={**self.environment, **(environment or {})},
            input=text,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if check and done.returncode:
            raise AssertionError(f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.journal()}")
        return done

    def status(self, profile: str | None = None) -> dict[str, Any]:
        """GetStatus, as `status --json` prints it."""
        named = ["--profile", profile] if profile else []
        return dict(msgspec.json.decode(self.run("status", "--json", *named, check=True).stdout))

    def login(self, url: str, *arguments: str, credential: str = "sandbox-id\nsandbox-secret\n") -> None:
        """Log in with the sandbox's credential."""
        self.run("login", "--stdin", "--base-url", url, *arguments, text=credential, check=True)

    def journal(self) -> str:
        """What the agent wrote."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


@contextlib.contextmanager
def notify_socket(path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A service manager's end of sd_notify(3)."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        yield str(path), listening


def wait_ready(listening: socket.socket, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return at READY=1; fail as soon as the process has ended."""
    pidfd = os.pidfd_open(process.pid)
    try:
        while True:
            watched: list[socket.socket | int] = [listening, pidfd]
            ready, _, _ = select.select(watched, [], [], START_LIMIT)
            if listening in ready and b"READY=1" in listening.recv(4096):
                return
            if pidfd in ready or not ready:
                raise AssertionError(f"the agent did not get ready:\n{log.read_text(errors='replace')}")
    finally:
        os.close(pidfd)
