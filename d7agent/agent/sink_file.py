"""One always-fresh file on disk: put there whole or not at all, in a place that nobody else can turn against us.

The rules. A link on the way is followed if it is ours or root's. The folder must be ours or root's, and one that others
can write to must be sticky (as /tmp), lest they swap the file. In place of the file there may be nothing, a plain file
of ours, or a link of ours, which is replaced and not followed.

Nothing is synced: the file is made anew at every start of the agent, its boot id makes it void after a power cut, and
a slow disk would make a thousand profiles wait.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from d7agent.core.forms import wipe

FOLDER_MODE: Final = 0o700
MAX_LINKS: Final = 40  # as the kernel's own, path_resolution(7)
ROOT: Final = 0
_FOLDER: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Identity = tuple[int, int, int, int]  # device, inode, time of the last write in ns, size: inodes are used again


class Trouble(Exception):
    """Why a file is not written, and what to do about it, in words for the user."""


def put(
    path: str, make: Callable[[], bytearray], mode: int, group: str | None, wanted: Callable[[], bool]
) -> Identity | None:
    """Replace the file at `path`, mode and group set before the content; the new file's identity.

    `make` gives the content, which is wiped afterwards. `wanted` is asked right before the file is put in place; None
    if it said no. Missing folders are made, 0700. Raises Trouble, OSError; what was there before is then still there.
    """
    gid = -1 if group is None else _gid(group)
    head, name = os.path.split(path)
    with _folder(head, make=True) as folder:
        _check_folder(folder, head)
        _check_place(folder, name)
        temporary = _temporary(name)
        _drop(folder, temporary)  # what a killed agent left
        try:
            _write(folder, temporary, make, mode, gid)
            # Only now: a file on a server has its final times when it is closed.
            identity = _identity(os.stat(temporary, dir_fd=folder, follow_symlinks=False))
            if not wanted():
                return None
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            return identity
        finally:
            with suppress(OSError):
                _drop(folder, temporary)  # none, once it was put in place


def drop(path: str) -> None:
    """Remove the file and what a killed writer left of it; what others put there stays. Raises Trouble, OSError."""
    head, name = os.path.split(path)
    try:
        with _folder(head, make=False) as folder:
            for place in (_temporary(name), name):
                _drop(folder, place)
    except (FileNotFoundError, NotADirectoryError):
        return


def still_there(path: str, identity: Identity) -> bool:
    """Whether the file put there is there yet."""
    try:
        return _identity(os.lstat(path)) == identity
    except OSError:
        return False


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _write(folder: int, name: str, make: Callable[[], bytearray], mode: int, gid: int) -> None:
    fd = os.open(name, _NEW_FILE, 0o600, dir_fd=folder)
    try:
        if gid >= 0:
            _give(fd, gid)
        os.fchmod(fd, mode)
        content = make()
        try:
            _write_all(fd, content)
        finally:
            wipe(content)
    finally:
        os.close(fd)


def _give(fd: int, gid: int) -> None:
    try:
        os.fchown(fd, -1, gid)
    except PermissionError:
        raise Trouble(f"the agent is not a member of group {gid}: add its user to the group and restart it") from None


def _write_all(fd: int, data: bytearray) -> None:
    with memoryview(data) as whole:
        done = 0
        while done < len(whole):
            done += os.write(fd, whole[done:])


def _drop(folder: int, name: str) -> None:
    with suppress(FileNotFoundError):
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if found.st_uid == os.geteuid() and (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
            os.unlink(name, dir_fd=folder)


@contextmanager
def _folder(path: str, *, make: bool) -> Iterator[int]:
    """The folder, reached step by step from the root, so that every link on the way is looked at."""
    fd = os.open("/", _FOLDER)
    steps = deque(path.split("/"))
    links = 0
    try:
        while steps:
            found = _step(fd, steps.popleft(), make=make)
            if stat.S_ISLNK(os.fstat(found).st_mode):
                links += 1
                target = _target(found, path, links)
                steps.extendleft(reversed(target.split("/")))
                found = os.open("/", _FOLDER) if target.startswith("/") else os.dup(fd)
            os.close(fd)
            fd = found
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        yield fd
    finally:
        os.close(fd)


def _step(fd: int, name: str, *, make: bool) -> int:
    try:
        return os.open(name or ".", _FOLDER, dir_fd=fd)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):  # someone was faster
        os.mkdir(name, FOLDER_MODE, dir_fd=fd)
    return os.open(name, _FOLDER, dir_fd=fd)


def _target(link: int, path: str, links: int) -> str:
    """Where the link leads, which is closed then. Raises Trouble where someone else decides that."""
    try:
        owner = os.fstat(link).st_uid
        if owner not in (ROOT, os.geteuid()):
            raise Trouble(f"a link on the way to it belongs to {_who(owner)}: name the folder itself")
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        return os.readlink("", dir_fd=link)
    finally:
        os.close(link)


def _check_folder(fd: int, path: str) -> None:
    found = os.fstat(fd)
    me = os.geteuid()
    if found.st_uid not in (ROOT, me):
        raise Trouble(f"its folder belongs to {_who(found.st_uid)}, who could swap the file: choose one of your own")
    loose = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if loose == stat.S_IWGRP and found.st_uid == me == found.st_gid:
        return  # the user's private group, which by custom has the user's number and nobody else in it
    if loose and not found.st_mode & stat.S_ISVTX:
        raise Trouble(f"others can write to its folder and swap the file: chmod go-w {path} (or +t)")


def _check_place(folder: int, name: str) -> None:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode):
        raise Trouble("there is a folder in its place: name the file, not the folder")
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISLNK(found.st_mode):
        raise Trouble("what is in its place is no plain file: remove it, or choose another path")
    if found.st_uid != os.geteuid():
        raise Trouble(f"the file in its place belongs to {_who(found.st_uid)}: remove it, or choose another path")


def _temporary(name: str) -> str:
    """One fixed name, so that an agent killed midway leaves one file at most, which the next one takes away."""
    return f".{name[:200]}.tmp"


def _gid(group: str) -> int:
    import grp

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        if group.isascii() and group.isdigit():
            return int(group)
        raise Trouble(f"there is no group {group!r}: make it, or name another") from None


def _who(uid: int) -> str:
    return "root" if uid == ROOT else f"uid {uid}"
