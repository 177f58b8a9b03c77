"""Stores for the contract suite: one in memory, and the real ones, each filled by the means a person has."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from d7agent.core.model import Secret
from d7agent.helper.command import CommandStore
from d7agent.helper.directory import DirectoryStore
from d7agent.helper.environment import NAMES, EnvironmentStore
from d7agent.helper.keyring_store import KeyringStore
from d7agent.helper.stores import AlwaysOpen, Credential, Shelf, Store, assembled, parts_of
from tests.support.helper import folder, target

Fill = Callable[[Mapping[str, str]], None]


class MemoryShelf:
    """One text in memory."""

    def __init__(self) -> None:
        self._text: str | None = None

    def read(self) -> str | None:
        """The text."""
        return self._text

    def write(self, text: str) -> None:
        """Replace it."""
        self._text = text

    def delete(self) -> None:
        """Forget it."""
        self._text = None


class MemoryStore(AlwaysOpen):
    """A credential in memory."""

    writable = True
    pinned = None

    def __init__(self) -> None:
        self.parts: dict[str, str] = {}
        self._shelf = MemoryShelf()

    @property
    def shelf(self) -> Shelf | None:
        """In memory as well."""
        return self._shelf

    def read(self) -> Credential | None:
        """What was written, or put into `parts`."""
        return assembled(self.parts, "memory")

    def write(self, credential: Credential) -> None:
        """Replace it."""
        self.parts = {name: secret.reveal() for name, secret in parts_of(credential).items()}

    def delete(self) -> tuple[str, ...]:
        """Forget it."""
        self.parts = {}
        return ()


def memory_store(_: Path) -> tuple[Store, Fill]:
    """The fake."""
    store = MemoryStore()
    return store, store.parts.update


def keyring_store(_: Path) -> tuple[Store, Fill]:
    """The real keyring of the session in os.environ, its items of profile `work` gone."""
    store = KeyringStore("keyring.backends.SecretService.Keyring", "work")
    store.drop("work")
    store.drop("work#token")
    return store, lambda parts: store.set("work", msgspec.json.encode(parts).decode())


def directory_store(tmp_path: Path) -> tuple[Store, Fill]:
    """A folder that is not there yet."""
    path = tmp_path / "credential"
    return DirectoryStore(str(path), target("directory"), {}), lambda parts: _discard(folder(path, **parts))


def command_store(tmp_path: Path) -> tuple[Store, Fill]:
    """`cat` of a file that a person writes JSON into."""
    (tmp_path / "out").touch()
    argv = shlex.join(["cat", str(tmp_path / "out")])
    store = CommandStore(argv, target("command", state_dir=str(tmp_path / "state")))
    return store, lambda parts: _discard((tmp_path / "out").write_bytes(msgspec.json.encode(parts)))


def environment_store(tmp_path: Path) -> tuple[Store, Fill]:
    """Variables with a prefix."""
    variables: dict[str, Secret] = {}
    store = EnvironmentStore("MY_", target("environment", state_dir=str(tmp_path / "state"), variables=variables))
    return store, lambda parts: variables.update({f"MY_{NAMES[part]}": Secret(text) for part, text in parts.items()})


def _discard(_: object) -> None:
    """The value does not matter."""
