"""A client that is another user, on one connection that it keeps; all it needs is the system's Python."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

SYSTEM_PYTHON: Final = "/usr/bin/python3"  # whom everybody may run
PROGRAM: Final = r"""
import socket, sys
path = sys.stdin.readline().rstrip("\n")
agent = socket.socket(socket.AF_UNIX)
agent.connect(path)
replies = agent.makefile("rb")
def reply():
    data = b""
    while not data.endswith(b"\0"):
        byte = replies.read(1)
        if not byte:
            return b"{}"
        data += byte
    return data[:-1]
for line in sys.stdin:
    if line.strip():
        agent.sendall(line.strip().encode() + b"\0")
    sys.stdout.write(reply().decode() + "\n")
    sys.stdout.flush()
"""


class Peer:
    """`argv` is what comes before the Python: how the user is entered. Use it with `with`."""

    def __init__(self, path: str, argv: Sequence[str] = ()) -> None:
        self._process = subprocess.Popen(
            [*argv, SYSTEM_PYTHON, "-I", "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
        )
        self._path = path
        self._connected = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        """The process, which has not connected before the first call."""
        return self._process.pid

    def call(self, method: str, parameters: Mapping[str, object] | None = None, **flags: object) -> dict[str, Any]:
        """One reply to one call: its `parameters`, or `error` beside them. {} once the agent has hung up."""
        self.ask(method, parameters, **flags)
        return self.answer()

    def next(self) -> dict[str, Any]:
        """The next reply of a call with `more`."""
        self._write("")
        return self.answer()

    def ask(self, method: str, parameters: Mapping[str, object] | None = None, **flags: object) -> None:
        """A call whose reply is waited for by `answer`."""
        self._write(json.dumps({"method": f"io.d7agent.{method}", "parameters": dict(parameters or {}), **flags}))

    def answer(self) -> dict[str, Any]:
        """The reply to the call that was asked."""
        assert self._process.stdout is not None
        found = json.loads(self._process.stdout.readline() or "{}")
        assert isinstance(found, dict)
        return found

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        if not self._connected:
            self._process.stdin.write(self._path + "\n")
            self._connected = True
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


def move_to_cgroup(pid: int, path: Path) -> None:
    """Put a process into a cgroup, made if need be."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "cgroup.procs").write_text(str(pid))


def remove_cgroups(*paths: Path) -> None:
    """Remove empty cgroups, and their parents as long as those are empty and have no process."""
    for lowest in paths:
        for path in (lowest, *lowest.parents[:3]):
            try:
                os.rmdir(path)
            except OSError:
                break
