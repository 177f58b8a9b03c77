"""Which files of a directory store we wrote, and how two files change as one.

A credential is two files, and a kill between two renames would pair a new id with an old secret. So the whole
credential is first renamed into place as `.d7agent.next`, which from then on is what the store holds; then the files
follow, then `.d7agent` (what we wrote, to know it again), and last `.d7agent.next` goes away. One without any parts
says that the credential is being deleted.
"""

import contextlib
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from d7agent.helper.faults import StoreUnreachable
from d7agent.helper.private_files import remove, replace, secret_text, tidy
from d7agent.helper.stores import PARTS, Credential, parts_of

VERSION: Final = 1


class Written(Struct, frozen=True):
    """The content of `.d7agent`: for each file we wrote, its inode and the time of its last change in ns."""

    files: dict[str, tuple[int, int]]
    v: int = VERSION


class Manifest:
    """What we know of a folder we may write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = folder / ".d7agent"
        self._next = folder / ".d7agent.next"

    def unfinished(self) -> dict[str, str] | None:
        """The parts a change that was cut short was about to write, none for a deletion; None if none was."""
        text = secret_text(self._next)
        found: dict[str, str] | None = None if text is None else _decoded(text, dict[str, str])
        return found if found is not None and set(found) <= set(PARTS) else None

    def settle(self) -> None:
        """Finish a change that was cut short, if there is one. Raises StoreUnreachable.

        One that was cut short before it counted leaves what it had begun to write: that goes away as well.
        """
        tidy(self._known, self._next, *(self._folder / part for part in PARTS))
        parts = self.unfinished()
        if parts:
            replace(self._paths(parts))
        if parts is not None:
            self._finish(parts)

    def write(self, credential: Credential) -> None:
        """Replace the credential whole. Raises StoreUnreachable, also if a person's files are in the way."""
        self.settle()
        parts = {name: secret.reveal() for name, secret in parts_of(credential).items()}
        if strangers := [path for path in self._others(parts) if not self._ours(path)]:
            names = " and ".join(str(path) for path in strangers)
            raise StoreUnreachable(f"{names} was put there by someone else", "remove it first, or name another folder")
        replace({self._next: msgspec.json.encode(parts).decode()} | self._paths(parts))
        self._finish(parts)

    def delete(self) -> None:
        """Remove the files we wrote and nobody has changed since."""
        self.settle()
        if any(self._ours(path) for path in self._others({})):
            with contextlib.suppress(StoreUnreachable):  # a full disk must not keep a credential from being forgotten
                replace({self._next: "{}"})
        self._finish({})

    def _paths(self, parts: dict[str, str]) -> dict[Path, str]:
        return {self._folder / name: f"{value}\n" for name, value in parts.items()}

    def _others(self, parts: dict[str, str]) -> list[Path]:
        """The files there that have no place beside these parts."""
        return [path for part in PARTS if part not in parts and (path := self._folder / part).exists()]

    def _finish(self, parts: dict[str, str]) -> None:
        # Those that are not there as well: a killed helper may have left something beside their places.
        remove(*(path for part in PARTS if part not in parts and self._ours(path := self._folder / part)))
        marks = {name: mark for name in parts if (mark := _mark(self._folder / name))}
        if parts:
            replace({self._known: msgspec.json.encode(Written(files=marks)).decode()})
        else:
            remove(self._known)
        remove(self._next)

    def _ours(self, path: Path) -> bool:
        text = secret_text(self._known)
        known = None if text is None else _decoded(text, Written)
        return isinstance(known, Written) and known.files.get(path.name) == _mark(path)


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _decoded(text: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(text.encode(), type=kind)
    except (msgspec.DecodeError, RecursionError):
        return None
