"""The forms in which a token is written down, byte for byte, each with one newline at its end.

They are made in buffers of ours that the caller wipes: no copy of the token is left in memory that Python gives back.
"""

import re
from typing import Final

from msgspec import Struct

from d7agent.core.config import SinkFormat

# RFC 6750 section 2.1 (b64token), less a leading tilde: what no shell, systemd or docker reads as anything but itself.
PLAIN: Final = re.compile(r"[A-Za-z0-9._+/=-][A-Za-z0-9._~+/=-]*")

# What stands before and after the token, and whether quotation marks and backslashes in it are escaped. Tokens are
# visible ASCII, of which JSON (RFC 8259) and curl's config files escape just these two, in the same way.
_HEADERS: Final[dict[str, tuple[bytes, bytes, bool]]] = {
    "token": (b"", b"\n", False),
    "header": (b"Authorization: Bearer ", b"\n", False),
    "value": (b"Bearer ", b"\n", False),
    "curl": (b'header = "Authorization: Bearer ', b'"\n', True),
    "json": (b'{"Authorization":"Bearer ', b'"}\n', True),
}
HEADER_FORMS: Final = tuple(_HEADERS)
_ESCAPED: Final = frozenset({ord('"'), ord("\\")})


class Unfit(ValueError):
    """The token cannot be written in this form."""


class Facts(Struct, frozen=True):
    """What stands beside the token in an `env` or `json` sink: `use_before` in seconds on the boot clock."""

    profile: str
    boot_id: str
    use_before: int


def header_form(form: str, token: str) -> bytearray:
    """The line of `d7agent token` or `header --format FORM`: one of HEADER_FORMS."""
    before, after, escaped = _HEADERS[form]
    return _joined(before, token, after, escaped=escaped)


def sink_form(form: SinkFormat, token: str, facts: Facts) -> bytearray:
    """The whole content of a sink. Raises Unfit where `env` cannot hold the token as it is."""
    if form == "env":
        if not PLAIN.fullmatch(token):
            raise Unfit("the token has characters that a shell would read as code")
        after = f"\nD7_TOKEN_BOOT_ID={facts.boot_id}\nD7_TOKEN_USE_BEFORE={facts.use_before}\n"
        return _joined(b"D7_API_TOKEN=", token, after.encode(), escaped=False)
    if form == "json":
        after = f'","D7_TOKEN_BOOT_ID":"{facts.boot_id}","D7_TOKEN_USE_BEFORE":{facts.use_before},'
        return _joined(b'{"D7_API_TOKEN":"', token, f'{after}"profile":"{facts.profile}"}}\n'.encode(), escaped=True)
    return header_form(form, token)


def wipe(buffer: bytearray) -> None:
    """Overwrite the content; the length stays."""
    buffer[:] = bytes(len(buffer))


def _joined(before: bytes, token: str, after: bytes, *, escaped: bool) -> bytearray:
    """Sign by sign into a buffer of the final size: one that grew, or an encoded string, would leave copies behind."""
    extra = sum(map(token.count, '"\\')) if escaped else 0
    buffer = bytearray(len(before) + len(token) + extra + len(after))
    buffer[: len(before)] = before
    place = len(before)
    for sign in map(ord, token):
        if escaped and sign in _ESCAPED:
            buffer[place] = ord("\\")
            place += 1
        buffer[place] = sign
        place += 1
    buffer[place:] = after
    return buffer
