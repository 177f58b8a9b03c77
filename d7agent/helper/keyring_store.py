"""The `keyring` store: one JSON item a profile, and a second one for the remembered token."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from d7agent.helper import keyring_probe
from d7agent.helper.faults import StoreMissing
from d7agent.helper.keyring_faults import sorted_fault
from d7agent.helper.stores import PARTS, Credential, Shelf, assembled, parts_of
from d7agent.helper.unheard import unheard

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

T = TypeVar("T")
SERVICE: Final = "d7agent"


class KeyringStore:
    """The items of one profile. `name`: the backend's class, "" to choose the best there is."""

    writable = True

    def __init__(self, name: str, profile: str) -> None:
        _find_bus()
        self._name = name
        self._profile = profile
        self._backend: KeyringBackend | None = None
        self._empty = False  # no collection at all: reading would make keyring prompt for a new one

    @property
    def pinned(self) -> str | None:
        """`keyring:MODULE.Class` of the backend in use."""
        return f"keyring:{self._chosen()}"

    @property
    def shelf(self) -> Shelf | None:
        """The item PROFILE#token: `#` is in no profile name."""
        return KeyringShelf(self, f"{self._profile}#token")

    def locked(self) -> bool:
        """Asked of the daemon itself: keyring's own calls prompt. Notes whether there is a collection at all."""
        found = _sorted(lambda: keyring_probe.locked(self._chosen()))
        self._empty = found is None
        return bool(found)

    def unlock(self) -> None:
        """Have the desktop ask for the keyring's password."""
        _sorted(lambda: keyring_probe.unlock(self._chosen()))

    def read(self) -> Credential | None:
        """The credential, None without an item. Raises StoreMissing for an item that is none of ours."""
        text = self.get(self._profile)
        return None if text is None else assembled(_parts(text), self._place())

    def write(self, credential: Credential) -> None:
        """Replace the item; the keyring does so whole or not at all."""
        parts = {name: secret.reveal() for name, secret in parts_of(credential).items()}
        self.set(self._profile, msgspec.json.encode(parts).decode())

    def delete(self) -> tuple[str, ...]:
        """Remove the item; nothing is ever left."""
        self.drop(self._profile)
        return ()

    def get(self, user: str) -> str | None:
        """The item's text, "" for one that is no text; None if there is none."""
        return None if self._empty else self._asked(lambda keyring: _text(keyring, user))

    def set(self, user: str, text: str) -> None:
        """Replace the item's text."""
        self._asked(lambda keyring: keyring.set_password(SERVICE, user, text))
        self._empty = False

    def drop(self, user: str) -> None:
        """Remove the item if it is there. Asked first: backends raise the same for none and for a refusal."""
        if self.get(user) is not None:
            self._asked(lambda keyring: keyring.delete_password(SERVICE, user))

    def _place(self) -> str:
        return f"the keyring's item of service {SERVICE}, user {self._profile}"

    def _chosen(self) -> str:
        if not self._name:
            from d7agent.helper.keyring_backends import choose

            self._name = choose()
        return self._name

    def _asked(self, call: "Callable[[KeyringBackend], T]") -> T:
        def unheard_call() -> T:
            keyring = self._keyring()
            with unheard():
                return call(keyring)

        return _sorted(unheard_call, bus=self._name in ("", *keyring_probe.ON_THE_BUS))

    def _keyring(self) -> "KeyringBackend":
        if self._backend is None:
            from d7agent.helper.keyring_backends import load

            self._backend = load(self._chosen())
        return self._backend


class KeyringShelf:
    """One further item beside the credential."""

    def __init__(self, store: KeyringStore, user: str) -> None:
        self._store = store
        self._user = user

    def read(self) -> str | None:
        """The item's text."""
        return self._store.get(self._user)

    def write(self, text: str) -> None:
        """Replace it."""
        self._store.set(self._user, text)

    def delete(self) -> None:
        """Remove it if it is there."""
        self._store.drop(self._user)


def _text(keyring: "KeyringBackend", user: str) -> str | None:
    try:
        found: object = keyring.get_password(SERVICE, user)
    except UnicodeDecodeError:
        return ""
    return found if found is None or isinstance(found, str) else ""


def _parts(text: str) -> dict[str, str]:
    """The parts by our names for them; other keys, which may be anything, are not looked at."""
    with contextlib.suppress(msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        found = msgspec.json.decode(text, type=dict[str, str])
        parts: dict[str, str] = {name: found[name] for name in PARTS if name in found}
        if parts:
            return parts
    raise StoreMissing(f"the keyring's item of service {SERVICE} is not what d7agent wrote: someone changed it")


def _sorted(call: Callable[[], T], *, bus: bool = True) -> T:
    """What `call` returns; whatever it raises comes out as a JobFault without a context."""
    try:
        return call()
    except BaseException as error:  # noqa: BLE001  keyring and its plugins raise far more than KeyringError, SystemExit too
        fault = sorted_fault(error, bus=bus)
    raise fault


def _find_bus() -> None:
    """Where the variable is missing, the bus of the user's own runtime folder, as libsystemd does."""
    bus = Path(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent")) / "bus"
    with contextlib.suppress(OSError):  # a runtime folder that is closed to us
        if "DBUS_SESSION_BUS_ADDRESS" not in os.environ and bus.is_socket():
            os.environ["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={bus}"
