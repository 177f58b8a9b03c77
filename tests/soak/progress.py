"""What a long run tells the person who waits for it."""

import sys


def tell(what: str) -> None:
    """A line on stderr: stdout is for the figures."""
    sys.stderr.write(f"soak: {what}\n")
    sys.stderr.flush()
