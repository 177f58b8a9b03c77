"""Which proxy to go through: HTTPS_PROXY, ALL_PROXY and NO_PROXY as curl reads them.

HTTP_PROXY has no part here: plain http goes to loopback only, and loopback never through a proxy.
"""

import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from msgspec import Struct

from d7agent.core.jobs import Failed
from d7agent.core.model import Secret
from d7agent.helper.address import is_loopback
from d7agent.helper.faults import JobFault

PORTS: Final = {"http": 80, "https": 443}  # the schemes there are, with their usual ports
NAMES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


class Proxy(Struct, frozen=True):
    """A proxy. `url` has no user info; `name` is fit for messages; `login` is `user:password` or None."""

    url: str
    name: str
    login: Secret | None = None


def proxy_for(parts: SplitResult, env: Mapping[str, str]) -> Proxy | None:
    """The proxy for a base URL, None for none. Raises JobFault (connect) for a proxy that cannot be used."""
    host = parts.hostname or ""
    if is_loopback(host) or bypassed(host, parts.port or 443, env):
        return None
    chosen = next((name for name in NAMES if env.get(name)), None)
    return None if chosen is None else _parsed(chosen, env[chosen])


def bypassed(host: str, port: int, env: Mapping[str, str]) -> bool:
    """Whether NO_PROXY lists the host: `*`, a name and those below, an address, a network; each with a port or not."""
    listed = env.get("no_proxy") or env.get("NO_PROXY") or ""
    return any(_matches(entry.strip().lower(), host.lower(), port) for entry in listed.split(","))


def _matches(entry: str, host: str, port: int) -> bool:
    if entry in ("", "*"):
        return entry == "*"
    name, colon, wanted = entry.rpartition(":")
    if colon and wanted.isdigit() and (":" not in name or name.startswith("[")):
        if int(wanted) != port:
            return False
        entry = name
    entry = entry.strip("[]").lstrip(".")
    return host == entry or host.endswith(f".{entry}") or _in_network(entry, host)


def _in_network(entry: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except (ValueError, TypeError):
        return False


def _parsed(variable: str, text: str) -> Proxy:
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        usual = PORTS[parts.scheme]
        port = parts.port or usual
    except (ValueError, KeyError):
        raise _unusable(variable) from None
    if not parts.hostname:
        raise _unusable(variable)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    login = None
    if parts.username is not None:
        login = Secret(f"{unquote(parts.username)}:{unquote(parts.password or '')}")
    return Proxy(url=f"{parts.scheme}://{host}:{port}", name=f"{host}:{port}", login=login)


def _unusable(variable: str) -> JobFault:
    hint = f"set {variable} to http://HOST:PORT (SOCKS is not supported), or name D7's host in NO_PROXY"
    return JobFault(Failed("connect", f"{variable} names no proxy that can be used", hint))
