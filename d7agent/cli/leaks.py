"""Finding D7 tokens in a text: by what is in a JWT, by the name they are assigned to, by the header they are put in."""

import base64
import binascii
import json
import re
from collections.abc import Iterator
from typing import Any, Final

from msgspec import Struct

AUDIENCE: Final = "auth-backend:app"  # `aud` of the tokens that D7 issues
NEAR: Final = 12  # lines around a header in which the name of D7's host makes it D7's
LONG_LINE: Final = 64 * 1024  # characters; a minified bundle is no script that a person mends
HIDDEN: Final = "…"

JWT: Final = re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?")
_LITERAL: Final = r"[A-Za-z0-9_~+/-][A-Za-z0-9._~+/-]{15,}=*"  # RFC 6750's b64token, too long for a word
_PART: Final = "[A-Za-z0-9_]{0,40}"  # of a variable's name; without a limit a long run of letters costs its square
NAMED: Final = re.compile(
    rf"(?<![A-Za-z0-9_])(?P<name>{_PART}D7{_PART}TOKEN{_PART})['\"\]]*\s*(?:=>|:=|[=:,])\s*"
    rf"(?P<quote>['\"]?)(?P<token>{_LITERAL})(?![\w(.\[~+/=-])",
    re.IGNORECASE,
)
BEARER: Final = re.compile(rf"Authorization['\"]?\s*[:=,]\s*(?:['\"]\s*)?Bearer\s+(?P<token>{_LITERAL})", re.IGNORECASE)
PLACEHOLDER: Final = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")  # YOUR_D7_TOKEN, and names of variables
DOTTED: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+", re.ASCII)  # settings.d7.token, unless it is a JWT
HOST: Final = re.compile(r"d7networks|direct7", re.IGNORECASE)


class Leak(Struct, frozen=True):
    """A token in line `line` (from 1), `begin` to `end` of its text. `name`: the variable, where it is assigned."""

    line: int
    begin: int
    end: int
    what: str
    text: str
    name: str = ""

    def __repr__(self) -> str:
        return f"Leak(line={self.line}, what={self.what!r})"


def leaks(text: str, *, quoted: bool = False) -> Iterator[Leak]:
    """The first token of each line that has one. `quoted`: in this language a token can only be a string literal."""
    lines = text.split("\n")
    hosts = [number for number, line in enumerate(lines) if HOST.search(line[:LONG_LINE])]
    for number, line in enumerate(lines):
        if len(line) <= LONG_LINE and (leak := _leak(line, number, hosts, quoted=quoted)):
            yield leak


def _leak(line: str, number: int, hosts: list[int], *, quoted: bool) -> Leak | None:
    for named in NAMED.finditer(line):
        if _is_literal(named["token"]) and (named["quote"] or (not quoted and _is_bare(named["token"]))):
            begin, end = named.span("token")
            return Leak(number + 1, begin, end, f"a token is assigned to {named['name']}", line, named["name"])
    for found in JWT.finditer(line):
        if is_d7s(found[0]):
            return Leak(number + 1, *found.span(), "a D7 access token (a JWT for D7's API)", line)
    header = BEARER.search(line)
    if header and _is_literal(header["token"]) and any(abs(number - host) <= NEAR for host in hosts):
        return Leak(number + 1, *header.span("token"), "a token in the header of a call to D7", line)
    return None


def _is_literal(text: str) -> bool:
    """Whether it may be a token: no path, no placeholder, no word."""
    path = text.startswith(("/", "./", "../", "~/"))
    return not path and any(c.isdigit() for c in text) and not PLACEHOLDER.fullmatch(text)


def _is_bare(text: str) -> bool:
    """Whether it is a token where it stands without quotes: not the name of something that holds one."""
    return text.startswith("eyJ") or not DOTTED.fullmatch(text)


def is_d7s(token: str) -> bool:
    """Whether a JWT (of two parts or three) says that it is for D7's API."""
    try:
        part = token.split(".")[1]
        payload: Any = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return False
    audience = payload.get("aud") if isinstance(payload, dict) else None
    return AUDIENCE in audience if isinstance(audience, list) else audience == AUDIENCE


def without_tokens(text: str) -> str:
    """The text with all in it that may be a token taken out."""
    for pattern in (NAMED, BEARER):
        text = pattern.sub(lambda found: found[0].replace(found["token"], HIDDEN), text)
    return JWT.sub(HIDDEN, text)
