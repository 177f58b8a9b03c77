"""The files the agent lives from: the configuration read whole, and its own state."""

import errno
import os
import stat
from contextlib import suppress
from typing import Final, TypeVar

import msgspec

from d7agent.agent import beside
from d7agent.agent.atomic import write_atomic
from d7agent.agent.profiles import remove_profile, write_profile
from d7agent.agent.reading import check_way, printable, read_text, read_whole, trusting
from d7agent.core.config import Config, parse
from d7agent.core.errors import ConfigError
from d7agent.core.paths import Paths
from d7agent.core.trust import Rule

__all__ = [
    "is_ours",
    "load",
    "read_state",
    "remove_profile",
    "salvage",
    "tidy",
    "write_atomic",
    "write_profile",
    "write_state",
]

T = TypeVar("T")

MAX_STATE: Final = 4 * 1024 * 1024  # bytes; 16,384 profiles of some 200 bytes


def load(paths: Paths, uid: int | None = None) -> Config:
    """Read and check every configuration file of an agent of this user, by default of ours.

    Raises ConfigError, a line for each problem in each file; a file that others can change is one.
    """
    rule = trusting(uid)
    problems: list[str] = []
    text = _read(paths.config_file, rule, problems)
    profiles = [
        (printable(path), _read(path, rule, problems) or "")  # an unreadable profile still has its name
        for folder in paths.profile_dirs
        for path in _toml_files(folder, rule, problems)
    ]
    config = None if text is None else (paths.config_file, text)
    try:
        result = parse(config, profiles, paths.expand)
    except ConfigError as error:
        raise ConfigError("\n".join([*problems, str(error)])) from None
    if problems:
        raise ConfigError("\n".join(problems))
    return result


def tidy(paths: Paths) -> None:
    """Remove what an agent killed while it wrote a profile or a budget has left beside it: the name may not come again.

    For an agent that starts: nobody else writes there then.
    """
    for folder in (paths.written_dir, paths.state_dir, paths.spare_state_dir):
        with suppress(OSError):  # none is there, or it cannot be read: other parts say so
            beside.tidy(folder)


def salvage(paths: Paths) -> Config:
    """What the agent runs with when the very first `load` fails: every profile whose file is good by itself.

    None of its own stands in for one that is not: it would have another store and another base URL, and send there what
    is meant for the other. `config.toml` is used if it is the good one.
    """
    rule = trusting()
    ignored: list[str] = []
    found = [path for folder in paths.profile_dirs for path in _toml_files(folder, rule, ignored)]
    texts = [(path, text) for path in found if (text := _read(path, rule, ignored)) is not None]
    good = [one for one in texts if _parses(None, [one], paths)]
    bad = bool(ignored) or len(good) < len(texts)
    text = _read(paths.config_file, rule, ignored)
    config = None if text is None else (paths.config_file, text)
    attempt = (config, good) if _parses(config, good, paths) else (None, good)
    if not _parses(*attempt, paths):
        return Config(profiles={})
    result = parse(*attempt, paths.expand)
    return msgspec.structs.replace(result, profiles={}) if bad and not good else result


def _parses(config: tuple[str, str] | None, profiles: list[tuple[str, str]], paths: Paths) -> bool:
    try:
        parse(config, profiles, paths.expand)
    except ConfigError:
        return False
    return True


def is_ours(path: str) -> bool:
    """Whether `path` is a folder of this user that nobody else can enter (for `core.paths.user_paths`)."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _read(path: str, rule: Rule, problems: list[str]) -> str | None:
    try:
        return read_text(path, rule)
    except ConfigError as error:
        problems.append(str(error))
        return None


def _toml_files(folder: str, rule: Rule, problems: list[str]) -> list[str]:
    """The paths of `NAME.toml` in order; hidden files are editors' and ours."""
    try:
        check_way(folder, rule)
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except ConfigError as error:
        problems.append(str(error))
        return []
    except OSError as error:
        problems.append(f"{folder}: cannot be read: {error.strerror}")
        return []
    return [f"{folder}/{name}" for name in sorted(names) if name.endswith(".toml") and not name.startswith(".")]


def read_state(path: str, kind: type[T], rule: Rule | None = None) -> tuple[T | None, str]:
    """The state written last, or None and, unless there simply is no file, what is wrong with it.

    `rule`: only if nobody else could have changed it.
    """
    try:
        data = read_whole(path, MAX_STATE, rule)
        return (None, "") if data is None else (msgspec.json.decode(data, type=kind), "")
    except ConfigError as error:
        return None, str(error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return None, f"{path}: not a state file of this version, so it is begun anew: {error}"


def write_state(path: str, state: object) -> None:
    """Write a struct as JSON, 0600, atomically. Raises OSError (full disk, read-only, …)."""
    data = msgspec.json.encode(state)
    if len(data) > MAX_STATE:
        raise OSError(errno.EFBIG, "the state is too large to be read again", path)
    write_atomic(path, data, 0o600)
