"""Runs the bench: see scripts/bench."""

import argparse
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # tests.support; an installed d7agent comes first

from commands import measure_client, measure_command, measure_shell
from crowds import measure_crowd, measure_hung, measure_profiles
from figures import Report
from lives import Sleeper, measure_login, measure_memory, measure_start
from on_the_wire import measure_load, measure_wire
from peers import Peers
from place import Home
from scene import Scene
from table import as_json, as_table

from d7agent.client.blocking import Agent, AgentError
from d7agent.sandbox import Sandbox, Settings

GROUPS = {
    "wire": measure_wire,
    "load": measure_load,
    "command": measure_command,
    "shell": measure_shell,
    "client": measure_client,
    "start": measure_start,
    "login": measure_login,
    "memory": measure_memory,
    "crowd": measure_crowd,
    "profiles": measure_profiles,
    "hung": measure_hung,
}


def main() -> int:
    """0 if every bar is kept, 1 if one is not or a group of measurements broke off."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what we started ends with us
    parser = argparse.ArgumentParser(prog="scripts/bench", description="d7agent beside its peers, in ratios")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller crowds, below a minute")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--only", metavar="NAME[,NAME...]", help=f"some groups of: {' '.join(GROUPS)} idle")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",") if arguments.only else [*GROUPS, "idle"]
    unknown = sorted(set(chosen) - {*GROUPS, "idle"})
    if unknown:
        parser.error(f"no such group: {' '.join(unknown)} (there are: {' '.join(GROUPS)} idle)")
    report = Report()
    _measure(report, chosen, quick=arguments.quick)
    print(as_json(report) if arguments.json else as_table(report))
    return int(report.broken or any(row.met is False for row in report.rows))


def _measure(report: Report, chosen: list[str], *, quick: bool) -> None:
    with Sandbox(Settings()) as box, Home() as home, ExitStack() as stack:
        peers = stack.enter_context(Peers(report))
        scene = Scene(report, peers, box, home, quick)
        for profile in ("default", *scene.spare):
            home.profile(profile, box.url)
        home.begin()
        peers.reply_size = len(scene.service.prove(b'"access_token"'))
        with Agent(str(home.socket)) as agent:
            for profile in scene.spare:
                agent.token(profile)
        scene.began = time.monotonic()
        sleeper = stack.enter_context(Sleeper(scene)) if "idle" in chosen else None
        for name in (name for name in GROUPS if name in chosen):
            print(f"bench: {name} ...", file=sys.stderr)
            try:
                GROUPS[name](scene)
            except (AgentError, OSError, RuntimeError) as error:
                report.failed(name, str(error))
        if sleeper is not None:
            sleeper.report()


if __name__ == "__main__":
    sys.exit(main())
