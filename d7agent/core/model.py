"""The vocabulary every room shares: secrets, states, reasons, stamps and grants."""

import re
from typing import Final, Literal, NoReturn

from msgspec import Struct

from d7agent.core.wipe import wipe

try:  # CPython's own SHA-256: hashlib would load OpenSSL, some 3 MB, into the resident agent
    from _sha2 import sha256  # type: ignore[import-not-found]
except ImportError:  # before 3.12 it has another name
    from _sha256 import sha256  # type: ignore[import-not-found]

PROFILE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
MAX_ACCESS_TOKEN: Final = 16 * 1024  # bytes; larger does not fit a header line of any server we know: the login failed
DEFAULT_BASE_URL: Final = "https://api.d7networks.com"
DEFAULT_PROFILE: Final = "default"

State = Literal["fresh", "stale", "expired", "rejected", "empty", "no_credential", "locked"]
Reason = Literal[
    "dns",
    "connect",
    "tls",
    "timeout",
    "http_status",
    "bad_reply",
    "rate_limited",
    "refused",
    "helper_failed",
    "backoff",
    "budget",
    "store_locked",
    "store_missing",
    "store_unreachable",
]
STORE_REASONS: Final = frozenset({"store_locked", "store_missing", "store_unreachable"})


class Secret:
    """A string that must not be seen: `repr`, `str`, `format` and pickling never show it. `reveal()` does.

    When it goes, its string is overwritten, unless somebody else holds that.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself. Call it at the edge, never to keep the result."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return self._value == other._value

    def __hash__(self) -> int:
        return hash(fingerprint(self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not to be pickled")

    def __del__(self) -> None:
        held = [self._value]
        self._value = ""
        wipe(held)


def fingerprint(token: str) -> str:
    """SHA-256 of the token, 64 hex digits: names a token without giving it away."""
    held = [token.encode()]
    digest = sha256(held[0]).hexdigest()
    wipe(held)
    return str(digest)


def valid_profile_name(name: str) -> bool:
    """Whether `name` may name a profile: `[a-z0-9][a-z0-9_-]{0,63}`."""
    return PROFILE_NAME.fullmatch(name) is not None


class Stamp(Struct, frozen=True):
    """One instant on both clocks. `boot`: CLOCK_BOOTTIME seconds; `wall`: unix seconds; `boot_id`: the kernel's."""

    boot: float
    wall: float
    boot_id: str = ""


class Grant(Struct, frozen=True):
    """An access token at hand, its times pinned to the boot clock when it came.

    `expires` is None for a token that does not say; `lifetime` is the whole life in seconds.
    """

    access_token: Secret
    fingerprint: str
    received: Stamp
    token_type: str = "bearer"  # noqa: S105  the type's name, no secret
    expires: float | None = None
    lifetime: float | None = None
    issued_at: float | None = None
    skew: float | None = None
    ready_made: bool = False
