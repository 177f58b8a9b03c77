"""How a job fails: exceptions that carry the reply. What they say is for people, and never holds a secret."""

import unicodedata
from typing import Final

from d7agent.core.jobs import Failed

MAX_TEXT: Final = 300  # characters of another program's words in a message; more does not fit a log line


class JobFault(Exception):
    """The job ends with `failed`."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.reason)
        self.failed = failed


class StoreLocked(JobFault):
    """The store works, and a person has to unlock it."""

    def __init__(self, message: str, hint: str = "unlock your keyring; the agent then goes on by itself") -> None:
        super().__init__(Failed("store_locked", message, hint))


class StoreMissing(JobFault):
    """The store works, and what it holds is no credential."""

    def __init__(self, message: str, hint: str = "run: d7agent login") -> None:
        super().__init__(Failed("store_missing", message, hint, missing=True))


class StoreUnreachable(JobFault):
    """The store cannot be read or written now."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(Failed("store_unreachable", message, hint))


class Invalid(JobFault):
    """A parameter (`name`, as the caller wrote it) that cannot be valid, whatever the store or D7 say."""

    def __init__(self, name: str, message: str, hint: str = "") -> None:
        super().__init__(Failed("refused", message, hint, permanent=True, invalid=name))


def plain(text: str, *secrets: str) -> str:
    """Another program's words made fit for a message: one line, no control characters, short, no `secrets`."""
    for secret in secrets:
        if len(secret) >= 4:  # shorter ones hide nothing and would eat ordinary words
            text = text.replace(secret, "…")
    visible = "".join(" " if unicodedata.category(sign)[0] in "CZ" else sign for sign in text)
    line = " ".join(visible.split())
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"
