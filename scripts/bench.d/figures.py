"""What was measured, and how: rounds in which all contenders take turns, medians, quartiles, ratios."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """The median of some rounds, with the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Figure":
        """The figure of at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Row:
    """One line of the table: our figure, a peer's, their ratio round by round, and the bar it has to keep.

    Without a peer the bar is one for our own figure. `at_least`: the bar is a floor, else it is a ceiling.
    """

    group: str
    what: str
    unit: str
    ours: Figure
    peer: str = ""
    theirs: Figure | None = None
    ratio: Figure | None = None
    bar: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the bar is kept; None where there is none."""
        if self.bar is None:
            return None
        value = (self.ratio or self.ours).median
        return value >= self.bar if self.at_least else value <= self.bar


@dataclass
class Report:
    """All rows of a run, and what was left out of it."""

    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    broken: bool = False

    def alone(self, group: str, what: str, unit: str, values: Sequence[float], bar: float | None = None) -> None:
        """A figure of ours that nobody else has."""
        self.rows.append(Row(group, what, unit, Figure.of(values), bar=bar))

    def beside(
        self,
        group: str,
        what: str,
        unit: str,
        rounds: "dict[str, list[float]]",
        bars: "dict[str, float] | None" = None,
        *,
        at_least: bool = False,
    ) -> None:
        """A row for each peer; the first of `rounds` is ours. `bars`: what our ratio to a peer has to keep."""
        bars = bars or {}
        (_, ours), *peers = rounds.items()
        if not peers:
            self.alone(group, what, unit, ours)
        for peer, theirs in peers:
            ratio = Figure.of([our / their for our, their in zip(ours, theirs, strict=False)])
            row = Row(group, what, unit, Figure.of(ours[: len(theirs)]), peer, Figure.of(theirs), ratio)
            self.rows.append(Row(**{**vars(row), "bar": bars.get(peer), "at_least": at_least}))

    def failed(self, group: str, why: str) -> None:
        """A group broke off: the bench goes on, and is no success."""
        self.broken = True
        self.without(f"the rest of `{group}`", f"it FAILED: {why}")

    def without(self, what: str, why: str) -> None:
        """Something could not be measured here."""
        self.left_out.append(f"{what}: {why}")


def in_turns(rounds: int, contenders: "dict[str, Callable[[], float]]") -> dict[str, list[float]]:
    """Run all contenders once a round, each round beginning with another one."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found[name].append(contenders[name]())
    return found
