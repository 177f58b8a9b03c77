"""Ranges as the monitoring plugin guidelines write them: `10`, `10:`, `~:10`, `10:20`, `@10:20`."""

import math
import re
from typing import Final

from msgspec import Struct

_NUMBER: Final = r"-?\d{1,12}(?:\.\d{1,6})?"
_RANGE: Final = re.compile(rf"(?P<inside>@)?(?:(?P<start>~|{_NUMBER}):)?(?P<end>{_NUMBER})?", re.ASCII)


class Range(Struct, frozen=True):
    """What is well: from `start` to `end`, both included; with `inside` (`@`) that is what is not. `text`: as given."""

    start: float
    end: float
    inside: bool
    text: str

    def alerts(self, value: float) -> bool:
        """Whether the value raises the alert."""
        return (self.start <= value <= self.end) is self.inside


def parse_range(text: str) -> Range:
    """The range that the text writes. Raises ValueError, whose words name no secret: they repeat nothing."""
    found = _RANGE.fullmatch(text)
    if found is None or text.lstrip("@") == "":
        raise ValueError("must be a range such as 600: (alert below 600), 10, ~:10, 10:20 or @10:20")
    start = 0.0 if found["start"] is None else -math.inf if found["start"] == "~" else float(found["start"])
    end = math.inf if found["end"] is None else float(found["end"])
    if start > end:
        raise ValueError("must not begin above its end")
    return Range(start, end, found["inside"] is not None, text)


def at_least(seconds: int) -> Range:
    """Alerts below so many seconds."""
    return Range(float(seconds), math.inf, False, f"{seconds}:")
