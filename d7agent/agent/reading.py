"""Reading a small file that anything may have been put in place of, while anyone may be writing it."""

import os
import stat
from typing import Final

from d7agent.core.errors import ConfigError
from d7agent.core.trust import REFUSED, Distrusted, Rule, is_read_only

MAX_FILE: Final = 1024 * 1024  # bytes; a hand-written file of this kind has a thousand

_ATTEMPTS: Final = 5  # a file replaced this often within one read is not at rest
# A FIFO opens at once, a terminal does not become ours.
_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def read_text(path: str, rule: Rule | None = None) -> str | None:
    """The text of a UTF-8 file (a byte order mark taken off), or None if there is none. Raises ConfigError.

    Also for one that others than we (or those whom `rule` trusts) could change: it says where the secret is sent, and
    which programs run.
    """
    data = read_whole(path, rule=rule or trusting())
    try:
        return None if data is None else data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = (data or b"").count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{printable(path)}:{line}: not UTF-8 text") from None


def trusting(uid: int | None = None) -> Rule:
    """The rule of an agent of this user, by default of ours."""
    return Rule(os.geteuid() if uid is None else uid, os.lstat("/").st_uid)


def read_whole(path: str, limit: int = MAX_FILE, rule: Rule | None = None) -> bytes | None:
    """The bytes of a regular file as they were at one instant, or None if there is none.

    Raises ConfigError naming the file: unreadable, not a file, larger than `limit`, a link to nothing, never at rest,
    or to be changed by someone whom `rule` does not trust.
    """
    for _ in range(_ATTEMPTS):
        try:
            if rule is not None:
                check_way(path, rule)
            fd = os.open(path, _FLAGS)
        except FileNotFoundError:
            if os.path.islink(path):
                raise ConfigError(f"{printable(path)}: is a link to a file that does not exist") from None
            return None
        except OSError as error:
            raise ConfigError(f"{printable(path)}: cannot be read: {error.strerror}") from None
        data = _read_at_rest(path, fd, limit, rule)
        if data is not None:
            return data
    raise ConfigError(f"{printable(path)}: keeps changing while it is read: try again when it is written")


def check_way(path: str, rule: Rule) -> None:
    """Whether nobody else can change what is at the absolute path. Raises ConfigError; OSError if it ends early."""
    try:
        rule.walk(path, os)
    except Distrusted as distrusted:
        raise _refused(path, distrusted) from None


def _refused(path: str, why: Distrusted) -> ConfigError:
    return ConfigError(f"{printable(path)}{REFUSED}{printable(str(why))}")


def printable(path: str) -> str:
    """The path as text that can be written anywhere: bytes that are not UTF-8 are shown as hex."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _read_at_rest(path: str, fd: int, limit: int, rule: Rule | None) -> bytes | None:
    """The bytes, or None if the file was changed or replaced meanwhile. Closes `fd`."""
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            what = "a folder" if stat.S_ISDIR(before.st_mode) else "a device or pipe"
            raise ConfigError(f"{printable(path)}: is {what}, not a file")
        if rule is not None:
            rule.check(path, before, lambda: is_read_only(os.fstatvfs(fd)))
        if before.st_size > limit:
            raise ConfigError(f"{printable(path)}: has more than {limit} bytes")
        data = os.read(fd, before.st_size + 1)
        after = os.stat(path)
    except FileNotFoundError:
        return None
    except Distrusted as distrusted:
        raise _refused(path, distrusted) from None
    except OSError as error:
        raise ConfigError(f"{printable(path)}: cannot be read: {error.strerror}") from None
    finally:
        os.close(fd)
    return data if _version(before) == _version(after) and len(data) == before.st_size else None


def _version(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
