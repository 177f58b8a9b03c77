"""What a round says when something does not hold, and what it says when all does."""

from collections.abc import Callable
from typing import Final, NamedTuple

Figures = dict[str, int | float | str]


class Broken(AssertionError):
    """What a round has found. The text says what, where, and what is needed to see it again beside the seed."""


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


PERCENT: Final = 100
