"""Overwrites strings and bytes in place: CPython would leave them readable in memory that it has freed.

A help, no promise: what the interpreter copies on its own is out of reach. `agent.shred` looks for that.
"""

import sys
from typing import Final

_CPYTHON: Final = sys.implementation.name == "cpython"
_BYTES_AT: Final = sys.getsizeof(b"") - 1  # where the content of a bytes object begins; one NUL ends it
_TEXT_AT: Final = sys.getsizeof("") - 1  # and that of a string of ASCII characters alone


def _alone() -> int:
    """What sys.getrefcount says of an object that one local variable holds; it differs between versions."""
    probe = [bytes(64)]
    value = probe.pop()
    return sys.getrefcount(value)


_ALONE: Final = _alone()


def wipe(held: list[str] | list[bytes]) -> None:
    """Overwrite what is in the list and empty it. What anybody else still holds is left as it is, and so is not ASCII.

    Hand over the only reference: `wipe([text])` after `del text` cannot be written, so make the text in the list.
    """
    while held:
        value = held.pop()
        if _CPYTHON and not sys.is_finalizing() and value and value.isascii() and sys.getrefcount(value) == _ALONE:
            _overwrite(id(value) + (_BYTES_AT if isinstance(value, bytes) else _TEXT_AT), len(value))


def _overwrite(address: int, size: int) -> None:
    import ctypes  # 3 ms, which those who never hold a secret need not pay; too late for it when Python ends

    ctypes.memset(address, 0, size)
