"""org.varlink.service: what every Varlink service says about itself, and which methods there are."""

from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from d7agent.core.errors import (
    INTERFACE,
    SERVICE,
    InterfaceNotFound,
    InvalidParameter,
    MethodNotFound,
)
from d7agent.wire.framing import decode_parameters, encode_reply

# The standard's own text (varlink.org/Service), with the error that systemd added.
STANDARD: Final = """\
# The Varlink Service Interface is provided by every varlink service. It
# describes the service and the interfaces it implements.
interface org.varlink.service

# Get a list of all the interfaces a service provides and information
# about the implementation.
method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)

# Get the description of an interface that is implemented by this service.
method GetInterfaceDescription(interface: string) -> (description: string)

# The requested interface was not found.
error InterfaceNotFound (interface: string)

# The requested method was not found
error MethodNotFound (method: string)

# The interface defines the requested method, but the service does not
# implement it.
error MethodNotImplemented (method: string)

# One of the passed parameters is invalid.
error InvalidParameter (parameter: string)

# Client is denied access
error PermissionDenied ()

# Method is expected to be called with 'more' set to true, but wasn't
error ExpectedMore ()
"""


class Info(Struct, frozen=True):
    """Reply of GetInfo."""

    vendor: str
    product: str
    version: str
    url: str
    interfaces: tuple[str, ...]


class _Which(Struct, frozen=True):
    interface: str


class _Description(Struct, frozen=True):
    description: str


_which: Final = msgspec.json.Decoder(_Which)


def interface_text() -> str:
    """The interface io.d7agent, as it ships beside this module."""
    return Path(__file__).with_name(f"{INTERFACE}.varlink").read_text(encoding="utf-8")


class Service:
    """Answers org.varlink.service and knows the methods of io.d7agent. `version`: the agent's."""

    def __init__(self, version: str) -> None:
        self._descriptions = {SERVICE: STANDARD, INTERFACE: interface_text()}
        self._version = version
        self.methods = frozenset(
            f"{INTERFACE}.{line[len('method ') :].partition('(')[0].strip()}"
            for line in self._descriptions[INTERFACE].splitlines()
            if line.startswith("method ")
        )

    def answer(self, method: str, parameters: msgspec.Raw) -> bytes | None:
        """The frame that answers this call, or None when it is one of io.d7agent's own methods.

        Raises MethodNotFound, InterfaceNotFound and InvalidParameter as the standard has them.
        """
        if method in self.methods:
            return None
        if method == f"{SERVICE}.GetInfo":
            return self._info
        if method == f"{SERVICE}.GetInterfaceDescription":
            return self._describe(decode_parameters(_which, parameters).interface)
        raise self._unknown(method)

    @cached_property
    def _info(self) -> bytes:
        info = Info("d7agent", "d7agent", self._version, "", (SERVICE, INTERFACE))
        return encode_reply(msgspec.json.encode(info))

    def _describe(self, interface: str) -> bytes:
        text = self._descriptions.get(interface)
        if text is None:
            raise self._no_interface(interface)
        return encode_reply(msgspec.json.encode(_Description(text)))

    def _unknown(self, method: str) -> InterfaceNotFound | InvalidParameter | MethodNotFound:
        interface, dot, name = method.rpartition(".")
        if not dot:
            return InvalidParameter(
                "method: a name without an interface", f"write {INTERFACE}.{name}", parameter="method"
            )
        if interface not in self._descriptions:
            return self._no_interface(interface)
        return MethodNotFound(
            f"{interface} has no method {name}",
            "GetInterfaceDescription says which methods there are; a newer client may need a newer agent",
            method=method,
        )

    def _no_interface(self, interface: str) -> InterfaceNotFound:
        known = " and ".join(sorted(self._descriptions))
        return InterfaceNotFound(f"no interface {interface}", f"this agent speaks {known}", interface=interface)
