"""Keeps OpenSSL out of the resident process, which never speaks TLS: the helper does.

asyncio and uvloop import `ssl` for its names alone, and it costs 6 MB of some 30 resident, and a fifth of the start. So
they are given a module that has the names and nothing behind them. To be imported before asyncio.
"""

import sys
from types import ModuleType


class Names(ModuleType):
    """A module in which every name is there: a constant is 0, all else an empty class (of exceptions: `…Error`)."""

    def __getattr__(self, name: str) -> type | int:
        if name.startswith("__"):
            raise AttributeError(name)
        made = 0 if name.isupper() else type(name, (OSError,) if name.endswith("Error") else (), {})
        setattr(self, name, made)
        return made


def keep_openssl_out() -> None:
    """Put the names in place, unless somebody has the real `ssl` already."""
    sys.modules.setdefault("ssl", Names("ssl", "the names of ssl, for a process that never speaks TLS"))
