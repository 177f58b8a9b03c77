"""How secrets get in: from a terminal without an echo, from stdin, never from the command line."""

import contextlib
import getpass
import sys
import warnings
from typing import Final

from d7agent.cli import output
from d7agent.cli.output import Failure

MAX_SECRET: Final = 16 * 1024  # bytes; the wire's limit for a token
MAX_INPUT: Final = 64 * 1024  # bytes read from stdin


def hidden(question: str) -> str:
    """A line typed on the terminal and not shown. Raises Failure when there is no terminal, or its echo stays on."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)
            return getpass.getpass(f"{question}: ")
    except getpass.GetPassWarning:
        raise Failure(
            "there is no terminal to ask on without showing what is typed", "pipe it in and add --stdin", 2
        ) from None
    except EOFError:
        raise Failure("nothing was entered", "try again, or pipe it in and add --stdin", 2) from None


def shown(question: str) -> str:
    """A line typed on the terminal. Raises Failure when none comes."""
    output.ask(f"{question}: ")
    line = sys.stdin.readline()
    if not line:
        raise Failure("nothing was entered", "try again, or pipe it in and add --stdin", 2)
    return line.rstrip("\n")


def need_terminal() -> None:
    """Raises Failure when stdin is no terminal to ask on."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise Failure("there is no terminal to ask on", "pipe the secret in and add --stdin", 2)


def piped_lines(what: str) -> list[str]:
    """The lines of stdin that are not blank. Raises Failure when there is nothing, too much, or no text."""
    if sys.stdin is None:
        raise Failure(f"there is no standard input to read {what} from", "pipe it in", 2)
    data = sys.stdin.buffer.read(MAX_INPUT + 1)
    if len(data) > MAX_INPUT:
        raise Failure(f"stdin holds more than {MAX_INPUT} bytes: that is not {what}", "pipe in nothing but that", 2)
    lines: list[str] = []
    with contextlib.suppress(UnicodeDecodeError):
        lines = [line for line in data.decode().splitlines() if line.strip()]
    if not lines:
        raise Failure(f"stdin holds no text: {what} was to come from there", "pipe it in", 2)
    return lines


def clean(secret: str, what: str) -> str:
    """A pasted secret without stray blanks, quotes, header name and `Bearer`. Raises Failure if that is no secret.

    Nothing of the secret is in the error.
    """
    text = secret.strip()
    for mark in ('"', "'"):
        if len(text) > 1 and text.startswith(mark) and text.endswith(mark):
            text = text[1:-1].strip()
    for prefix in ("authorization:", "bearer "):
        if text.lower().startswith(prefix):
            text = text[len(prefix) :].strip()
    if not text:
        raise Failure(f"the {what} is empty", "copy it again from D7's control panel", 2)
    if not text.isprintable():
        raise Failure(f"the {what} holds control characters", "copy it again from D7's control panel", 2)
    if len(text.encode()) > MAX_SECRET:
        raise Failure(f"the {what} is longer than {MAX_SECRET} bytes", "copy it again from D7's control panel", 2)
    return text
