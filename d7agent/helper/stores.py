"""Stores: where a credential lives. What each must do, what it holds, and which one a store string names."""

import os
from collections.abc import Mapping
from typing import Final, Protocol

from msgspec import Struct

from d7agent.core.jobs import Target
from d7agent.core.model import Secret
from d7agent.helper.clean import cleaned, cleaned_token
from d7agent.helper.faults import Invalid, JobFault, StoreMissing

PARTS: Final = ("client_id", "client_secret", "access_token")  # the names a credential's parts have in every store
STORE_HINT: Final = "a store is keyring[:BACKEND], directory:PATH, command:ARGV or environment[:PREFIX]"


class Application(Struct, frozen=True):
    """The id and secret of a D7 application: what a login needs."""

    client_id: str
    client_secret: Secret


class ReadyMade(Struct, frozen=True):
    """An access token made in D7's control panel: served as it is, never renewed."""

    access_token: Secret


Credential = Application | ReadyMade


class AlwaysOpen:
    """What a store that nobody ever has to unlock inherits."""

    def locked(self) -> bool:
        """Never."""
        return False

    def unlock(self) -> None:
        """Nothing to do."""


class Shelf(Protocol):
    """Where a store keeps the remembered token: one text, read and written whole. Raises JobFault."""

    def read(self) -> str | None:
        """The text, or None if there is none."""

    def write(self, text: str) -> None:
        """Replace the text; a failure leaves the former one."""

    def delete(self) -> None:
        """Remove the text; none is no error."""


class Store(Protocol):
    """One profile's place for its credential. Every method raises StoreLocked, StoreMissing or StoreUnreachable."""

    @property
    def writable(self) -> bool:
        """Whether `write` may be used: the place is ours and not a person's or another program's."""

    @property
    def pinned(self) -> str | None:
        """The store string to write into the profile where it says more than the present one."""

    def locked(self) -> bool:
        """Whether a person has to unlock the store first. Never prompts."""

    def unlock(self) -> None:
        """Prompt the person and wait. Raises StoreLocked if the answer is no."""

    @property
    def shelf(self) -> Shelf | None:
        """Where the remembered token goes; None where nothing can be kept."""

    def read(self) -> Credential | None:
        """The credential, None if the store works and has none. Raises StoreMissing for rubbish."""

    def write(self, credential: Credential, /) -> None:
        """Replace the credential whole; a failure leaves the former one. Only where `writable`."""

    def delete(self) -> tuple[str, ...]:
        """Remove what we wrote; none is no error. Answers what is left because a person put it there."""


def open_store(target: Target) -> Store:
    """The store that `target` names, not yet looked into.

    Raises Invalid (store) for a string that names none.
    """
    kind, _, argument = target.store.partition(":")
    argument = argument.strip()
    if kind == "keyring":
        from d7agent.helper.keyring_store import KeyringStore

        return KeyringStore(argument, target.profile)
    if kind == "directory":
        from d7agent.helper.directory import DirectoryStore

        return DirectoryStore(argument, target, os.environ)
    if kind == "command":
        from d7agent.helper.command import CommandStore

        return CommandStore(argument, target)
    if kind == "environment":
        from d7agent.helper.environment import EnvironmentStore

        return EnvironmentStore(argument, target)
    raise Invalid("store", f"there is no store of the kind {kind[:40]!r}", STORE_HINT)


def assembled(parts: Mapping[str, str], place: str, client_id: str | None = None) -> Credential | None:
    """The credential out of the parts found at `place` (words for people), None for no parts at all.

    `client_id` is the profile's, used where the place has none. An id and secret win over a token beside them: they
    can be renewed. Raises StoreMissing, which names the part that is missing or unusable.
    """
    try:
        secret, token = parts.get("client_secret"), parts.get("access_token")
        found_id = parts.get("client_id", client_id)
        if secret is not None and found_id is not None:
            clean_secret = Secret(cleaned("client_secret", secret))
            return Application(cleaned("client_id", found_id), clean_secret)
        if token is not None:
            return ReadyMade(cleaned_token("access_token", token))
    except JobFault as fault:
        failed = fault.failed
        raise StoreMissing(f"{place}: {failed.message}", failed.hint) from None
    if not parts:
        return None
    missing = "client_id" if "client_secret" in parts else "client_secret"
    raise StoreMissing(f"{place} has {' and '.join(sorted(parts))}, but no {missing}")


def parts_of(credential: Credential) -> dict[str, Secret]:
    """The credential's parts under their names in every store."""
    if isinstance(credential, ReadyMade):
        return {"access_token": credential.access_token}
    return {"client_id": Secret(credential.client_id), "client_secret": credential.client_secret}
