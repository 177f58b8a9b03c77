"""What the agent writes to its journal, and what it never writes."""

import io
import logging
from collections.abc import Iterator

import pytest

from d7agent.agent import journal


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    out = io.StringIO()
    journal.start("debug", out)
    yield out
    root.handlers[:], level = before
    root.setLevel(level)


@pytest.mark.parametrize(("level", "prefix"), [("debug", "<7>"), ("info", "<6>"), ("warning", "<4>"), ("error", "<3>")])
def test_lines_have_journald_priorities(stream: io.StringIO, level: str, prefix: str) -> None:
    """Each line begins with the priority that journald understands (sd-daemon(3))."""
    getattr(logging.getLogger("d7agent.test"), level)("it happened")
    assert stream.getvalue() == f"{prefix}d7agent: it happened\n"


def test_a_record_is_one_line(stream: io.StringIO) -> None:
    """A text with line ends cannot fake a second record."""
    logging.getLogger("d7agent.test").info("one\n<3>d7agent: two")
    assert stream.getvalue().count("\n") == 1


def test_exceptions_are_told_without_their_values(stream: io.StringIO) -> None:
    """An exception is told by type and place; its message and the traceback may hold secrets."""
    try:
        raise ValueError("s3cret")
    except ValueError:
        logging.getLogger("d7agent.test").exception("unexpected")
    assert "ValueError in test_exceptions_are_told" in stream.getvalue()
    assert "s3cret" not in stream.getvalue()
