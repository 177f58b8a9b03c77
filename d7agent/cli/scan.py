"""`doctor --scan`: D7 tokens that were pasted into scripts and units. What is printed never holds one."""

import json
import os
import stat
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from d7agent.cli import output
from d7agent.cli.leaks import leaks
from d7agent.cli.replacements import LITERALS, command, kind_of, replacement

JSON_VERSION: Final = 1
MAX_FILE: Final = 1024 * 1024  # bytes; scripts and units are smaller, logs and dumps are not
BINARY: Final = 8 * 1024  # bytes looked at for a NUL, as git and grep do
NOT_FILES: Final = ("/proc", "/sys", "/dev")  # what the kernel makes up
NOT_SCRIPTS: Final = frozenset({".git", ".hg", ".svn", "node_modules", "__pycache__"})


class Hit(Struct, frozen=True):
    """A token at `path`, `line` (from 1): what it looks like, and the line to put there in its place."""

    path: str
    line: int
    what: str
    replacement: str


class Trouble(Struct, frozen=True):
    """A path that could not be looked at."""

    path: str
    text: str


def report(paths: tuple[str, ...], *, as_json: bool) -> int:
    """Scan, print, and tell the exit status: 0 when nothing was found and all could be read."""
    found = list(scan(paths, command()))
    hits = [one for one in found if isinstance(one, Hit)]
    troubles = [one for one in found if isinstance(one, Trouble)]
    output.out(_json(hits, troubles) if as_json else _text(hits))
    if not as_json:
        for trouble in troubles:
            output.note(f"{trouble.path}: {trouble.text}")
    return int(bool(found))


def scan(paths: tuple[str, ...], program: str) -> Iterator[Hit | Trouble]:
    """Every token below these paths; folders are followed, links within them to folders are not.

    `program`: how a replacement calls d7agent. A file that has several names is looked at once.
    """
    seen: set[tuple[int, int]] = set()
    for path in paths:
        for file in _files(path):
            yield from [file] if isinstance(file, Trouble) else _scan_file(file, seen, program)


def _files(path: str) -> Iterator[str | Trouble]:
    if not os.path.isdir(path):
        yield path
        return
    errors: list[OSError] = []
    for folder, folders, names in os.walk(path, onerror=errors.append):
        folders[:] = sorted(name for name in folders if _worth(os.path.join(folder, name)))
        yield from (os.path.join(folder, name) for name in sorted(names))
    yield from (Trouble(str(error.filename), error.strerror or "cannot be read") for error in errors)


def _worth(folder: str) -> bool:
    return os.path.basename(folder) not in NOT_SCRIPTS and os.path.abspath(folder) not in NOT_FILES


def _scan_file(path: str, seen: set[tuple[int, int]], program: str) -> Iterator[Hit | Trouble]:
    try:
        text = _text_of(path, seen)
    except OSError as error:
        if not os.path.islink(path):  # one that leads nowhere is nobody's script
            yield Trouble(path, error.strerror or "cannot be read")
        return
    if text is None:
        return
    kind = kind_of(path, text)
    for leak in leaks(text, quoted=kind in LITERALS):
        yield Hit(path, leak.line, leak.what, replacement(leak, kind, text, program))


def _text_of(path: str, seen: set[tuple[int, int]]) -> str | None:
    """The file's text; None for what is no text, too large, no file at all, or was looked at before."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a device may set it going
        return None
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)  # a FIFO must not hold us up
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or (found.st_dev, found.st_ino) in seen:
            return None
        seen.add((found.st_dev, found.st_ino))
        if found.st_size > MAX_FILE:
            return None
        data = file.read(MAX_FILE)
    return None if b"\0" in data[:BINARY] else data.decode("utf-8", "replace")


def _text(hits: list[Hit]) -> str:
    if not hits:
        return "No D7 token was found.\n"
    return "".join(f"{_shown(hit)}    -> {output.one_line(hit.replacement)}\n" for hit in hits)


def _shown(hit: Hit) -> str:
    return f"{output.one_line(hit.path)}:{hit.line}: {hit.what}\n"


def _json(hits: list[Hit], troubles: list[Trouble]) -> str:
    document = {
        "version": JSON_VERSION,
        "ok": not hits and not troubles,
        "findings": [{name: getattr(hit, name) for name in Hit.__struct_fields__} for hit in hits],
        "unreadable": [{"path": trouble.path, "text": trouble.text} for trouble in troubles],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
