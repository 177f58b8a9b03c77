"""What a round says when something does not hold, and what it says when all does."""

from collections.abc import Callable
from typing import NamedTuple

Figures = dict[str, int | float | str]


class Broken(AssertionError):
    """What a round has found. `again`: the arguments of scripts/soak that bring it back, where the round knows better.

    Without them the whole round has to run again with its seed.
    """

    def __init__(self, what: str, again: str = "") -> None:
        super().__init__(what)
        self.again = again


def need(fine: object, what: str) -> None:
    """Raise Broken unless it is fine."""
    if not fine:
        raise Broken(what)


class Round(NamedTuple):
    """One kind of trouble. `run(seed, count)` tells its figures, raises Broken; `counted`: the option that counts it.

    `full` and `quick`: how many, in a whole run and in a short one.
    """

    name: str
    counted: str
    full: int
    quick: int
    run: Callable[[int, int], Figures]
