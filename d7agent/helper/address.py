"""The base URL: checked before a secret goes anywhere near it."""

import ipaddress
from typing import Final
from urllib.parse import SplitResult, urlsplit

from d7agent.helper.faults import Invalid

EXAMPLE: Final = "it looks like https://api.d7networks.com"


def base_url(text: str) -> SplitResult:
    """The parts of a usable base URL, its path without a slash at the end.

    Raises Invalid: https with a host is asked for (plain http only to loopback), and no user info, query or fragment,
    none of which has a place in a URL that paths are added to.
    """
    try:
        parts = urlsplit(text)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        raise _invalid("is no URL") from None
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise _invalid("has characters that no URL has")
    if parts.scheme not in ("https", "http") or not parts.hostname or not port_ok:
        raise _invalid("is no https URL with a host")
    if "@" in parts.netloc:
        raise _invalid("has a user name or password in it")
    if "?" in text or "#" in text:
        raise _invalid("has a query or a fragment")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise _invalid("is plain http to another machine, which would show the secret to everyone on the way")
    return parts._replace(path=parts.path.rstrip("/"))


def is_loopback(host: str) -> bool:
    """Whether this host can only be this machine: localhost (RFC 6761), 127.0.0.0/8, ::1."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _invalid(why: str) -> Invalid:
    return Invalid("base_url", f"the base URL {why}", EXAMPLE)
