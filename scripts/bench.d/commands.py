"""What a script pays: commands, the shell library, and the clients for Python."""

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from figures import in_turns
from peers import Command
from processes import run
from scene import SINK, US, Scene, until

from d7agent.client import aio, blocking
from d7agent.client.live import Token
from tests.support.live import COMMAND

LIBRARY = Path(__file__).parent.parent / "d7agent.sh"


def measure_command(scene: Scene) -> None:
    """`token` and `header` beside the bare interpreter and what prints a secret elsewhere."""
    environment = scene.home.environment
    bare = Command([sys.executable, "-I", "-c", "print(1)"], environment)
    bare = Command([sys.executable, "-I", "-c", "print(1)"], environment) if bare is None else bare
    contenders = {US: Command([COMMAND, "token"], environment), "python -I -c pass": _Bare(environment)}
    others = scene.peers.commands()
    swift = {name: other for name, other in others.items() if not name.startswith(("aws", "keyring"))}
    walls = in_turns(scene.some(15, 60), {n: c.wall for n, c in (contenders | swift).items()})
    scene.report.beside("command", "`d7agent token`", "ms", walls, {"python -I -c pass": 1.4})
    slow = {name: other.wall for name, other in others.items() if name not in swift}
    if slow:
        walls = in_turns(scene.some(3, 10), {US: contenders[US].wall, **slow})
        scene.report.beside("command", "`d7agent token`", "ms", walls)
    header = {US: Command([COMMAND, "header"], environment).wall, "python -I -c pass": contenders["python -I -c pass"].wall}
    scene.report.beside("command", "`d7agent header`", "ms", in_turns(scene.some(10, 40), header), {"python -I -c pass": 1.4})
