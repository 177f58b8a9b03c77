"""What the doctor says: one finding for each thing that was looked at."""

from typing import Literal

from msgspec import Struct

Level = Literal["ok", "warn", "error"]


class Finding(Struct, frozen=True):
    """`id` names the check and stays the same from version to version; `remedy` says what to do unless all is well."""

    id: str
    level: Level
    text: str
    remedy: str = ""


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", text)


def warn(check: str, text: str, remedy: str) -> Finding:
    """It works, and not as it should."""
    return Finding(check, "warn", text, remedy)


def error(check: str, text: str, remedy: str) -> Finding:
    """It keeps tokens from being had, or makes them unsafe."""
    return Finding(check, "error", text, remedy)
