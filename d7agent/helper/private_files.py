"""Reading and writing files that hold secrets: whose they are, who can read them, and never half a file."""

import contextlib
import errno
import fcntl
import os
import select
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from d7agent.core.clock import boot_time
from d7agent.core.trust import Distrusted, Rule
from d7agent.helper.faults import StoreUnreachable

MAX_FILE: Final = 64 * 1024  # bytes; four times the largest credential, so that cleaning can say what is wrong with it
LOCK_LIMIT: Final = 1.0  # seconds; another helper of ours has its folder for some milliseconds
LOCK_LOOK: Final = 0.01  # seconds between two looks
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def secret_text(path: Path, *, shared: bool = False) -> str | None:
    """The file's text, None if it does not exist. `shared`: others may read it (a credential mount, see directory.py).

    Symlinks are followed, because mounts are made of them; what counts is who owns the file at their end, and that
    nobody else can change the way there (core.trust).
    Raises StoreUnreachable for a file that is not ours or root's, readable by others, too large, or no file.
    """
    with _told_apart(path, "read"):
        try:
            if not shared:
                check_way(path)
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hold us up
        except (FileNotFoundError, NotADirectoryError):
            return None
        with open(fd, "rb") as file:
            _check(path, os.fstat(fd), shared=shared)
            data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise StoreUnreachable(f"{path} is larger than {MAX_FILE // 1024} KiB", "put the bare value into the file")
    text = _decoded(data)
    if text is None:
        raise StoreUnreachable(f"{path} is not UTF-8 text", "put the bare value into the file, as text")
    return text


def check_way(path: Path, *, links_only: bool = False) -> None:
    """Whether nobody else can change what is at the absolute path. Raises StoreUnreachable; OSError if it ends early.

    `links_only`: its folders may be anybody's.
    """
    try:
        Rule(os.geteuid(), os.lstat("/").st_uid).walk(str(path), os, links_only=links_only)
    except Distrusted as distrusted:
        raise StoreUnreachable(distrusted.message, distrusted.hint) from None


def _decoded(data: bytes) -> str | None:
    try:
        return data.decode("utf-8-sig")  # editors that leave a byte order mark
    except UnicodeDecodeError:
        return None


def _check(path: Path, found: os.stat_result, *, shared: bool) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise StoreUnreachable(f"{path} is no regular file", "put a file there, or name another directory")
    if found.st_uid not in (os.geteuid(), 0) and not shared:
        hint = f"chown it to {os.geteuid()}, the user of this agent"
        raise StoreUnreachable(f"{path} belongs to another user (uid {found.st_uid})", hint)
    if found.st_mode & OTHERS and not shared:
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        raise StoreUnreachable(f"{path} can be read by others (mode {mode})", f"run: chmod 600 {path}")


def replace(files: Mapping[Path, str]) -> None:
    """Write each file with mode 0600, atomically, in the order given; all in one folder. Raises StoreUnreachable.

    All are first written beside their places and brought to disk, and only then renamed: a full disk changes none.
    A folder that does not exist is made, 0700, though not where others can change what is on the way to it.
    """
    folder = next(iter(files)).parent
    with _told_apart(folder, "written"):
        with contextlib.suppress(FileNotFoundError):
            check_way(folder)
        _make(folder)
        with _alone_in(folder) as folder_fd, _cleaned_up(_beside(path) for path in files):
            for path, text in files.items():
                _write_new(_beside(path), text)
            for path in files:
                os.replace(_beside(path), path)
            with contextlib.suppress(OSError):  # FUSE and 9p cannot sync a folder; the files themselves are safe
                os.fsync(folder_fd)


def _make(folder: Path) -> None:
    """The folder and its missing parents, each 0700; pathlib's own `parents` leaves the parents to the umask."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _beside(path: Path) -> Path:
    """Where the new content waits. The name is always the same, so that what a killed helper left is found again."""
    return path.with_name(f".{path.name.lstrip('.')}.tmp")


def tidy(*paths: Path) -> None:
    """Delete what a killed helper left beside these places of one folder, unless another is at work there just now."""
    with contextlib.suppress(OSError):
        left = [beside for path in paths if (beside := _beside(path)).exists()]
        if left:
            with _alone_in(left[0].parent, wait=False):
                for path in left:
                    path.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone_in(folder: Path, *, wait: bool = True) -> Iterator[int]:
    """The folder's descriptor, locked against other helpers (and freed by the kernel if this one is killed)."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(fd, LOCK_LIMIT if wait else 0.0)
        yield fd
    finally:
        os.close(fd)


def _lock(fd: int, limit: float) -> None:
    """Lock the folder. Raises OSError after `limit` seconds: whoever may look into a folder can keep it locked."""
    end = boot_time() + limit
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if boot_time() >= end:
                raise OSError(errno.EAGAIN, "another process keeps its folder locked (flock)") from None
            select.select((), (), (), LOCK_LOOK)
        else:
            return


@contextlib.contextmanager
def _cleaned_up(temporaries: Iterable[Path]) -> Iterator[None]:
    """None of these is there before or after."""
    paths = tuple(temporaries)
    try:
        for path in paths:
            path.unlink(missing_ok=True)
        yield
    finally:
        for path in paths:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _write_new(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:
        os.fchmod(fd, 0o600)  # whatever the umask is
        file.write(text.encode())
        file.flush()
        os.fsync(fd)


def remove(*paths: Path) -> None:
    """Delete the files that are there, with what a killed helper left beside them. Raises StoreUnreachable."""
    for path in paths:
        with _told_apart(path, "deleted"), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink(missing_ok=True)
            _beside(path).unlink(missing_ok=True)


HINTS: Final = {
    errno.EACCES: "give the user of this agent access to it",
    errno.EPERM: "give the user of this agent access to it",
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room in the quota",
    errno.EROFS: "it is mounted read-only; name another directory",
}


@contextlib.contextmanager
def _told_apart(path: Path, verb: str) -> Iterator[None]:
    """OSError turned into StoreUnreachable."""
    try:
        yield
    except OSError as error:
        number, words = error.errno or 0, error.strerror or type(error).__name__
    else:
        return
    raise StoreUnreachable(f"{path} cannot be {verb}: {words}", HINTS.get(number, "check the path and the disk"))
