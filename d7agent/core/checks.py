"""What each configuration key may hold: one function a key, the value as TOML gave it in, the value as we keep it out.

Every function raises ValueError whose text goes on from the key's name: `must be …`.
"""

import re
from collections.abc import Callable
from typing import Final

from d7agent.core.durations import format_duration, parse_duration
from d7agent.core.model import valid_profile_name

Expand = Callable[[str], str]  # puts folders in for %t, %h, %S, %d and a leading ~; ValueError where there is none

MIN_MAX_AGE: Final = 60  # seconds; the shortest life the refresh rules are made for
MAX_MAX_AGE: Final = 30 * 86_400  # seconds; a token older than a month is a password
MAX_LOGINS_PER_HOUR: Final = 3_600  # one a second

STORE_KINDS: Final = ("keyring", "directory", "command", "environment")

_URL: Final = re.compile(
    r"(?P<scheme>[a-z]+)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?\.?)(?::(?P<port>\d{1,5}))?(?P<path>/[!-~]*)?",
    re.IGNORECASE | re.ASCII,
)
_LOOPBACK: Final = re.compile(r"localhost|127(?:\.\d{1,3}){3}|\[::1\]", re.ASCII)
_BACKEND: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_PREFIX: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MODE: Final = re.compile(r"0?[0-7]{3}")
_USER: Final = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,254}\$?")
_UNIT: Final = re.compile(r"[A-Za-z0-9:_.\\@-]{1,247}\.service")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def base_url(value: str) -> str:
    """The URL in one spelling: lower case, no slash at the end. Never echoed: it may hold a password."""
    text = value.strip()
    if "@" in text:
        raise ValueError("must not hold a user name or password")
    if "?" in text or "#" in text:
        raise ValueError("must not have a query or fragment (? or #)")
    found = _URL.fullmatch(text)
    if found is None or not 0 < int(found["port"] or 1) < 65_536:
        raise ValueError('must be a URL such as "https://api.d7networks.com"')
    scheme, host = found["scheme"].lower(), found["host"].lower()
    if scheme != "https" and not (scheme == "http" and _LOOPBACK.fullmatch(host)):
        raise ValueError("must begin with https:// (http:// is for loopback hosts only)")
    port = f":{int(found['port'])}" if found["port"] else ""
    return f"{scheme}://{host}{port}{(found['path'] or '').rstrip('/')}"


def store(value: str, expand: Expand) -> str:
    """The store string, the folder of a `directory` store expanded. What follows `command:` is never echoed."""
    kind, colon, rest = value.strip().partition(":")
    if kind not in STORE_KINDS:
        raise ValueError("must be keyring[:BACKEND], directory:PATH, command:ARGV or environment[:PREFIX]")
    if kind == "directory":
        return f"directory:{absolute_path(rest, expand)}"
    if kind == "command":
        return f"command:{_shell_words(rest)}"
    pattern = _BACKEND if kind == "keyring" else _PREFIX
    if colon and not pattern.fullmatch(rest):
        what = (
            "a backend such as keyring.backends.SecretService.Keyring"
            if kind == "keyring"
            else "a prefix such as PROD_"
        )
        raise ValueError(f"must name {what} after {kind}:")
    return kind + colon + rest


def _shell_words(text: str) -> str:
    import shlex

    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"must hold shell words after command: ({error})") from None
    if not words or not words[0] or "\0" in text:
        raise ValueError("must name a program after command:")
    return text.strip()


def absolute_path(value: str, expand: Expand) -> str:
    """An absolute path, its specifiers expanded, `.` and doubled slashes taken out."""
    if _CONTROL.search(value):
        raise ValueError("must not hold control characters")
    text = expand(value)
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not text.startswith("/") or ".." in parts:
        raise ValueError("must be an absolute path without .. (%t, %h and ~ stand for the runtime and home folders)")
    if not parts:
        raise ValueError("must not be the root folder")
    return "/" + "/".join(parts)


def file_path(value: str, expand: Expand) -> str:
    """As `absolute_path`, and not spelled like a folder."""
    if value.endswith("/"):
        raise ValueError("must name a file, not a folder")
    return absolute_path(value, expand)


def text(value: str) -> str:
    """A line of text with something in it, blanks around it taken off."""
    value = value.strip()
    if not value or _CONTROL.search(value):
        raise ValueError("must be one line and not empty")
    return value


def max_age(value: str | int) -> float:
    """Seconds."""
    seconds = parse_duration(value)
    if not MIN_MAX_AGE <= seconds <= MAX_MAX_AGE:
        raise ValueError(f"must be from {format_duration(MIN_MAX_AGE)} to {format_duration(MAX_MAX_AGE)}")
    return float(seconds)


def logins_per_hour(value: int) -> int:
    """A count."""
    if not 1 <= value <= MAX_LOGINS_PER_HOUR:
        raise ValueError(f"must be from 1 to {MAX_LOGINS_PER_HOUR}")
    return value


def mode(value: str) -> int:
    """Permission bits as os.chmod takes them."""
    if not _MODE.fullmatch(value):
        raise ValueError('must be three octal digits, such as "0600"')
    bits = int(value, 8)
    if bits & 0o002:
        raise ValueError("must not let others write")
    return bits


def profile_name(value: str) -> str:
    """A profile's name."""
    if not valid_profile_name(value):
        raise ValueError("must be a profile name: a-z, 0-9, _ and -, at most 64, the first a letter or digit")
    return value


def users(value: list[str]) -> tuple[str, ...]:
    """Names (or numbers) of users or groups, each once; whether they exist is not for a pure check."""
    return _each(value, _USER, "must be names of users or groups")


def units(value: list[str]) -> tuple[str, ...]:
    """Names of systemd services, each once."""
    return _each(value, _UNIT, "must be names of services, such as zabbix-server.service")


def _each(values: list[str], pattern: re.Pattern[str], what: str) -> tuple[str, ...]:
    for value in values:
        if not pattern.fullmatch(value):
            raise ValueError(f"{what}, not {value!r}")
    return tuple(dict.fromkeys(values))


def one_of(*choices: str) -> Callable[[str], str]:
    """A check that lets these words through."""

    def check(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}, not {value!r}")
        return value

    return check


def argv(value: list[str]) -> tuple[str, ...]:
    """A program by its absolute path, and its arguments."""
    if not value or not value[0].startswith("/"):
        raise ValueError('must begin with the absolute path of a program: ["/usr/local/bin/page-me"]')
    if any("\0" in word for word in value):
        raise ValueError("must not hold NUL")
    return tuple(value)
