"""One process of the fuzzer: python -P -m tests.soak.fuzzing.engine MODULE:TARGET [libFuzzer's arguments and folders].

A process of its own, because atheris rewrites what it imports. Prints what libFuzzer prints.
"""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Final

import atheris

# What is judged, and so what counts as covered; the rest of the package and the standard library only cost time.
MEASURED: Final = (
    *("d7agent.wire", "d7agent.core", "d7agent.helper", "d7agent.agent.dispatch"),
    "tests.soak.fuzzing.planted",
)


BY_CHANCE: Final = 2  # of three inputs are libFuzzer's own; the third gets a part put in where one may begin


def mutator(starts: bytes, parts: tuple[bytes, ...]) -> Callable[[bytes, int, int], bytes]:
    """Puts one of `parts` behind one of the bytes `starts`: bytes changed by chance seldom make one that is read."""

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        if not data or seed % 3 < BY_CHANCE:
            changed: bytes = atheris.Mutate(data, max_size)
            return changed
        start = starts[seed // 3 % len(starts)]
        at = data.find(start, seed // 7 % len(data)) + 1 or data.find(start) + 1
        return (data[:at] + parts[seed // 11 % len(parts)] + data[at:])[:max_size]

    return mutate


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    module, _, name = sys.argv.pop(1).partition(":")
    with atheris.instrument_imports(include=list(MEASURED), enable_loader_override=False):
        target = getattr(importlib.import_module(module), name)
    os.environ.clear()  # nothing of the caller's decides what happens
    atheris.Setup(sys.argv, target, custom_mutator=mutator(target.starts, target.parts))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
