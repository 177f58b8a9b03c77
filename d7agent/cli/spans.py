"""Spans and instants as people read them."""

import datetime as dt


def span(seconds: float) -> str:
    """Two units at most: `59 min`, `2 h 5 min`, `3 d 4 h`, `12 s`."""
    left = max(0, int(seconds))
    parts: list[tuple[int, str]] = []
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append((count, name))
        if len(parts) == 2:
            break
    return " ".join(f"{count} {name}" for count, name in parts if count) or "0 s"


def instant(seconds: float) -> str:
    """Unix seconds as local date and time."""
    return dt.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def validity(valid_for: object) -> str:
    """How long a token is good, for a sentence; `valid_for` in seconds, None where the token does not say."""
    return f"good for {span(valid_for)}" if isinstance(valid_for, int) else "with no expiry of its own"
