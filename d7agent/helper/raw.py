"""The caller's own parameters, decoded here and nowhere else."""

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from d7agent.core.model import Secret
from d7agent.helper.faults import Invalid

T = TypeVar("T", bound=Struct)


class Pasted(Struct, frozen=True):
    """What StoreCredential brings along for the store; profile, base_url, store and verify come with the job."""

    client_id: Secret | None = None
    client_secret: Secret | None = None
    access_token: Secret | None = None


class Passphrase(Struct, frozen=True):
    """What Lock and Unlock bring along."""

    passphrase: Secret


def decode(kind: type[T], raw: bytes) -> T:
    """The raw parameters as `kind`. Raises Invalid, which names the parameter at fault and never its value."""
    fault: Invalid
    try:
        return msgspec.json.decode(raw.strip() or b"{}", type=kind, dec_hook=_secret)
    except msgspec.ValidationError as error:
        name = _name(str(error))
        fault = Invalid(name, f"{name} is missing or not a string")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        fault = Invalid("parameters", "the parameters are not JSON")
    raise fault  # outside the handlers: no context, in which a decoder's exception might hold a piece of the input


def _secret(kind: type, value: Any) -> Secret:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise TypeError("not a string")


def _name(error: str) -> str:
    """The field in a msgspec message, as in "… - at `$.client_id`" or "… missing required field `passphrase`"."""
    quoted = error.rpartition("`$.")[2] if "`$." in error else error.rpartition("field `")[2]
    name = quoted.partition("`")[0]
    return name if name.isidentifier() else "parameters"
