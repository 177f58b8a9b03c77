"""Cleaning what people paste: stray blanks, quotes, a leading `Bearer`; what then still cannot be valid is refused."""

import unicodedata
from typing import Final

from d7agent.core.model import MAX_ACCESS_TOKEN, Secret
from d7agent.helper.faults import Invalid

MAX_CREDENTIAL: Final = MAX_ACCESS_TOKEN  # bytes; D7's are some 40 characters long, so more is a whole file pasted
QUOTES: Final = {
    '"': '"',
    "'": "'",
    "`": "`",
    "“": "”",
    "„": "“",
    "\u2018": "\u2019",
}  # as typed, and as word processors turn them
BLANKS: Final = " \t\r\n\v\f\u00a0\u200b\u2060\ufeff"  # with those that web pages and byte order marks leave behind
UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"})  # Unicode categories of what nobody types


def cleaned(name: str, text: str) -> str:
    """A client id or secret without what pasting added. Raises Invalid, which names the parameter, never its value."""
    return _checked(name, _unwrapped(text))


def cleaned_token(name: str, text: str) -> Secret:
    """An access token without what pasting added, a leading `Bearer` included. Raises Invalid."""
    bare = _unwrapped(text)
    if bare[:6].lower() == "bearer" and not bare[6:7].strip():
        bare = _unwrapped(bare[6:])
    checked = _checked(name, bare)
    if not is_token(checked):
        raise Invalid(name, f"{name} has characters that no access token has", "copy it again, whole and alone")
    return Secret(checked)


def is_token(text: str) -> bool:
    """Whether this can be an access token: 1 byte to 16 KiB of visible ASCII, which is what fits a header line."""
    return 0 < len(text) <= MAX_ACCESS_TOKEN and text.isascii() and text.isprintable() and " " not in text


def _unwrapped(text: str) -> str:
    while True:
        bare = text.strip(BLANKS)
        if len(bare) >= 2 and QUOTES.get(bare[0]) == bare[-1]:
            bare = bare[1:-1]
        if bare == text:
            return bare
        text = bare


def _checked(name: str, text: str) -> str:
    if not text:
        raise Invalid(name, f"{name} is empty", "D7's control panel shows it under the application")
    if any(unicodedata.category(sign) in UNSEEN for sign in text):
        raise Invalid(name, f"{name} has control characters in it", "copy it again, without the lines around it")
    if len(text.encode()) > MAX_CREDENTIAL:
        raise Invalid(name, f"{name} is longer than {MAX_CREDENTIAL} bytes", "copy the value alone, not the whole file")
    return text
