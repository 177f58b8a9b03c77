"""Who may change what is at the end of a path: one rule for always-fresh files, stores and the configuration.

A file is no safer than the folders above it: whoever can write to one of them, or owns it, can rename what is below and
put his own in its place. So everything on the way has to be ours or root's, and a folder that others can write to has
to be sticky (as /tmp), where nobody can rename what is another's. sshd(8) looks at the way to its files likewise
(sshd_config(5), StrictModes), and ssh(1) at its ~/.ssh/config.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from msgspec import Struct

ROOT: Final = 0
REFUSED: Final = ": refused: "  # between a file's path and a Distrusted, in the problems of a configuration
MAX_LINKS: Final = 40  # as the kernel's own, path_resolution(7)


class Distrusted(Exception):
    """Someone else could change what is at the end: `message` says who and where, `hint` what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}: {hint}")
        self.message = message
        self.hint = hint


class Disk(Protocol):
    """What a walk needs to see; the module `os` fits."""

    def lstat(self, path: str, /) -> os.stat_result:
        """As os.lstat."""

    def readlink(self, path: str, /) -> str:
        """As os.readlink."""

    def statvfs(self, path: str, /) -> os.statvfs_result:
        """As os.statvfs."""


class Rule(Struct, frozen=True):
    """Whom user `me` trusts: himself, root, and the owner of `/`.

    Nothing is safe from the last one, and in a user namespace without root all that is root's seems to be his: it shows
    as the overflow uid, user_namespaces(7).
    """

    me: int
    top: int = ROOT

    def check(self, path: str, found: os.stat_result, read_only: Callable[[], bool] = lambda: False) -> None:
        """Whether only those can change this folder, link or file; a link's mode means nothing. Raises Distrusted.

        `read_only`: whether its file system is mounted so; then its write bits are for nobody. Kubernetes mounts a
        ConfigMap like that, with mode 0777. Asked only where it matters.
        """
        if found.st_uid not in (ROOT, self.me, self.top):
            owner = f"belongs to uid {found.st_uid}, who could change it"
            raise Distrusted(f"{_kind(found)} {path} {owner}", f"chown it to {self._us()}, or choose another place")
        if not stat.S_ISLNK(found.st_mode) and self._loose(found) and not read_only():
            sticky = " (or +t)" if stat.S_ISDIR(found.st_mode) else ""
            text = f"others can write to {_kind(found)} {path} (mode {stat.S_IMODE(found.st_mode):04o})"
            raise Distrusted(text, f"chmod go-w {path}{sticky}")

    def walk(self, path: str, disk: Disk, *, links_only: bool = False) -> None:
        """Check every folder and link on the way to the absolute `path`, in the order in which they are met.

        What is at the end is checked if it is a folder; a file is for its reader to check when it is open. What was
        found good stays so: nobody else can change it afterwards. Raises Distrusted; OSError where the way ends early.
        """
        here, names, links = "/", deque(path.split("/")), 0
        while names:
            name = names.popleft()
            there = {"": here, ".": here, "..": os.path.dirname(here)}.get(name) or os.path.join(here, name)
            found = disk.lstat(there)
            if stat.S_ISLNK(found.st_mode):
                self.check(there, found)
                links += 1
                here = "/" if (target := _target(disk, there, links)).startswith("/") else here
                names.extendleft(reversed(target.split("/")))
                continue
            if stat.S_ISDIR(found.st_mode) and not links_only:
                self.check(there, found, lambda at=there: is_read_only(disk.statvfs(at)))  # type: ignore[misc]
            here = there

    def _loose(self, found: os.stat_result) -> bool:
        """Whether others can write to it, or in a sticky folder to more than what is theirs.

        A user's private group, which by custom has his number, has nobody else in it; and root's group is root's.
        """
        if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
            return False
        group = found.st_mode & stat.S_IWGRP and found.st_gid not in (ROOT, self.me, found.st_uid)
        return bool(group or found.st_mode & stat.S_IWOTH)

    def _us(self) -> str:
        return "root" if self.me == ROOT else f"uid {self.me} (the agent's user) or to root"


def is_read_only(found: os.statvfs_result) -> bool:
    """Whether the file system is mounted read-only."""
    return bool(found.f_flag & os.ST_RDONLY)


def _kind(found: os.stat_result) -> str:
    if stat.S_ISLNK(found.st_mode):
        return "the link"
    return "the folder" if stat.S_ISDIR(found.st_mode) else "the file"


def _target(disk: Disk, link: str, links: int) -> str:
    if links > MAX_LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), link)
    return disk.readlink(link)
