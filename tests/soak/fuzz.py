"""Coverage-guided fuzzing of everything that reads what others wrote: peers, D7, helpers, people."""

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from tests.soak.broken import Broken, Figures
from tests.soak.progress import tell

CORPUS: Final = Path(__file__).with_name("corpus")
ENGINE: Final = (sys.executable, "-P", "-m", "tests.soak.fuzzing.engine")
MOST_PROCESSES: Final = 8
MAX_LEN: Final = 400  # bytes of an input: long enough for any call, short enough for thousands a second
HANGS: Final = 20  # seconds for one input, after which it counts as a hang; a busy machine needs a hundredth
MEMORY: Final = 1024  # MiB, after which a process counts as leaking; one has some 60
SHOWN: Final = 300  # bytes of a found input that are printed
DONE: Final = re.compile(r"^Done (\d+) runs in (\d+) second", re.MULTILINE)
COVERED: Final = re.compile(r"^#\d+\s+DONE\s+cov: (\d+) ft: (\d+)", re.MULTILINE)


class Target(NamedTuple):
    """A function that takes any bytes, `MODULE:NAME`; its seeds' folder below corpus/; its share of all inputs."""

    function: str
    seeds: str
    share: float


# Most of the time goes to what anybody may send to; a file of settings is slow to read, and written by friends.
TARGETS: Final = {
    "wire": Target("tests.soak.fuzzing.wire:one_input", "wire", 0.60),
    "answers": Target("tests.soak.fuzzing.answers:one_input", "answers", 0.38),
    "settings": Target("tests.soak.fuzzing.settings:one_input", "settings", 0.02),
}


class Job(NamedTuple):
    """One process."""

    name: str
    target: Target
    runs: int
    seed: int


class Ran(NamedTuple):
    """What one process did: inputs, and edges of the code covered (None: it did not live to tell)."""

    name: str
    inputs: int
    edges: int


def run(seed: int, count: int, targets: Mapping[str, Target] = TARGETS) -> Figures:
    """So many inputs in all, new ones where there is atheris for this Python; the corpus in any case."""
    figures: Figures = {"seeds replayed": sum(replay_corpus(target) for target in targets.values())}
    if importlib.util.find_spec("atheris") is None:
        return figures | {"inputs fuzzed": "NONE: there is no atheris for this Python"}
    processes = min(MOST_PROCESSES, len(os.sched_getaffinity(0)))
    scratch = Path(tempfile.mkdtemp(prefix="d7agent-fuzz-"))
    began = time.monotonic()
    running: list[subprocess.Popen[bytes]] = []
    with ThreadPoolExecutor(processes) as pool:
        try:
            ran = list(pool.map(lambda job: _fuzz(job, scratch, running), _jobs(seed, count, targets, processes)))
        except BaseException:  # one has found something, or we are told to end
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.kill()
            raise
    shutil.rmtree(scratch)  # kept where something was found
    return figures | _figures(ran, time.monotonic() - began)


def _jobs(seed: int, count: int, targets: Mapping[str, Target], processes: int) -> list[Job]:
    """Each target in as many processes as there are processors, each with a seed of its own."""
    return [
        Job(name, target, max(1, round(count * target.share / processes)), (seed + number) % 2**31 + 1)
        for name, target in targets.items()
        for number in range(processes)
    ]


def _figures(ran: list[Ran], seconds: float) -> Figures:
    inputs = sum(one.inputs for one in ran)
    figures: Figures = {"inputs fuzzed": inputs, "inputs a second": round(inputs / max(seconds, 0.001))}
    for name in dict.fromkeys(one.name for one in ran):
        mine = [one for one in ran if one.name == name]
        figures[f"{name}: inputs"] = sum(one.inputs for one in mine)
        figures[f"{name}: edges covered"] = max(one.edges for one in mine)
    return figures


def _fuzz(job: Job, scratch: Path, running: "list[subprocess.Popen[bytes]]") -> Ran:
    folder = scratch / f"{job.name}-{job.seed}"
    folder.mkdir()
    log = folder.with_suffix(".log")
    with log.open("wb") as out:
        process = subprocess.Popen(_argv(job, folder), stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    running.append(process)
    status = process.wait()
    text = log.read_text(errors="replace")
    found = DONE.search(text)
    if status or found is None:
        raise _found(folder, log, text)
    covered = COVERED.search(text)
    tell(f"fuzz: {job.name} (seed {job.seed}): {found[1]} inputs in {found[2]} s")
    return Ran(job.name, int(found[1]), int(covered[1]) if covered else 0)


def _argv(job: Job, folder: Path) -> list[str]:
    seeds = CORPUS / job.target.seeds
    options = {
        "runs": job.runs,
        "seed": job.seed,
        "max_len": MAX_LEN,
        "timeout": HANGS,
        "rss_limit_mb": MEMORY,
        "artifact_prefix": f"{folder}-",
        "dict": f"{seeds}.dict",
    }
    given = [f"-{name}={value}" for name, value in options.items()]
    return [*ENGINE, job.target.function, *given, str(folder), str(seeds)]


def _found(folder: Path, log: Path, text: str) -> Broken:
    """What was found, and how to see it again."""
    _, _, after = text.partition("Uncaught Python exception: ===\n")
    what = after.split("\n", 1)[0] or text.strip().rsplit("\n", 1)[-1]
    files = [path for path in sorted(folder.parent.glob(f"{folder.name}-*")) if path.is_file()]
    if not files:
        return Broken(f"the fuzzer's process failed: {what} (all of it: {log})")
    return Broken(f"{what}, by {files[0].read_bytes()[:SHOWN]!r}", f"--only fuzz --replay {files[0]}")


def replay_corpus(target: Target) -> int:
    """Every committed seed of a target through it, without atheris; how many."""
    function = loaded(target)
    files = sorted((CORPUS / target.seeds).iterdir())
    for path in files:
        function(path.read_bytes())
    return len(files)


def replay(path: Path) -> Figures:
    """One input through every target, whichever it was found by. Raises what it raises."""
    data = path.read_bytes()
    for target in TARGETS.values():
        loaded(target)(data)
    return {"inputs replayed": 1}


def loaded(target: Target) -> Callable[[bytes], None]:
    """The target's function."""
    module, _, name = target.function.partition(":")
    function: Callable[[bytes], None] = getattr(importlib.import_module(module), name)
    return function
