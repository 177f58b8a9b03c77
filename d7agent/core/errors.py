"""What can go wrong for a caller: one class a wire error, each with what happened and what to do next."""

from typing import ClassVar

INTERFACE = "io.d7agent"
SERVICE = "org.varlink.service"


class AgentError(Exception):
    """An error a caller is told of. `message` says what happened and where, `hint` what to do next.

    `fields` holds the further parameters of the wire error, by name.
    """

    name: ClassVar[str]

    def __init__(self, message: str, hint: str = "", **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fields = fields


class NoSuchProfile(AgentError):
    """No profile of that name is configured."""

    name = f"{INTERFACE}.NoSuchProfile"


class NoCredential(AgentError):
    """The profile's store holds no credential."""

    name = f"{INTERFACE}.NoCredential"


class CredentialRejected(AgentError):
    """D7 refuses the credential or the token for good. Field: `code`, D7's own."""

    name = f"{INTERFACE}.CredentialRejected"


class TokenUnavailable(AgentError):
    """No token for now. Fields: `reason` (core.model.Reason), `retry_after` (seconds, or None)."""

    name = f"{INTERFACE}.TokenUnavailable"


class StoreUnavailable(AgentError):
    """The store cannot be read or written now. Field: `reason` (store_locked, store_missing, store_unreachable)."""

    name = f"{INTERFACE}.StoreUnavailable"


class Locked(AgentError):
    """The agent is locked by a passphrase."""

    name = f"{INTERFACE}.Locked"


class BudgetSpent(AgentError):
    """The profile's login budget is used up. Field: `retry_after` (seconds)."""

    name = f"{INTERFACE}.BudgetSpent"


class PermissionDenied(AgentError):
    """The peer may not make this call."""

    name = f"{SERVICE}.PermissionDenied"


class InvalidParameter(AgentError):
    """A parameter is missing, of the wrong type or out of range. Field: `parameter`, its name."""

    name = f"{SERVICE}.InvalidParameter"


class MethodNotFound(AgentError):
    """Field: `method`."""

    name = f"{SERVICE}.MethodNotFound"


class InterfaceNotFound(AgentError):
    """Field: `interface`."""

    name = f"{SERVICE}.InterfaceNotFound"


class ConfigError(Exception):
    """A configuration file that cannot be used; the text names file and key (and line where known)."""
