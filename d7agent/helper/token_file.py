"""The remembered token as a 0600 file, for stores that cannot hold a second item themselves."""

from pathlib import Path

from d7agent.core.jobs import Target
from d7agent.helper.private_files import remove, replace, secret_text, tidy
from d7agent.helper.stores import Shelf


class TokenFile:
    """One file of ours."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str | None:
        """The text; None if there is no file. Raises StoreUnreachable for one that others own or can read."""
        tidy(self._path)
        return secret_text(self._path)

    def write(self, text: str) -> None:
        """Replace the file atomically, its folder made 0700 if there is none. Raises StoreUnreachable."""
        replace({self._path: text})

    def delete(self) -> None:
        """Remove the file if it is there. Raises StoreUnreachable."""
        remove(self._path)


def state_shelf(target: Target) -> Shelf | None:
    """NAME.token in the agent's state folder; None without such a folder."""
    return TokenFile(Path(target.state_dir) / f"{target.profile}.token") if target.state_dir else None
