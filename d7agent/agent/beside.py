"""The file beside a file: new content waits in it until one rename puts it in place."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

LONGEST: Final = 200  # bytes kept of the name: NAME_MAX is 255, and what we add has 23
_CHANCE: Final = r"\.[0-9a-f]{16}"  # in a name that was found by chance
_LEFT: Final = re.compile(rf"\..*\.(toml|state)({_CHANCE})?\.tmp")  # of a profile or a budget
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def create(folder: int, name: str) -> tuple[int, str]:
    """A new file of ours for what is to become `name`, empty, 0600: its descriptor and name. Raises OSError.

    Its name is always the same, so that a writer killed midway leaves one file at most, which the next one takes away.
    In a folder like /tmp another user can hold that name for ever; then chance finds a free one, and the next writer
    finds it again by its shape.
    """
    sweep(folder, name)
    try:
        fixed = _fixed(name)
        return os.open(fixed, _NEW_FILE, 0o600, dir_fd=folder), fixed
    except FileExistsError:
        other = f"{_stem(name)}.{os.urandom(8).hex()}.tmp"
        return os.open(other, _NEW_FILE, 0o600, dir_fd=folder), other


def sweep(folder: int, name: str) -> None:
    """Remove what killed writers of `name` have left; what is another's stays. Raises OSError."""
    drop(folder, _fixed(name))
    for left in _chosen_by_chance(folder, name):
        drop(folder, left)


def tidy(path: str) -> None:
    """Remove what killed writers of whatever names have left in the folder of ours at `path`. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for left in os.listdir(fd):
            if _LEFT.fullmatch(left):
                drop(fd, left)
    finally:
        os.close(fd)


def drop(folder: int, name: str) -> None:
    """Remove a plain file or a link of ours, if there is one. Raises OSError."""
    with suppress(FileNotFoundError):
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if found.st_uid == os.geteuid() and (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
            os.unlink(name, dir_fd=folder)


def _chosen_by_chance(folder: int, name: str) -> Iterator[str]:
    """Only where someone else may have held the fixed name is there anything to look for."""
    if not os.fstat(folder).st_mode & _OTHERS_WRITE and not _taken(folder, _fixed(name)):
        return
    shape = re.compile(rf"{re.escape(_stem(name))}{_CHANCE}\.tmp")
    try:
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    except PermissionError:
        return  # a folder to put things into and not to look at: nothing can be found again there
    try:
        yield from (found for found in os.listdir(fd) if shape.fullmatch(found))
    finally:
        os.close(fd)


def _taken(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _fixed(name: str) -> str:
    return f"{_stem(name)}.tmp"


def _stem(name: str) -> str:
    return "." + os.fsdecode(os.fsencode(name)[:LONGEST])
