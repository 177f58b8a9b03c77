"""Spans of time as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d7agent.core.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12h", 43_200),
        ("30m", 1_800),
        ("90s", 90),
        ("1d", 86_400),
        ("1h30m", 5_400),
        (3600, 3_600),
        ("60", 60),
        ("0s", 0),
    ],
)
def test_spans_are_read(text: str | int, seconds: int) -> None:
    """Each unit, several of them, and a bare number of seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "h", "1w", "-1h", "1.5h", "1m1h", "1h1h", "1 h", "\uff11h", -5, "1e3", "9" * 400]
)
def test_anything_else_is_refused(text: str | int) -> None:
    """No sign, no fraction, no other unit, no wrong order, no other digits."""
    with pytest.raises(ValueError, match="span of time"):
        parse_duration(text)


@given(st.integers(0, 400 * 86_400))
def test_what_is_written_is_read_back(seconds: int) -> None:
    """Formatting and parsing are each other's inverse."""
    assert parse_duration(format_duration(seconds)) == seconds
