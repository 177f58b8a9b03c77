"""All rounds there are, and how what they found is shown."""

import json
from typing import Final, NamedTuple

from tests.soak import attack, fuzz, kills, refreshes, weeks
from tests.soak.broken import Figures, Round

# One line a round: its name, the option that counts it, how many in a whole run and in a quick one, and what runs it.
ROUNDS: Final = (
    Round("weeks", "weeks", 300, 30, weeks.run),
    Round("refreshes", "refreshes", 100, 10, refreshes.run),
    Round("kills", "kills", 500, 20, kills.run),
    Round("attack", "knocks", 100_000, 2_000, attack.run),
    Round("fuzz", "inputs", 10_000_000, 150_000, fuzz.run),
)


class Outcome(NamedTuple):
    """What became of one round: its figures, or what broke (`again`: the command that brings it back), or why not."""

    name: str
    seconds: float
    figures: Figures
    broken: str = ""
    again: str = ""
    skipped: str = ""


def as_table(seed: int, outcomes: list[Outcome]) -> str:
    """For people: a line a figure."""
    lines = [f"seed {seed}"]
    for outcome in outcomes:
        lines += ["", f"{outcome.name} ({outcome.seconds:.0f} s)"]
        width = max((len(name) for name in outcome.figures), default=0)
        lines += [f"  {name:<{width}}  {_shown(figure)}" for name, figure in outcome.figures.items()]
        if outcome.skipped:
            lines.append(f"  NOT RUN: {outcome.skipped}")
        if outcome.broken:
            lines += [f"  BROKEN: {outcome.broken}", f"  again: {outcome.again}"]
    broken = [outcome.name for outcome in outcomes if outcome.broken]
    return "\n".join([*lines, "", f"BROKEN: {', '.join(broken)}" if broken else "nothing broke"])


def as_json(seed: int, outcomes: list[Outcome]) -> str:
    """For machines: the same."""
    return json.dumps({"seed": seed, "rounds": [outcome._asdict() for outcome in outcomes]}, indent=2)


def _shown(figure: float | str) -> str:
    return f"{figure:,}" if isinstance(figure, int) else str(figure)
