"""Logging to stderr with journald's priority prefixes (sd-daemon(3)), so that `journalctl -p warning` works."""

import logging
import sys
from typing import Final, TextIO

_PRIORITY: Final = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class Formatter(logging.Formatter):
    """One line a record. An exception is told by its type and place alone: its values may be secrets."""

    def __init__(self, *, prefixes: bool) -> None:
        super().__init__()
        self._prefixes = prefixes

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        text = record.getMessage().replace("\n", " ")
        if record.exc_info and record.exc_info[0] is not None:
            text = f"{text}: {record.exc_info[0].__name__}{_place(record)}"
        prefix = f"<{_PRIORITY.get(record.levelname, 6)}>" if self._prefixes else ""
        return f"{prefix}d7agent: {text}"


def _place(record: logging.LogRecord) -> str:
    traceback = record.exc_info[2] if record.exc_info else None
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return ""
    code = traceback.tb_frame.f_code
    return f" in {code.co_name} ({code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno})"


def start(level: str, stream: TextIO | None = None) -> None:
    """Log to `stream` (stderr) from `level` on; prefixes where no person reads along."""
    out = stream or sys.stderr
    handler = logging.StreamHandler(out)
    handler.setFormatter(Formatter(prefixes=not out.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.raiseExceptions = False  # a full disk behind stderr must not end in a traceback
