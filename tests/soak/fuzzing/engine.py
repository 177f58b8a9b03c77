"""One process of the fuzzer: python -P -m tests.soak.fuzzing.engine MODULE:TARGET [libFuzzer's arguments and folders].

A process of its own, because atheris rewrites what it imports. Prints what libFuzzer prints.
"""

import importlib
import os
import sys
from typing import Final

import atheris

# What is judged, and so what counts as covered; the rest of the package and the standard library only cost time.
MEASURED: Final = ("d7agent.wire", "d7agent.core", "d7agent.helper", "d7agent.agent.dispatch")


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    module, _, name = sys.argv.pop(1).partition(":")
    with atheris.instrument_imports(include=list(MEASURED), enable_loader_override=False):
        target = getattr(importlib.import_module(module), name)
    os.environ.clear()  # nothing of the caller's decides what happens
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
