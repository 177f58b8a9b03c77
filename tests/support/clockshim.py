"""Clocks of a running process that can be moved from outside: steps of the wall clock, and a suspend."""

import mmap
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

import pytest

SOURCE: Final = Path(__file__).with_name("clockshim.c")
NS: Final = 1_000_000_000


class Clocks:
    """Offsets of the three clocks, in force for processes that are started with `environment`."""

    def __init__(self, library: Path, folder: Path) -> None:
        self.library = library
        self._file = folder / "offsets"
        self._file.write_bytes(bytes(24))
        with self._file.open("r+b") as file:
            self._offsets = mmap.mmap(file.fileno(), 24)
        self._wall = self._suspended = 0.0

    @property
    def environment(self) -> dict[str, str]:
        """What puts a process under these clocks. A helper's environment is cleaned of it."""
        return {"LD_PRELOAD": str(self.library), "CLOCKSHIM": str(self._file)}

    def step(self, seconds: float) -> None:
        """The wall clock is set forward or back."""
        self._wall += seconds
        self._apply()

    def suspend(self, seconds: float) -> None:
        """The machine was asleep: the monotonic clock, and with it every timer of a loop, has not noticed."""
        self._suspended += seconds
        self._apply()

    def _apply(self) -> None:
        wall, suspended = int((self._wall + self._suspended) * NS), int(self._suspended * NS)
        self._offsets[:] = struct.pack("=3q", wall, 0, suspended)


def compiled(folder: Path) -> Path:
    """The library, made in this folder. Skips where there is no compiler."""
    library = folder / "clockshim.so"
    if shutil.which("gcc") is None:
        pytest.skip("NOT TESTED: clocks that jump; install gcc libc6-dev")
    argv = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(argv, check=True, capture_output=True)
    return library
