"""The wire's messages as msgspec structs: what `io.d7agent.varlink` says, in Python. A test holds the two together."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from d7agent.core.model import State

PROTOCOL: Final = 1  # AgentStatus.protocol; raised when a client of the former would misread a reply
MAX_REQUEST: Final = 64 * 1024  # bytes of one request; the largest honest one is StoreCredential with a 16 KiB token

Seconds = Annotated[int, Meta(ge=0, le=366 * 24 * 3600)]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}\Z")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Envelope(Struct, frozen=True):
    """One Varlink call. Missing, null and empty parameters are the same; so are `more: null` and its absence."""

    method: str
    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    more: bool | None = None
    oneway: bool | None = None
    upgrade: bool | None = None


class Empty(Struct, frozen=True):
    """No parameters."""


class GetToken(Struct, frozen=True):
    """Parameters of GetToken. `min_validity` and `max_wait` in seconds."""

    profile: Name | None = None
    min_validity: Seconds | None = None
    max_wait: Seconds | None = None


class RejectToken(Struct, frozen=True):
    """Parameters of RejectToken. `fingerprint`: SHA-256 of the refused token, 64 hex digits."""

    fingerprint: Sha256
    profile: Name | None = None
    max_wait: Seconds | None = None


class GetStatus(Struct, frozen=True):
    """Parameters of GetStatus: one profile, or all."""

    profile: Name | None = None


class RenewToken(Struct, frozen=True):
    """Parameters of RenewToken."""

    profile: Name | None = None
    max_wait: Seconds | None = None


class StoreCredential(Struct, frozen=True):
    """The parameters of StoreCredential that the agent may see. The secret ones are decoded in the helper alone."""

    profile: Name
    base_url: str | None = None
    store: str | None = None
    verify: bool | None = None


class ForgetCredential(Struct, frozen=True):
    """Parameters of ForgetCredential."""

    profile: Name


class Token(Struct, frozen=True, omit_defaults=True):
    """An access token as callers get it. `valid_for` (seconds from now) is authoritative, `expires_at` for display."""

    profile: str
    access_token: str
    token_type: str
    header: str
    serial: int
    state: State
    valid_for: int | None = None
    issued_at: int | None = None
    expires_at: int | None = None

    def __repr__(self) -> str:
        return f"<Token of profile {self.profile}, serial {self.serial}, {self.state}>"


class LastError(Struct, frozen=True, omit_defaults=True):
    """The latest failure of a profile; `at` in unix seconds."""

    reason: str
    message: str
    at: int
    code: str | None = None


class SinkStatus(Struct, frozen=True, omit_defaults=True):
    """How one always-fresh file does."""

    path: str
    ok: bool
    error: str | None = None


class ProfileStatus(Struct, frozen=True, omit_defaults=True):
    """One profile as GetStatus tells it. Instants in unix seconds, spans in seconds, fingerprint: first 12 hex."""

    profile: str
    base_url: str
    store: str
    state: State
    serial: int
    failures: int
    logins_hour: int
    budget_left: int
    remembered: bool
    unchanged: bool
    subscribers: int
    sinks: tuple[SinkStatus, ...]
    fingerprint: str | None = None
    issued_at: int | None = None
    expires_at: int | None = None
    valid_for: int | None = None
    refresh_at: int | None = None
    refresh_why: str | None = None
    last_login: int | None = None
    last_error: LastError | None = None
    skew: int | None = None
    misreports: int | None = None


class Caller(Struct, frozen=True, omit_defaults=True):
    """Who asked: a uid with its unit and executable where known, and how often; `last` in unix seconds."""

    uid: int
    grants: int
    rejects: int
    last: int
    unit: str | None = None
    exe: str | None = None
    denied: int | None = None


class AgentStatus(Struct, frozen=True, omit_defaults=True):
    """The agent itself. `memory` says in words how secrets in its memory are guarded."""

    version: str
    protocol: int
    pid: int
    started_at: int
    locked: bool
    config_problems: tuple[str, ...]
    connections: int
    callers: tuple[Caller, ...]
    memory: str
    systemd: bool
    default_profile: str
    hooks: tuple[str, ...] = ()


class TokenReply(Struct, frozen=True):
    """Reply of GetToken, RejectToken and RenewToken."""

    token: Token


class StatusReply(Struct, frozen=True):
    """Reply of GetStatus."""

    agent: AgentStatus
    profiles: tuple[ProfileStatus, ...]


class StoreReply(Struct, frozen=True):
    """Reply of StoreCredential."""

    profile: ProfileStatus


class ForgetReply(Struct, frozen=True):
    """Reply of ForgetCredential: the files left because a person wrote them."""

    kept: tuple[str, ...]


class ReloadReply(Struct, frozen=True):
    """Reply of Reload: what is wrong with the new configuration; empty when it is in force."""

    problems: tuple[str, ...]
