"""Profile files as `login` writes and `logout` removes them; what a person wrote is edited gently and never removed."""

import os
import stat
import tomllib
from collections.abc import Mapping
from typing import Final

from d7agent.agent.atomic import remove, write_atomic
from d7agent.agent.reading import read_text
from d7agent.core.checks import profile_name
from d7agent.core.config import parse
from d7agent.core.errors import ConfigError
from d7agent.core.paths import Paths
from d7agent.core.toml_lines import set_keys

WRITTEN: Final = frozenset({"base_url", "store", "client_id"})  # the keys that `login` writes
MARKER: Final = "# written by d7agent login"
_FIRST_LINE: Final = f"{MARKER}; logout removes the file unless you delete this line\n"


def write_profile(paths: Paths, name: str, changes: Mapping[str, str]) -> str:
    """Make the profile's file say `changes` (base_url, store, client_id); other keys and comments stay. Its path.

    A file that says so already is not touched. Raises ConfigError: the name, a value, the file as it is, the disk; or
    an admin's file in a folder that stands above the one we write says something else.
    """
    _check_name(name)
    path = _first_file(paths, name) or _written(paths, name)
    before = read_text(path)
    after = _edited(path, before, changes)
    parse(None, [(path, after)], paths.expand)
    if after == before:
        return path
    if path != _written(paths, name):
        raise ConfigError(f"{path}: is the administrator's and would have to be changed there: {', '.join(changes)}")
    _write(path, after)
    return path


def remove_profile(paths: Paths, name: str) -> list[str]:
    """Remove the profile's file if `login` wrote it. The files that stay because a person wrote them.

    Raises ConfigError if it cannot be removed.
    """
    _check_name(name)
    kept = []
    for folder in paths.profile_dirs:
        path = f"{folder}/{name}.toml"
        if not os.path.lexists(path):
            continue
        if folder != paths.written_dir or not _is_marked(path):
            kept.append(path)
            continue
        try:
            remove(path)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be removed: {error.strerror}") from None
    return kept


def _check_name(name: str) -> None:
    try:
        profile_name(name)
    except ValueError as error:
        raise ConfigError(f"{name!r} {error}") from None


def _written(paths: Paths, name: str) -> str:
    return f"{paths.written_dir}/{name}.toml"


def _first_file(paths: Paths, name: str) -> str | None:
    every = (f"{folder}/{name}.toml" for folder in paths.profile_dirs)
    return next((path for path in every if os.path.lexists(path)), None)


def _edited(path: str, before: str | None, changes: Mapping[str, str]) -> str:
    try:
        return set_keys(_FIRST_LINE if before is None else before, changes)
    except ValueError as error:
        fault = "not valid TOML" if isinstance(error, tomllib.TOMLDecodeError) else "left as it is"
        raise ConfigError(f"{path}: {fault}: {error}") from None


def _write(path: str, text: str) -> None:
    """A link of our own (people keep such files in a repository) is followed; its mode stays."""
    try:
        found = os.lstat(path) if os.path.lexists(path) else None
        if found and stat.S_ISLNK(found.st_mode):
            if found.st_uid != os.geteuid():
                raise ConfigError(f"{path}: is a link that belongs to someone else: remove it")
            path = os.path.realpath(path)
            found = os.stat(path)
        mode = stat.S_IMODE(found.st_mode) if found else 0o600
        write_atomic(path, text.encode(), mode)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None


def _is_marked(path: str) -> bool:
    """Whether `login` wrote the file and nobody has added to it. A link was made by a person."""
    try:
        text = read_text(path) or ""
        return not os.path.islink(path) and text.startswith(MARKER) and tomllib.loads(text).keys() <= WRITTEN
    except (ConfigError, tomllib.TOMLDecodeError):
        return False
