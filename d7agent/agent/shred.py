"""Overwrites what is left of a token in this process's memory once nobody needs it any more.

CPython and the libraries below it free memory without wiping it: of a token that was dropped up to a dozen copies stay
in blocks that nobody will overwrite soon. Where they come from (decoding, encoding, old replies) is out of Python's
reach, so they are looked for. The kernel does the reading and writing (process_vm_readv(2)): an address that is
unmapped meanwhile is an error, where a pointer would be a crash.
"""

import ctypes
import errno
import gc
import logging
import mmap
import os
import select
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from d7agent.core.model import Secret

PIECE: Final = 1024 * 1024  # bytes looked at in one go
HALF: Final = 20  # bytes looked for: the last two of so many, which in a JWT are of its signature
LONG: Final = 1.0  # seconds; more than a search takes, and what a thread that never pauses can cost us
CUT: Final = 32  # bytes at either end that a copy in free memory may have lost to the allocator or to what came after
LEAST: Final = 2 * HALF  # bytes; of a shorter token no piece is sure to be nobody else's

log = logging.getLogger(__name__)


def shred(tokens: Iterable[Secret]) -> int:
    """Overwrite every copy of these tokens, also one of which a little is gone already (CUT); how many.

    What shares no more than a part with a token is another's: two tokens of one application may begin or end alike, and
    a D7 that lies could name one so that it ends like something the agent needs.
    Whoever still holds one of them holds zeros then. Takes some 40 ms a token, in which nothing else happens here.
    Where the kernel does not allow it nothing is done, and the log says so.
    """
    try:
        with _undisturbed():
            return sum(_Shredder(token.reveal()).run() for token in tokens if len(token.reveal()) >= LEAST)
    except OSError as error:
        log.warning("copies of the token may be left in the agent's memory: %s", error.strerror)
        return 0


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Within, no garbage is collected, and no other thread gets its turn while we have ours to spare.

    A thread that already waits for its turn asks for it once more after the former interval: it gets it now.
    """
    collected, interval = gc.isenabled(), sys.getswitchinterval()
    gc.disable()
    sys.setswitchinterval(LONG)
    try:
        select.select((), (), (), 2 * interval)
        yield
    finally:
        sys.setswitchinterval(interval)
        if collected:
            gc.enable()


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Area:
    """Shared memory, in which nothing is looked for: what the search itself needs must not be found."""

    def __init__(self, size: int) -> None:
        # Beyond what is searched one byte more: mmap.find of Python 3.11.2 looks at it (CPython issue 105235), and
        # where the next page is nobody's the agent would crash.
        self.data = mmap.mmap(-1, size + 1)
        self._held = (ctypes.c_char * (size + 1)).from_buffer(self.data)
        self.address = ctypes.addressof(self._held)

    def wipe(self) -> None:
        """Nothing is left in it."""
        ctypes.memset(self.address, 0, len(self.data))


class _Shredder:
    """Looks for one token."""

    def __init__(self, token: str) -> None:
        self._size = len(token)
        self._token = _Area(self._size)
        self._token.data[: self._size] = token.encode()
        self._copy = _Area(self._size)
        self._zeros = _Area(self._size)
        self._local, self._remote = _Iovec(), _Iovec()
        self._spans = ctypes.byref(self._local), ctypes.byref(self._remote)
        self._piece = _Area(PIECE)
        self._libc = ctypes.PyDLL(None, use_errno=True)  # keeps the GIL: no thread of ours changes what was just read

    def run(self) -> int:
        """How many copies were overwritten. Raises OSError where that is not allowed."""
        try:
            return sum(self._in_region(start, end) for start, end in _regions())
        finally:
            for area in (self._token, self._copy, self._piece):
                area.wipe()

    def _in_region(self, start: int, end: int) -> int:
        found = 0
        for at in range(start, end, PIECE - HALF):
            size = self._transfer(self._libc.process_vm_readv, self._piece.address, at, min(PIECE, end - at))
            for offset in (self._size - HALF, self._size - 2 * HALF):
                for place in self._places(offset, size):
                    found += self._overwrite(at + place, offset, start, end)
        return found

    def _places(self, offset: int, size: int) -> Iterator[int]:
        """Where in the piece the HALF bytes that the token has from `offset` on stand."""
        with memoryview(self._token.data) as whole, whole[offset : offset + HALF] as wanted:
            place = self._piece.data.find(wanted, 0, size)
            while place >= 0:
                yield place
                place = self._piece.data.find(wanted, place + 1, size)

    def _overwrite(self, at: int, offset: int, start: int, end: int) -> bool:
        """Overwrite what of the token stands around `at`, where its byte `offset` is, within the region."""
        first = max(start, at - offset)
        skipped = first - (at - offset)
        size = min(end, at - offset + self._size) - first
        size = self._transfer(self._libc.process_vm_readv, self._copy.address, first, size)
        low = high = offset - skipped
        with memoryview(self._token.data) as token, memoryview(self._copy.data) as copy:
            while 0 < low <= size and copy[low - 1] == token[low - 1 + skipped]:
                low -= 1
            while high < size and copy[high] == token[high + skipped]:
                high += 1
        return high - low >= max(LEAST, self._size - CUT) and self._strike(first + low, low + skipped, high - low)

    def _strike(self, at: int, offset: int, size: int) -> bool:
        """Overwrite `size` bytes at `at` if they are still the token's from `offset` on.

        Most copies lie in free memory, and any object made may be put there: one made between the look and the stroke
        would be overwritten while it lives, and the agent would crash. So it is done twice, first with a stroke of no
        length. The few objects that the calls need are put into the same places both times, and what of the token is
        left there after the rehearsal is nothing that they use.
        """
        read, compare, write = self._libc.process_vm_readv, self._libc.memcmp, self._libc.process_vm_writev
        mine, theirs = self._spans
        pid, token, copy, zeros = os.getpid(), self._token.address + offset, self._copy.address, self._zeros.address
        pointer, other = ctypes.c_void_p(token), ctypes.c_void_p(copy)
        length = ctypes.c_size_t(size)
        local, remote = self._local, self._remote
        for stroke in (0, size):
            local.base, local.length, remote.base, remote.length = copy, size, at, size
            if read(pid, mine, 1, theirs, 1, 0) != size:
                return False
            local.base, local.length = zeros, stroke
            if compare(pointer, other, length):
                return False
            write(pid, mine, 1, theirs, 1, 0)
        return True

    def _transfer(self, call: Any, local: int, remote: int, size: int) -> int:
        """Read or write our own memory through the kernel; how many bytes, 0 for an address that is none."""
        ours, theirs = _Iovec(local, size), _Iovec(remote, size)
        done = call(os.getpid(), ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)
        if done < 0 and (number := ctypes.get_errno()) != errno.EFAULT:
            raise OSError(number, os.strerror(number))
        return max(0, int(done))


def _regions() -> Iterator[tuple[int, int]]:
    """Private memory that can be written: heaps and stacks, not libraries and not shared memory (proc(5), maps)."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        span, mode, _ = line.split(maxsplit=2)
        if mode.startswith("rw") and mode.endswith("p"):
            start, end = (int(part, 16) for part in span.split("-"))
            yield start, end
