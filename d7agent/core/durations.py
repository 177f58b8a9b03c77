"""Spans of time as people write them: "12h", "1h30m", "90s", "1d", or plain seconds."""

import re
from typing import Final

_UNITS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_SPAN: Final = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
_PLAIN: Final = re.compile(r"\d{1,9}", re.ASCII)


def parse_duration(value: str | int) -> int:
    """Seconds. Units from large to small, each at most once; a bare number is seconds. Raises ValueError."""
    text = str(value).strip()
    if _PLAIN.fullmatch(text):
        return int(text)
    found = _SPAN.fullmatch(text)
    if not text or found is None:
        raise ValueError('must be a span of time such as "12h", "30m", "90s", "1d" or a number of seconds')
    return sum(int(count) * size for count, size in zip(found.groups(default="0"), _UNITS.values(), strict=True))


def format_duration(seconds: int) -> str:
    """The shortest text that `parse_duration` reads back as `seconds` (0 or more)."""
    parts = []
    for unit, size in _UNITS.items():
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
