"""What the agent and its helper say to each other: READY, one request on stdin, one reply on stdout, then its exit.

A helper says READY when no other process of its user can look into it any more. A request is one JSON object, one NUL
byte, and, for the jobs that say so, the raw JSON parameters of the caller up to the end of input: secrets travel from
the agent's receive buffer to the helper without being decoded on the way.
A reply is one JSON object up to the end of output.
"""

from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from d7agent.core.model import DEFAULT_BASE_URL, Reason, Secret, Stamp

T = TypeVar("T")

READY: Final = b"\n"  # white space to whoever decodes a reply
LOGIN_LIMIT: Final = 15.0  # seconds in all for one login, from the first connect to the last byte of the reply
CONNECT_LIMIT: Final = 5.0  # seconds to connect
STORE_LIMIT: Final = 15.0  # seconds for one call into a store
PROMPT_LIMIT: Final = 120.0  # seconds for a store call that a person is asked to unlock
JOB_LIMIT: Final = STORE_LIMIT + LOGIN_LIMIT + STORE_LIMIT + 5  # read the credential, log in, remember, and start up
PROMPT_JOB_LIMIT: Final = JOB_LIMIT + 2 * PROMPT_LIMIT
MAX_REPLY: Final = 64 * 1024  # bytes the agent reads from a helper


class Target(Struct, frozen=True):
    """Which credential a job is about: the profile, its base URL and its store (as written in TOML).

    `sharer`: another profile that has the same store, "" for none: what is there is not for this one to change.
    `variables`: those of the agent's environment that an `environment` store reads. Not in the helper's own, which
    others could look into at its start.
    """

    profile: str
    base_url: str = DEFAULT_BASE_URL
    store: str = "keyring"
    client_id: str | None = None
    remember: bool = True
    state_dir: str = (
        ""  # where the remembered token goes (0600) when the store is a read-only `directory` or `environment`
    )
    sharer: str = ""
    variables: dict[str, Secret] = {}


class Login(Struct, frozen=True, tag_field="job", tag="login"):
    """Read the credential, log in, remember the token. Answers Granted or Failed."""

    target: Target
    now: Stamp
    prompt: bool = False


class Recall(Struct, frozen=True, tag_field="job", tag="recall"):
    """Look for a remembered (or ready-made) token. Answers Granted, Nothing or Failed. Never touches the network."""

    target: Target
    now: Stamp


class Prove(Struct, frozen=True, tag_field="job", tag="prove"):
    """Ask D7's balance endpoint whether a token works. Answers Proved or Failed."""

    base_url: str
    access_token: Secret


class Keep(Struct, frozen=True, tag_field="job", tag="keep"):
    """Store the credential of the raw StoreCredential parameters, proved first if `verify`. Answers Granted or Failed.

    With `verify` false and an id and secret, nothing is asked of D7 and the answer is Done.
    """

    target: Target
    now: Stamp
    verify: bool = True


class Forget(Struct, frozen=True, tag_field="job", tag="forget"):
    """Delete the remembered token and, unless `token_only`, the credential. Answers Done or Failed."""

    target: Target
    token_only: bool = False


class HashPassphrase(Struct, frozen=True, tag_field="job", tag="hash"):
    """Hash the passphrase of the raw Lock parameters slowly. Answers Hashed or Failed."""


class CheckPassphrase(Struct, frozen=True, tag_field="job", tag="check"):
    """Compare the passphrase of the raw Unlock parameters. Answers Checked or Failed."""

    salt: str
    digest: str

    def __repr__(self) -> str:
        return "CheckPassphrase(…)"


class Look(Struct, frozen=True, tag_field="job", tag="look"):
    """See which keyring serves here and whether it is locked, for `doctor`. Answers Seen or Failed; reads no item.

    `backend`: the class that the profile names, "" for the best there is.
    """

    backend: str = ""


class Reach(Struct, frozen=True, tag_field="job", tag="reach"):
    """Ask D7's balance endpoint without a token, for `doctor`: no login, no secret. Answers Reached or Failed."""

    base_url: str


