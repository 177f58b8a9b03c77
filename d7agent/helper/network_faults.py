"""What kept an HTTP exchange from its end, sorted by the deepest cause that names itself."""

import os
import socket
import ssl
import zlib
from collections.abc import Iterator
from http.client import HTTPException, IncompleteRead
from typing import Final

from msgspec import Struct
from urllib3 import exceptions as http

from d7agent.core.jobs import CONNECT_LIMIT, Failed
from d7agent.helper.answers import LATER_HINT, PROXY_HINT
from d7agent.helper.faults import plain

EXPIRED: Final = frozenset({9, 10})  # X509_V_ERR_CERT_NOT_YET_VALID, _HAS_EXPIRED (openssl x509_vfy.h)
UNKNOWN_CA: Final = frozenset({2, 18, 19, 20, 21})  # _UNABLE_TO_GET_ISSUER_CERT and its kin
DNS_HINT: Final = "check the network and /etc/resolv.conf; behind a proxy set HTTPS_PROXY for the agent"
CONNECT_HINT: Final = "check the network, the firewall and base_url; behind a proxy set HTTPS_PROXY for the agent"


class Route(Struct, frozen=True):
    """Where the exchange was going: D7's host and, if there is one, the proxy as `host:port`."""

    host: str
    proxy: str | None = None

    @property
    def first(self) -> str:
        """Who is connected to first."""
        return f"the proxy {self.proxy}" if self.proxy else self.host


def sorted_fault(error: BaseException, route: Route) -> Failed:
    """The reply for an exception out of urllib3 and below."""
    causes = list(_causes(error))
    for sort in (_dns, _tls, _tunnel, _connect, _timeout, _broken):
        if failed := sort(causes, route):
            return failed
    kinds = " from ".join(type(cause).__name__ for cause in causes)
    return Failed("connect", f"the exchange with {route.host} failed: {kinds}", CONNECT_HINT)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception and all it came from, the outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        deeper = getattr(error, "original_error", None) or error.__cause__ or error.__context__
        if deeper is None:
            deeper = next((part for part in error.args if isinstance(part, BaseException)), None)
        error = deeper


def _dns(causes: list[BaseException], route: Route) -> Failed | None:
    for cause in causes:
        if isinstance(cause, socket.gaierror | UnicodeError | http.LocationParseError):
            why = f": {cause.strerror}" if isinstance(cause, socket.gaierror) and cause.strerror else ""
            return Failed("dns", f"the name of {route.first} could not be resolved{why}", DNS_HINT)
    return None


def _tls(causes: list[BaseException], route: Route) -> Failed | None:
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            words = f"the certificate of {route.host} is not trusted: {plain(cause.verify_message)}"
            return Failed("tls", words, _certificate_hint(cause.verify_code))
        if isinstance(cause, ssl.SSLError):
            words = f"TLS with {route.host} failed: {plain(cause.reason or type(cause).__name__)}"
            return Failed("tls", words, "check base_url and its port: something there does not speak the TLS we do")
    return None


def _certificate_hint(code: int) -> str:
    if code in EXPIRED:
        return (
            "check this machine's clock (date -u); if it is right, the certificate has to be renewed at the other end"
        )
    if code not in UNKNOWN_CA:
        return "check the host in base_url: the certificate is for another one"
    if (path := os.environ.get("SSL_CERT_FILE")) and not os.access(path, os.R_OK):
        return f"SSL_CERT_FILE names {path}, which cannot be read"
    return "install the CA (package ca-certificates), or set SSL_CERT_FILE to a PEM file that holds it, for the agent"


def _tunnel(causes: list[BaseException], route: Route) -> Failed | None:
    for cause in causes:
        if type(cause) is OSError and str(cause).startswith("Tunnel connection failed"):
            words = plain(str(cause).partition(":")[2])
            return Failed(
                "connect",
                f"{route.first} refused a tunnel to {route.host}: {words}",
                "check HTTPS_PROXY (user and password go into its URL) and what the proxy allows",
            )
    return None


def _timeout(causes: list[BaseException], route: Route) -> Failed | None:
    if any(isinstance(cause, http.ConnectTimeoutError) for cause in causes):
        words = f"no connection to {route.first} within {CONNECT_LIMIT:g} s"
        return Failed("timeout", words, CONNECT_HINT)
    if any(isinstance(cause, http.TimeoutError | TimeoutError) for cause in causes):
        return Failed("timeout", f"{route.host} did not answer in time", LATER_HINT)
    return None


def _connect(causes: list[BaseException], route: Route) -> Failed | None:
    if not any(isinstance(cause, http.NewConnectionError) for cause in causes):
        return None
    why = next((cause.strerror for cause in reversed(causes) if isinstance(cause, OSError) and cause.strerror), "")
    return Failed("connect", f"{route.first} cannot be connected to: {plain(why) or 'no reason given'}", CONNECT_HINT)


def _broken(causes: list[BaseException], route: Route) -> Failed | None:
    """The connection stood, and what came over it is no whole HTTP answer."""
    if any(isinstance(cause, IncompleteRead | http.IncompleteRead) for cause in causes):
        return Failed("bad_reply", f"the answer of {route.host} broke off", LATER_HINT)
    if any(isinstance(cause, zlib.error) for cause in causes):
        return Failed("bad_reply", f"the answer of {route.host} cannot be decompressed", PROXY_HINT)
    if any(isinstance(cause, ConnectionError) for cause in causes):
        return Failed("connect", f"{route.host} closed the connection without an answer", LATER_HINT)
    if any(isinstance(cause, HTTPException | http.HTTPError) for cause in causes):
        return Failed("bad_reply", f"what {route.host} answered is not HTTP", PROXY_HINT)
    return None
