"""A real agent that logged in some minutes ago: its token may be refused and replaced, as in everyday life."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

from d7agent.sandbox import Sandbox
from tests.support.live import Live, notify_socket, wait_ready

# The command, with a boot clock that is some seconds ahead: the one place that reads it is told so before anyone asks.
LATER: Final = """
from d7agent.core import clock
real = clock.boot_time
clock.boot_time = lambda: real() + {seconds}
from d7agent.__main__ import main
main()
"""


@contextlib.contextmanager
def logged_in(box: Sandbox) -> Iterator[Live]:
    """An agent that serves a token from the sandbox, received two minutes ago.

    A token that is refused within a minute of its login is not replaced but proved.
    """
    with Live() as live:
        (live.root / "cred").mkdir(mode=0o700)
        live.start()
        live.login(box.url, "--store", f"directory:{live.root}/cred")
        restart(live)
        yield live


def restart(live: Live, seconds: int = 120) -> None:
    """End the agent if it runs, and start one that lives so many seconds later."""
    live.kill()
    with notify_socket(live.root / "notify") as (path, listening), live.log.open("ab") as log:
        live.process = subprocess.Popen(
            [sys.executable, "-P", "-c", LATER.format(seconds=seconds), "run", "-v"],
            env={**live.environment, "NOTIFY_SOCKET": path},
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        wait_ready(listening, live.process, live.log)
