"""d7agent: one process holds the D7 credential, every local program gets a valid access token.

Two lines are enough for a program::

    import d7agent
    headers = d7agent.header()

Importing this package imports nothing else; `token`, `header` and `Token` come from `d7agent.client` when first used.
"""

__version__ = "0.1.0"
__all__ = ["Token", "__version__", "header", "token"]

# For type checkers only: `typing` itself is not worth importing here, and they take this name for what typing calls it.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from d7agent.client import Token, header, token


def __getattr__(name: str) -> object:
    """Fetch a public name from `d7agent.client` when it is first used; AttributeError for any other."""
    if name not in ("Token", "header", "token"):
        raise AttributeError(f"module 'd7agent' has no attribute {name!r}")
    from d7agent import client

    value: object = getattr(client, name)
    globals()[name] = value
    return value
