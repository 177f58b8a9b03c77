"""A person at a terminal: a command on a pseudo-terminal, what it shows, and what is typed into it."""

import contextlib
import fcntl
import os
import select
import struct
import subprocess
import termios
from collections.abc import Sequence
from typing import Any, Self

LIMIT = 30.0  # seconds until something that must be shown has been


class Terminal:
    """A process whose stdin, stdout and stderr are a terminal of its own; `shown` is all that appeared on it."""

    def __init__(self, argv: Sequence[str], env: dict[str, str], columns: int = 100, **redirected: Any) -> None:
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 40, columns, 0, 0))
        ends = {"stdin": theirs, "stdout": theirs, "stderr": theirs} | redirected
        argv = ["setsid", "--ctty", *argv]  # so that Ctrl-C is a signal, and /dev/tty is this terminal
        self.process = subprocess.Popen(argv, env={"TERM": "xterm-256color", **env}, **ends)
        os.close(theirs)
        self.shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        os.close(self._ours)

    def until(self, text: str) -> None:
        """Wait until the text has appeared."""
        while text not in self.shown:
            assert self._read(), f"not shown: {text!r} in {self.shown!r}"

    def type(self, text: str) -> None:
        """Type the text; a line ends with a newline."""
        os.write(self._ours, text.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C until it is heard: Python misses one that comes just before it waits in the kernel."""
        for _ in range(20):
            self.type("\x03")
            if select.select([self._ours], [], [], 1.0)[0]:
                piece = self._piece()
                if not piece:
                    return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.5)
                return

    def wait(self) -> int:
        """Read to the end; the exit status."""
        while self._read():
            pass
        return self.process.wait(10)

    def _read(self) -> bool:
        """Take what appears next; False at the end."""
        assert select.select([self._ours], [], [], LIMIT)[0], f"nothing more appears after {self.shown!r}"
        return self._piece()

    def _piece(self) -> bool:
        piece = b""
        with contextlib.suppress(OSError):  # EIO: the last process has closed the terminal
            piece = os.read(self._ours, 65536)
        self.shown += piece.decode()
        return bool(piece)
