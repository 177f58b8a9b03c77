"""As a program: tries to look into processes of its own user, its children, and prints as JSON what came of it.

`python tracer.py URL HOME D7AGENT`: a plain process, an agent, and the helper of a login that D7 at URL leaves hanging.
"""

import ctypes
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

PTRACE_ATTACH, PTRACE_DETACH = 16, 17  # ptrace(2)


def trace(pid: int) -> None:
    """Attach and let go."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    if libc.ptrace(PTRACE_ATTACH, pid, None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(pid, 0)
    libc.ptrace(PTRACE_DETACH, pid, None, None)


def open_memory(pid: int) -> None:
    """Open its memory for reading."""
    Path(f"/proc/{pid}/mem").open("rb").close()


TRIES: Final[dict[str, Callable[[int], object]]] = {
    "memory": open_memory,
    "environment": lambda pid: Path(f"/proc/{pid}/environ").read_bytes(),
    "descriptors": lambda pid: os.listdir(f"/proc/{pid}/fd"),
    "trace": trace,
}


def look(pid: int) -> dict[str, str]:
    """What each try comes to: "done" or the error's name."""
    found = {}
    for name, attempt in TRIES.items():
        try:
            attempt(pid)
            found[name] = "done"
        except OSError as error:
            found[name] = type(error).__name__
    return found


def core_limit(pid: int) -> str:
    """The line of /proc/PID/limits."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(" ".join(line.split()) for line in lines if line.startswith("Max core"))


def child_of(pid: int, url: str) -> int:
    """The helper, once D7 has its request."""
    while json.load(urllib.request.urlopen(f"{url}/sandbox/stats"))["open_logins"] == 0:
        time.sleep(0.05)  # real time: agent and helper start
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def main() -> None:
    """Start them, look, print."""
    url, home, command = sys.argv[1:]
    os.environ.update(HOME=home, XDG_RUNTIME_DIR=f"{home}/run")
    os.makedirs(f"{home}/run", mode=0o700)
    os.makedirs(f"{home}/cred", mode=0o700)
    for name, text in {"client_id": "sandbox-id", "client_secret": "sandbox-secret"}.items():
        Path(f"{home}/cred/{name}").write_text(text)
        Path(f"{home}/cred/{name}").chmod(0o600)
    os.makedirs(f"{home}/.config/d7agent/profiles")
    Path(f"{home}/.config/d7agent/profiles/default.toml").write_text(
        f'base_url = "{url}"\nstore = "directory:{home}/cred"\n'
    )
    plain = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    agent = subprocess.Popen([command, "run"])
    try:
        helper = child_of(agent.pid, url)
        found = {"plain": look(plain.pid), "agent": look(agent.pid), "helper": look(helper)}
        sys.stdout.write(json.dumps({**found, "cores": [core_limit(agent.pid), core_limit(helper)]}))
    finally:
        plain.kill()
        agent.terminate()
        agent.wait()


if __name__ == "__main__":
    main()
