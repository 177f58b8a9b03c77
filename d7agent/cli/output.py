"""What people and programs get to see: stdout as exact bytes, errors as two lines on stderr."""

import contextlib
import os
import sys

DEFAULT_HINT = "`d7agent status` shows how the agent does"


class Failure(Exception):
    """A command failed on its own account: what happened, what to do next, and the exit status."""

    def __init__(self, message: str, hint: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code


def out(text: str) -> None:
    """Write the text to stdout, at once and whole. Raises BrokenPipeError, or Failure where it cannot be written."""
    if sys.stdout is None:  # closed by the caller; number 1 may be a socket by now
        raise Failure("there is no standard output to write to", "do not close it: use >/dev/null")
    data = text.encode()
    try:
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Failure(
            f"cannot write to standard output: {error.strerror}", "nothing, or not all, was written"
        ) from None


def fail(message: str, hint: str, exit_code: int) -> int:
    """Tell of an error in two lines; the exit status."""
    complain(f"d7agent: error: {one_line(message)}\nd7agent: hint: {one_line(hint or DEFAULT_HINT)}")
    return exit_code


def note(message: str) -> None:
    """A line on stderr that is no error."""
    complain(f"d7agent: {one_line(message)}")


def complain(text: str) -> None:
    """Write lines to stderr; nobody there to read them is no error."""
    ask(f"{text}\n")


def ask(text: str) -> None:
    """Write to stderr and stay on the line, for a prompt: stdout may be going elsewhere."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            os.write(2, text.encode())


def one_line(text: str) -> str:
    """The text without line breaks, and without what could drive a terminal: D7's own words come through here."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def settle() -> None:
    """Flush stdout, or see to it that the interpreter does not fail at that: whoever wrote has told of the error."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        quiet()


def quiet() -> int:
    """The reader has gone: give up without a word, also at the interpreter's last flush; the exit status."""
    if sys.stdout is not None:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
    return 1


def interrupted() -> int:
    """Ctrl-C: a fresh line where a person looks on, else not a word; the exit status, as the shell counts it."""
    if sys.stderr is not None and sys.stderr.isatty():
        complain("")
    return 130
