"""What is in a process's memory: every readable page of it, looked through for byte strings. As root."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

UNREADABLE: Final = ("[vvar]", "[vsyscall]", "[vvar_vclock]")
PIECE: Final = 16 * 1024 * 1024  # bytes read at once


class Hit(NamedTuple):
    """Where a needle was found: the mapping's name ("" for none), the address, and what stands around it."""

    region: str
    address: int
    around: bytes


def need_root() -> None:
    """Skip, loudly, where the memory of others cannot be read."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: what is in an agent's memory; run the tests as root")


def hits(pid: int, needle: str) -> list[Hit]:
    """Every place of the needle in the process's memory."""
    pattern = re.compile(re.escape(needle.encode()))
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for region, start, end in _regions(pid):
            for at, piece in _pieces(memory.fileno(), start, end, len(needle)):
                for match in pattern.finditer(piece):
                    begin = max(0, match.start() - 24)
                    found.append(Hit(region, at + match.start(), piece[begin : match.end() + 24]))
    return found


def count(pid: int, needles: Iterable[str]) -> dict[str, int]:
    """How often each needle is found."""
    return {needle: len(hits(pid, needle)) for needle in needles}


def pieces_of(secret: str) -> tuple[str, ...]:
    """The secret whole, and its halves: a copy that was overwritten in part still gives half of it away."""
    half = len(secret) // 2
    return secret, secret[:half], secret[half:]


def _regions(pid: int) -> Iterator[tuple[str, int, int]]:
    for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        span, mode, _, _, _, *name = line.split(maxsplit=5)
        region = name[0] if name else ""
        if "r" in mode and region not in UNREADABLE:
            start, end = (int(part, 16) for part in span.split("-"))
            yield region, start, end


def _pieces(fd: int, start: int, end: int, overlap: int) -> Iterator[tuple[int, bytes]]:
    """The region's bytes, in pieces that overlap by so many bytes less one: no match is missed or told twice."""
    at = start
    while at < end:
        try:
            data = os.pread(fd, min(PIECE + overlap - 1, end - at), at)
        except OSError:  # a page that was never made, or that the device behind it keeps to itself
            return
        if not data:
            return
        yield at, data
        at += PIECE
