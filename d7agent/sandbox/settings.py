"""What a sandbox is told at start, and the part of it that can be changed while it runs."""

import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

from d7agent.sandbox.tokens import READY_TOKEN

DEFAULT_ID: Final = "sandbox-id"
DEFAULT_SECRET: Final = "sandbox-secret"

TokenForm = Literal["jwt", "two-part", "opaque"]
Certificate = Literal["good", "wrong-host", "expired"]
CHANGEABLE: Final = ("lifetime", "no_exp", "no_iat", "same_token", "token_form", "applications", "ready_token")


class SandboxError(Exception):
    """The sandbox cannot do what it was asked. `message` says what and where, `hint` what to do next."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message} ({hint})")
        self.message = message
        self.hint = hint


class BadSetting(SandboxError):
    """A setting or a fault that makes no sense: the caller's mistake."""


@dataclass(frozen=True)
class Settings:
    """One sandbox. Refuses (BadSetting) values that make no sense, and every host but loopback.

    `port` 0 takes a free one. `lifetime` is in seconds and may be a fraction. `same_token` gives the same bytes at
    every login until they expire, even when they were revoked. `applications` maps client id to client secret.
    `ready_token` stands for one that D7's control panel made; "" for none. `faults` are SPECs, as `--fault` takes them.
    """

    host: str = "127.0.0.1"
    port: int = 0
    lifetime: float = 3600.0
    no_exp: bool = False
    no_iat: bool = False
    same_token: bool = False
    token_form: TokenForm = "jwt"
    applications: Mapping[str, str] = field(default_factory=lambda: {DEFAULT_ID: DEFAULT_SECRET}, repr=False)
    ready_token: str = field(default=READY_TOKEN, repr=False)
    tls: bool = False
    tls_dir: str | Path | None = None
    certificate: Certificate = "good"
    faults: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_address()
        self._check_types()
        _need(math.isfinite(self.lifetime) and self.lifetime > 0, "lifetime", "a number of seconds above 0")
        _need(self.token_form in get_args(TokenForm), "token_form", "one of " + ", ".join(get_args(TokenForm)))
        _need(self.certificate in get_args(Certificate), "certificate", "one of " + ", ".join(get_args(Certificate)))

    @property
    def address(self) -> str:
        """The loopback address to bind to."""
        return "127.0.0.1" if self.host == "localhost" else self.host

    def changed(self, changes: Mapping[str, object]) -> "Settings":
        """These settings with `changes` made. BadSetting on a name fixed at start or unknown, or a bad value."""
        for name in changes:
            if name not in CHANGEABLE:
                raise BadSetting(f"sandbox: setting {name!r} cannot be changed", "known: " + ", ".join(CHANGEABLE))
        return replace(self, **cast("dict[str, Any]", dict(changes)))

    def _check_address(self) -> None:
        try:
            loopback = ipaddress.ip_address(self.address).is_loopback
        except ValueError:
            loopback = False
        _need(loopback, "host", "a loopback address (127.0.0.1, ::1) or localhost: its secrets are public")
        _need(0 <= self.port <= 65535, "port", "0 (any free port) to 65535")

    def _check_types(self) -> None:
        for name in ("no_exp", "no_iat", "same_token", "tls"):
            _need(isinstance(getattr(self, name), bool), name, "true or false")
        _need(type(self.lifetime) in (int, float), "lifetime", "a number")
        _need(type(self.ready_token) is str, "ready_token", "a string")
        given: object = self.applications
        texts = isinstance(given, Mapping) and all(isinstance(text, str) for pair in given.items() for text in pair)
        _need(texts, "applications", "an object of client ids and their secrets")


def _need(fine: bool, name: str, wanted: str) -> None:
    if not fine:
        raise BadSetting(f"sandbox: setting {name!r} has a value it cannot have", f"it must be {wanted}")
