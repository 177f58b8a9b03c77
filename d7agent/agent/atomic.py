"""Files that are there whole or not at all, whatever fails or dies on the way."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from d7agent.agent import beside


def write_atomic(path: str, data: bytes, mode: int, group: str | None = None) -> None:
    """Put `data` at `path` in one step; a symlink there is replaced, never followed.

    Mode and group (a name or a number) are set before the content is written. Missing folders are made, 0700. Both the
    file and its folder are synced. Raises OSError naming `path`; what was there before is then still there.
    """
    folder, name = os.path.split(path)
    try:
        gid = _gid(group)
        make_folder(folder)
        with _opened(folder) as folder_fd, _temporary(folder_fd, name) as (fd, temporary):
            os.fchown(fd, -1, gid)
            os.fchmod(fd, mode)
            _write_all(fd, data)
            os.fsync(fd)
            os.replace(temporary, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
            _sync(folder_fd)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def remove(path: str) -> bool:
    """Remove a file for good, and what a killed `write_atomic` may have left of it. False if there was none."""
    folder, name = os.path.split(path)
    try:
        with _opened(folder) as folder_fd:
            with suppress(OSError):
                beside.sweep(folder_fd, name)
            os.unlink(name, dir_fd=folder_fd)
            _sync(folder_fd)
    except FileNotFoundError:
        return False
    return True


def make_folder(path: str, mode: int = 0o700) -> None:
    """Make a folder and its missing parents with exactly `mode`; those that exist stay as they are."""
    if os.path.isdir(path):
        return
    make_folder(os.path.dirname(path), mode)
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return  # someone was faster
    # The umask may have taken away any bit, even our own right to open the folder: O_PATH needs none.
    with _opened(path, os.O_PATH | os.O_NOFOLLOW) as fd:
        os.chmod(f"/proc/self/fd/{fd}", mode)


@contextmanager
def _opened(folder: str, flags: int = 0) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | flags)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _temporary(folder_fd: int, name: str) -> Iterator[tuple[int, str]]:
    """A new file of ours beside `name`, gone afterwards unless it was renamed."""
    fd, temporary = beside.create(folder_fd, name)
    try:
        yield fd, temporary
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder_fd)
        raise
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def _sync(folder_fd: int) -> None:
    with suppress(OSError):  # some file systems (FUSE, 9p) cannot sync a folder; the file itself is safe
        os.fsync(folder_fd)


def _gid(group: str | None) -> int:
    """The group's number; -1, which os.fchown takes as "leave it", for none."""
    if group is None:
        return -1
    if group.isascii() and group.isdigit():
        return int(group)
    import grp

    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise OSError(errno.EINVAL, f"there is no group {group!r}") from None
