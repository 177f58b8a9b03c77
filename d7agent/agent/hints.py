"""Hints from inotify, through watchfiles, that something happened in a folder."""

import importlib
import importlib.util
import logging
import os
import sys
from importlib.machinery import PathFinder
from typing import Any, Final

_EXTENSION: Final = "watchfiles._rust_notify"
_ROUNDS: Final = 8  # of RustNotify.watch in one glance; with changes it returns in the second or third

_log = logging.getLogger(__name__)

Place = tuple[str, int, int]  # a folder's path, device and inode: a new folder of the same name is another place


class Hints:
    """Watches some folders, not what is below them. Asked from time to time, it waits for nothing."""

    def __init__(self) -> None:
        self._places: frozenset[Place] = frozenset()
        self._notify: Any = None
        self._complained = ""

    @property
    def armed(self) -> bool:
        """Whether hints can be had at all now."""
        return self._notify is not None

    def arm(self, folders: frozenset[str]) -> bool:
        """Watch these folders. True if that is a change: what happened before it was not hinted at."""
        try:
            places = frozenset(_place(folder) for folder in folders)
            if self.armed and places == self._places:
                return False
            self.close()
            self._notify = _rust_notify()([place[0] for place in places], False, False, 0, False, True)
        except FileNotFoundError:
            return False  # a folder went just now; the next look finds its parent
        except (OSError, RuntimeError, ImportError) as error:
            self._complain(str(error))
            return False
        self._places = places
        self._complained = ""
        return True

    def glance(self) -> bool:
        """Whether something happened since the last glance; also when the watch itself broke."""
        if not self.armed:
            return False
        try:
            return isinstance(self._notify.watch(0, 0, 0, _Rounds()), set)
        except RuntimeError:  # a queue that ran over, a name that is not UTF-8: a new watch is due, and a look
            self.close()
            return True

    def close(self) -> None:
        """Stop watching; the watch's thread ends."""
        if self._notify is not None:
            self._notify.close()
        self._notify = None

    def _complain(self, what: str) -> None:
        if what != self._complained:
            _log.warning(
                "cannot be told of edits (%s): looking at the files every few seconds instead; "
                "more inotify instances help: sysctl fs.inotify.max_user_instances",
                what,
            )
        self._complained = what


class _Rounds:
    """The stop event that ends RustNotify.watch after some rounds: its own time limit would spin for a millisecond."""

    def __init__(self) -> None:
        self._left = _ROUNDS

    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0


def _place(folder: str) -> Place:
    found = os.stat(folder)
    return folder, found.st_dev, found.st_ino


def _rust_notify() -> Any:
    """The class RustNotify without the package around it, which imports anyio: 0.7 MB resident instead of 2.0."""
    module = sys.modules.get(_EXTENSION)
    if module is None:
        package = importlib.util.find_spec(_EXTENSION.partition(".")[0])
        spec = PathFinder.find_spec(_EXTENSION, package.submodule_search_locations) if package else None
        if spec is None or spec.loader is None:
            return importlib.import_module(_EXTENSION).RustNotify
        module = sys.modules[_EXTENSION] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module.RustNotify