class Granted(Struct, frozen=True, tag_field="reply", tag="granted"):
    """A token. `received` is the request's `now` plus the time that passed until D7's reply was in.

    `date`: the reply's Date header as unix seconds. `recalled`: from the store, not from a login. `remembered`: the
    store now holds it as a second item. `backend`: the store string to pin in the profile (`keyring:MODULE.Class`).
    """

    access_token: Secret
    received: Stamp
    token_type: str = "bearer"  # noqa: S105  the type's name, no secret
    date: float | None = None
    ready_made: bool = False
    recalled: bool = False
    remembered: bool = False
    backend: str | None = None


class Nothing(Struct, frozen=True, tag_field="reply", tag="nothing"):
    """No remembered token that fits. `credential`: whether the store holds a credential."""

    credential: bool = True


class Failed(Struct, frozen=True, tag_field="reply", tag="failed"):
    """The job failed. `reason` sorts it; `permanent`: D7 refused the credential itself (or it cannot be valid).

    `status` and `code` are D7's; `retry_after` in seconds. `unauthorized`: a login answered 401 (thrice is permanent).
    `missing`: the store works and holds no credential. `invalid`: the parameter of the raw request at fault.
    """

    reason: Reason
    message: str
    hint: str = ""
    permanent: bool = False
    unauthorized: bool = False
    missing: bool = False
    status: int | None = None
    code: str | None = None
    retry_after: float | None = None
    invalid: str | None = None


class Proved(Struct, frozen=True, tag_field="reply", tag="proved"):
    """What the balance endpoint answered: `works` (200), or a 401 with one of D7's token codes (`refused`)."""

    works: bool
    refused: bool
    status: int
    code: str | None = None
    body: str | None = None  # the balance as D7 sent it, cut to 200 characters, for `check --live`


class Done(Struct, frozen=True, tag_field="reply", tag="done"):
    """The job is done. `kept`: files left because a person wrote them. `backend`: as in Granted."""

    kept: tuple[str, ...] = ()
    backend: str | None = None


class Hashed(Struct, frozen=True, tag_field="reply", tag="hashed"):
    """A passphrase's salt and scrypt digest (RFC 7914), both hex."""

    salt: str
    digest: str

    def __repr__(self) -> str:
        return "Hashed(…)"


class Checked(Struct, frozen=True, tag_field="reply", tag="checked"):
    """Whether the passphrase was right."""

    right: bool


class Seen(Struct, frozen=True, tag_field="reply", tag="seen"):
    """The keyring `backend` (its class) works here. `plain_files`: the package keyrings.alt is installed beside it."""

    backend: str
    locked: bool
    plain_files: bool = False


class Reached(Struct, frozen=True, tag_field="reply", tag="reached"):
    """An answer came. `d7`: it was the 401 that D7 gives to a call without a token, and no proxy's page.

    `skew`: the answer's Date minus this machine's clock, seconds. `proxy`: host and port of the one it went through.
    """

    status: int
    d7: bool
    skew: float | None = None
    proxy: str | None = None


Job = Login | Recall | Prove | Keep | Forget | HashPassphrase | CheckPassphrase | Look | Reach
Reply = Granted | Nothing | Failed | Proved | Done | Hashed | Checked | Seen | Reached


def _encode_secret(value: Any) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    raise TypeError(f"cannot encode {type(value).__name__}")


def _decode_secret(kind: type, value: Any) -> Secret:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise TypeError(f"cannot decode {kind.__name__}")


_encoder = msgspec.json.Encoder(enc_hook=_encode_secret)
_jobs: msgspec.json.Decoder[Job] = msgspec.json.Decoder(Job, dec_hook=_decode_secret)
_replies: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply, dec_hook=_decode_secret)


def encode(message: Job | Reply) -> bytes:
    """The JSON of a job (add a NUL and the raw parameters) or of a reply."""
    return _encoder.encode(message)


def decode_job(data: bytes) -> Job:
    """Raises msgspec.DecodeError (or ValidationError) on anything but a job."""
    return _decoded(_jobs, data)


def decode_reply(data: bytes | bytearray) -> Reply:
    """Raises msgspec.DecodeError (or ValidationError) on anything but a reply."""
    return _decoded(_replies, data)


def _decoded(decoder: msgspec.json.Decoder[T], data: bytes | bytearray) -> T:
    why = "not UTF-8"
    try:
        return decoder.decode(data)
    except UnicodeDecodeError:
        pass
    except RecursionError:
        why = "nested too deeply"
    raise msgspec.DecodeError(why)  # outside the handlers: no context, which would hold the data
