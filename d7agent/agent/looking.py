"""What the watched files look like: the truth that a file system's hints are checked against."""

import os
from collections.abc import Iterable, Iterator

from msgspec import Struct

from d7agent.core.paths import Paths

CREDENTIAL_FILES = ("client_id", "client_secret", "access_token")  # of a `directory` store

Version = tuple[int, ...] | None  # of a file, links followed; None: not there
View = dict[str, Version]  # by path


class Look(Struct, frozen=True):
    """The configuration files, and those in each store's folder, as they were at one look."""

    config: View
    stores: dict[str, View]


class Change(Struct, frozen=True):
    """What is different since the last look: the configuration, and the store folders whose files changed."""

    config: bool
    stores: frozenset[str]

    def __bool__(self) -> bool:
        return self.config or bool(self.stores)


def look(paths: Paths, stores: Iterable[str] = ()) -> Look:
    """Look at every configuration file and at the credential files in the folders of `directory` stores."""
    return Look(
        config={path: _version(path) for path in _config_files(paths)},
        stores={folder: {path: _version(path) for path in _credential_files(folder)} for folder in stores},
    )


def difference(before: Look, after: Look) -> Change:
    """A folder that only one of the looks knows is no change: it came or went with the configuration."""
    both = before.stores.keys() & after.stores.keys()
    changed = frozenset(folder for folder in both if before.stores[folder] != after.stores[folder])
    return Change(config=before.config != after.config, stores=changed)


def folders(paths: Paths, stores: Iterable[str] = ()) -> frozenset[str]:
    """The existing folders in which something must happen before a look can differ.

    They are the files' folders or, while those are missing, the nearest parents; and, as people and Kubernetes link
    such files from elsewhere, the folders of links and of what they lead to.
    """
    stores = list(stores)
    wanted = {paths.config_dir, *paths.profile_dirs, *stores}
    files = [*_config_files(paths), *(path for folder in stores for path in _credential_files(folder))]
    for path in [*wanted, *files]:
        if os.path.islink(path):
            wanted.update((os.path.dirname(path), os.path.dirname(os.path.realpath(path))))
    return frozenset(_nearest(folder) for folder in wanted)


def _config_files(paths: Paths) -> Iterator[str]:
    yield paths.config_file
    for folder in paths.profile_dirs:
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        yield from (f"{folder}/{name}" for name in names if name.endswith(".toml") and not name.startswith("."))


def _credential_files(folder: str) -> list[str]:
    return [f"{folder}/{name}" for name in CREDENTIAL_FILES]


def _version(path: str) -> Version:
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _nearest(folder: str) -> str:
    while not os.path.isdir(folder) and folder != "/":
        folder = os.path.dirname(folder) or "/"
    return folder
