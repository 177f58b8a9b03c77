"""Runs the long rounds: see scripts/soak."""

import argparse
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from d7agent.client.blocking import AgentError
from tests.soak import fuzz
from tests.soak.broken import Broken, Figures, Round
from tests.soak.progress import tell
from tests.soak.table import ROUNDS, Outcome, as_json, as_table

SEEDS: Final = 2**31  # what libFuzzer takes
FAULTS: Final = (AssertionError, AgentError, OSError, TimeoutError, LookupError, ValueError, subprocess.SubprocessError)


def main() -> int:
    """0 if nothing broke, else 1."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what we started ends with us
    parser = _parser()
    given = parser.parse_args()
    seed = secrets.randbelow(SEEDS) if given.seed is None else given.seed
    if given.replay is not None:
        outcomes = [_replayed(given.replay)]
    else:
        outcomes = [_ran(one, seed, _count(one, given)) for one in _chosen(parser, given.only)]
    print_ = as_json if given.json else as_table
    sys.stdout.write(print_(seed, outcomes) + "\n")
    return int(any(outcome.broken for outcome in outcomes))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/soak", description="everything that runs long, with a seed")
    parser.add_argument("--seed", type=int, metavar="N", help="repeat a run (default: a new one, which is printed)")
    parser.add_argument("--only", metavar="NAME[,NAME...]", help=f"some of: {' '.join(one.name for one in ROUNDS)}")
    parser.add_argument("--quick", action="store_true", help="a short round of each, some two minutes")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="one input that the fuzzer has found, once more")
    for one in ROUNDS:
        about = f"how many, for {one.name} (default: {one.full})"
        parser.add_argument(f"--{one.counted}", type=_positive, metavar="N", help=about)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _chosen(parser: argparse.ArgumentParser, only: str | None) -> list[Round]:
    names = [one.name for one in ROUNDS]
    wanted = names if only is None else only.split(",")
    if unknown := sorted(set(wanted) - set(names)):
        parser.error(f"no such round: {' '.join(unknown)} (there are: {' '.join(names)})")
    return [one for one in ROUNDS if one.name in wanted]


def _count(one: Round, given: argparse.Namespace) -> int:
    count: int | None = getattr(given, one.counted)
    return count or (one.quick if given.quick else one.full)


def _ran(one: Round, seed: int, count: int) -> Outcome:
    tell(f"{one.name}: {count} {one.counted}, seed {seed} ...")
    began = time.monotonic()
    figures: Figures = {}
    broken = again = skipped = ""
    try:
        figures = one.run(seed, count)
    except pytest.skip.Exception as reason:
        skipped = str(reason)
    except FAULTS as error:
        broken = str(error) if isinstance(error, Broken) else f"{type(error).__name__}: {error}"
        again = (
            isinstance(error, Broken) and error.again
        ) or f"--only {one.name} --{one.counted} {count} --seed {seed}"
        tell(f"{one.name}: BROKEN: {broken}")
    return Outcome(one.name, time.monotonic() - began, figures, broken, again and f"scripts/soak {again}", skipped)


def _replayed(path: Path) -> Outcome:
    """A crash is shown as Python shows it: that is what a replay is for."""
    began = time.monotonic()
    return Outcome("replay", time.monotonic() - began, fuzz.replay(path))


if __name__ == "__main__":
    sys.exit(main())
