"""The remembered token: what a restart serves at once, bound to the credential it came from."""

import hashlib
from typing import Any, Final

import msgspec
from msgspec import Struct

from d7agent.core.jobs import Target
from d7agent.core.model import Secret, Stamp
from d7agent.helper.clean import is_token
from d7agent.helper.stores import Application

VERSION: Final = 1


class Remembered(Struct, frozen=True):
    """A token with the stamp of its receipt and what it belongs to. `date`: D7's Date header, unix seconds."""

    v: int
    access_token: Secret
    token_type: str
    base_url: str
    client_hash: str
    received_boot: float
    received_wall: float
    boot_id: str
    date: float | None = None

    @property
    def received(self) -> Stamp:
        """When the token came."""
        return Stamp(boot=self.received_boot, wall=self.received_wall, boot_id=self.boot_id)


def kept(target: Target, application: Application, token: Secret, received: Stamp, date: float | None) -> str:
    """The text to keep for a token that just came."""
    item = Remembered(
        v=VERSION,
        access_token=token,
        token_type="bearer",  # noqa: S106  the type's name, no secret  # nosec B106
        base_url=target.base_url,
        client_hash=client_hash(application),
        received_boot=received.boot,
        received_wall=received.wall,
        boot_id=received.boot_id,
        date=date,
    )
    return msgspec.json.encode(item, enc_hook=_reveal).decode()


def recalled(text: str | None, target: Target, application: Application) -> Remembered | None:
    """The kept token if it belongs to this base URL and this application; None for any other, and for rubbish."""
    try:
        found = msgspec.json.decode(text or "", type=Remembered, dec_hook=_secret)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    fits = found.v == VERSION and found.base_url == target.base_url and found.client_hash == client_hash(application)
    bearer = found.token_type == "bearer"  # noqa: S105  the type's name, no secret  # nosec B105
    return found if fits and bearer and is_token(found.access_token.reveal()) else None


def client_hash(application: Application) -> str:
    """SHA-256 of the client id, hex: names the application without giving it away."""
    return hashlib.sha256(application.client_id.encode()).hexdigest()


def _reveal(value: Any) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    raise TypeError(f"cannot encode {type(value).__name__}")


def _secret(kind: type, value: Any) -> Secret:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise TypeError("not a string")
