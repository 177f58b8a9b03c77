"""Weeks on the fake clock, each with a seed of its own: tests.support.week holds what has to hold in one of them."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Final, NamedTuple

from tests.soak.broken import Broken, Figures
from tests.soak.progress import tell
from tests.support.week import DAY, Week

WORTH_IT: Final = 20  # weeks from which on further processes save more than their start costs
TOLD_EVERY: Final = 50
SPAWN: Final = multiprocessing.get_context("spawn")  # a fork would inherit the threads of other rounds


class Ran(NamedTuple):
    """How one week went. `broken`: what did not hold, "" for nothing."""

    seed: int
    broken: str
    logins: int
    events: int
    outage: float


def one(seed: int) -> Ran:
    """One week."""
    week, broken = Week(seed), ""
    try:
        week.run(7 * DAY)
        week.end()
    except AssertionError as error:
        broken = f"{str(error) or type(error).__name__} at {week.rig.clock.true:.3f} s"
    return Ran(seed, broken, week.rig.logins, week.rig.events, week.rig.longest_outage)


def run(seed: int, count: int) -> Figures:
    """So many weeks: the first has `seed`, the others the numbers after it."""
    ran = list[Ran]()
    with _everywhere(range(seed, seed + count)) as weeks:
        for week in weeks:
            if week.broken:
                raise Broken(
                    f"the week of seed {week.seed}: {week.broken}", f"--only weeks --weeks 1 --seed {week.seed}"
                )
            ran.append(week)
            if len(ran) % TOLD_EVERY == 0:
                tell(f"weeks: {len(ran)} of {count}")
    return {
        "weeks": len(ran),
        "events": sum(week.events for week in ran),
        "logins": sum(week.logins for week in ran),
        "longest outage that ended by itself, s": round(max(week.outage for week in ran), 1),
    }


@contextmanager
def _everywhere(seeds: range) -> Iterator[Iterator[Ran]]:
    """On all processors where that pays."""
    processes = len(os.sched_getaffinity(0))
    if len(seeds) < WORTH_IT or processes == 1:
        yield map(one, seeds)
        return
    with ProcessPoolExecutor(processes, mp_context=SPAWN) as pool:
        yield pool.map(one, seeds, chunksize=5)
