"""Where login budgets are written down: in the state folder or, while that fails, beside the socket.

A budget that is kept nowhere begins full at every start, so that a restart loop would log in once a start. The runtime
folder is mostly in memory and so on another disk; it lasts as long as the machine runs, which is what a loop needs.
"""

import logging
import os
from collections.abc import Container, Iterator
from contextlib import suppress
from typing import Final

from d7agent.agent import files
from d7agent.agent.atomic import remove
from d7agent.agent.reading import check_way, trusting
from d7agent.core import budget as budgets
from d7agent.core.budget import Snapshot
from d7agent.core.errors import ConfigError
from d7agent.core.model import Stamp
from d7agent.core.paths import Paths

log = logging.getLogger(__name__)

ENDING: Final = ".state"


class BudgetFiles:
    """One small file a name, NAME.state, without secrets."""

    def __init__(self, paths: Paths) -> None:
        self._usual = paths.state_dir
        self._spare = paths.spare_state_dir
        self._in_spare: set[str] = set()
        self._told = ""  # the trouble that was logged last

    def save(self, name: str, snapshot: Snapshot) -> bool:
        """Write a budget down; False when neither folder can be written. A change of that is logged once."""
        trouble = self._written(self._usual, name, snapshot)
        if trouble:
            return self._save_in_spare(name, snapshot, f"cannot be written to {self._usual}: {trouble}")
        if self._told:
            log.info("login budgets are written to %s again", self._usual)
            self._told = ""
        self._leave_spare(name)
        return True

    def read(self, name: str, now: Stamp) -> Snapshot | None:
        """The budget written last, whichever folder has it; None for none."""
        usual, spare = (self._found(folder, name) for folder in (self._usual, self._spare))
        if spare is not None:
            self._in_spare.add(name)
        return budgets.newest([found for found in (usual, spare) if found is not None], now)

    def prune(self, keep: Container[str], now: Stamp) -> None:
        """Remove the files of names not among those to `keep` that say nothing any more."""
        for folder in (self._usual, self._spare):
            for name in _names(folder):
                path = self._path(folder, name)
                found = None if name in keep else files.read_state(path, Snapshot)[0]
                if found is not None and budgets.is_past(found, now):
                    with suppress(OSError):
                        remove(path)

    def _save_in_spare(self, name: str, snapshot: Snapshot, trouble: str) -> bool:
        another = self._written(self._spare, name, snapshot)
        if another:
            self._tell(f"{trouble}, nor to {self._spare}: {another}; one login per 2 min until they can")
            return False
        self._in_spare.add(name)
        self._tell(f"{trouble}; they are kept in {self._spare} until they can")
        return True

    def _written(self, folder: str, name: str, snapshot: Snapshot) -> str:
        """Why it could not be written there, "" if it was. Nothing is where someone else could fill the bucket."""
        try:
            with suppress(FileNotFoundError):  # it is made then
                check_way(folder, trusting())
            files.write_state(self._path(folder, name), snapshot)
        except OSError as error:
            return str(error.strerror)
        except ConfigError as error:
            return str(error)
        return ""

    def _found(self, folder: str, name: str) -> Snapshot | None:
        found, problem = files.read_state(self._path(folder, name), Snapshot, trusting())
        if problem:
            log.warning("%s", problem)
        return found

    def _tell(self, trouble: str) -> None:
        if trouble != self._told:
            self._told = trouble
            log.warning("login budgets %s", trouble)

    def _leave_spare(self, name: str) -> None:
        if name in self._in_spare:
            self._in_spare.discard(name)
            with suppress(OSError):
                remove(self._path(self._spare, name))

    def _path(self, folder: str, name: str) -> str:
        return f"{folder}/{name}{ENDING}"


def _names(folder: str) -> Iterator[str]:
    try:
        found = os.listdir(folder)
    except OSError:
        return
    yield from (name.removesuffix(ENDING) for name in found if name.endswith(ENDING) and not name.startswith("."))
