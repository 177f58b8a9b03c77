"""The command line as a process and, where it is asked often, within this one."""

import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from d7agent.cli import app, pending

COMMAND = [sys.executable, "-P", "-m", "d7agent"]
LIMIT = 50.0  # seconds for one process, far beyond what the slowest takes


class Run(NamedTuple):
    """How a command ended: its exit status and what it wrote."""

    status: int
    out: str
    err: str


@contextmanager
def short_folder() -> Iterator[Path]:
    """A private folder whose path is short enough for sockets (107 bytes) whatever the test is called."""
    folder = Path(tempfile.mkdtemp(prefix="d7-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment of a user whose home and runtime folder are below `folder`; nothing else is let through."""
    (folder / "run").mkdir(mode=0o700, exist_ok=True)
    places = {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder / "run")}
    return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **places, **more}


def own_socket(folder: Path) -> Path:
    """Where that user's own agent listens."""
    return folder / "run" / "d7agent" / "agent.sock"


def run(args: Sequence[str], env: dict[str, str], stdin: str = "", command: Sequence[str] = COMMAND) -> Run:
    """Run `d7agent ARGS` as a process."""
    done = subprocess.run(
        [*command, *args], env=env, input=stdin.encode(), capture_output=True, check=False, timeout=LIMIT
    )
    return Run(done.returncode, done.stdout.decode(), done.stderr.decode())


def run_unread(args: Sequence[str], env: dict[str, str]) -> tuple[int, str]:
    """Run `d7agent ARGS` with a stdout whose reader has gone; exit status and stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as out:
        done = subprocess.run(
            [*COMMAND, *args], env=env, stdout=out, stderr=subprocess.PIPE, check=False, timeout=LIMIT
        )
    return done.returncode, done.stderr.decode()


class Inside:
    """Runs command lines by the long way within this process; the environment is that of `environment`."""

    def __init__(self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capfd = capfd
        self._monkeypatch = monkeypatch

    def __call__(self, *args: str, stdin: str = "") -> Run:
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        self._capfd.readouterr()
        pending.keep(None)
        status = app.run(list(args))
        return Run(status, *self._capfd.readouterr())


def inside(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, **more: str) -> Inside:
    """An Inside whose user lives in `folder`."""
    for name in os.environ:
        if name.startswith(("D7", "XDG_", "SHELL", "COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM")):
            monkeypatch.delenv(name)
    for name, value in environment(folder, **more).items():
        monkeypatch.setenv(name, value)
    return Inside(capfd, monkeypatch)


def is_two_lines(text: str) -> bool:
    """Whether this is an error as every command tells it: what happened, and what to do next."""
    lines = text.splitlines()
    starts = ("d7agent: error: ", "d7agent: hint: ")
    return len(lines) == 2 and all(
        line.startswith(s) and len(line) > len(s) for line, s in zip(lines, starts, strict=True)
    )
