"""One always-fresh file on disk: put there whole or not at all, in a place that nobody else can turn against us.

The rules. Every folder and link on the way must be such that nobody else can change it (core.trust). In place of the
file there may be nothing, a plain file of ours, or a link of ours, which is replaced and not followed. To remove it
only the links have to be so: a token must be taken away from a folder that others have got into.

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

from d7agent.agent import beside
from d7agent.core.forms import wipe
from d7agent.core.trust import MAX_LINKS, ROOT, Distrusted, Rule, is_read_only

FOLDER_MODE: Final = 0o700
_FOLDER: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

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
    with _folder(head, ours=True) as folder:
        _check_place(folder, name)
        with _temporary(folder, name) as (fd, temporary):
            _fill(fd, make, mode, gid)
            # Only now: a file on a server has its final times when it is closed.
            identity = _identity(os.stat(temporary, dir_fd=folder, follow_symlinks=False))
            if not wanted():
                return None
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            return identity


def drop(path: str) -> None:
    """Remove the file and what a killed writer left of it; what others put there stays. Raises Trouble, OSError."""
    head, name = os.path.split(path)
    try:
        with _folder(head, ours=False) as folder:
            beside.sweep(folder, name)
            beside.drop(folder, name)
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


@contextmanager
def _temporary(folder: int, name: str) -> Iterator[tuple[int, str]]:
    """A new file of ours beside `name`, gone afterwards unless it was put in place. `_fill` closes it."""
    fd, temporary = beside.create(folder, name)
    try:
        yield fd, temporary
    finally:
        with suppress(OSError):
            beside.drop(folder, temporary)


def _fill(fd: int, make: Callable[[], bytearray], mode: int, gid: int) -> None:
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


@contextmanager
def _folder(path: str, *, ours: bool) -> Iterator[int]:
    """The folder, reached step by step from the root, so that everything on the way is looked at.

    `ours`: nobody else may be able to change it, and what is missing is made.
    """
    fd = os.open("/", _FOLDER)
    rule = Rule(os.geteuid(), os.fstat(fd).st_uid)
    steps = deque(path.split("/"))
    links = 0
    try:
        while steps:
            found = _step(fd, steps.popleft(), make=ours)
            if stat.S_ISLNK(os.fstat(found).st_mode):
                links += 1
                target = _target(rule, found, path, links)
                steps.extendleft(reversed(target.split("/")))
                found = os.open("/", _FOLDER) if target.startswith("/") else os.dup(fd)
            os.close(fd)
            fd = found
            _check_folder(rule, fd, path, ours=ours)
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


def _target(rule: Rule, link: int, path: str, links: int) -> str:
    """Where the link leads, which is closed then. Raises Trouble where someone else decides that."""
    try:
        _check(rule, link, os.fstat(link))
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        return os.readlink("", dir_fd=link)
    finally:
        os.close(link)


def _check_folder(rule: Rule, fd: int, path: str, *, ours: bool) -> None:
    found = os.fstat(fd)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    if ours:
        _check(rule, fd, found)


def _check(rule: Rule, fd: int, found: os.stat_result) -> None:
    """Raises Trouble if others can change what this descriptor stands for."""

    def check(name: str) -> None:
        rule.check(name, found, lambda: is_read_only(os.fstatvfs(fd)))

    try:
        check("")
    except Distrusted:
        try:
            check(os.readlink(f"/proc/self/fd/{fd}"))  # only now: it costs as much as all the rest
        except Distrusted as distrusted:
            raise Trouble(str(distrusted)) from None


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
