"""Silence around the code of others: what a keyring plugin prints may be the secret, and its words end in a journal."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """While the block runs, stdout and stderr of this whole process lead nowhere, below Python as well."""
    with contextlib.ExitStack() as stack:
        for fd in (1, 2):
            kept = os.dup(fd)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, fd)
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield
