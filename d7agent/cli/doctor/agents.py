"""The agent against this client, its lock, and other agents beside it."""

import os
from collections.abc import Iterator
from pathlib import Path

from d7agent import __version__
from d7agent.cli.doctor.finding import Finding, error, ok, warn
from d7agent.cli.doctor.scene import Scene
from d7agent.cli.doctor.socket_table import listeners
from d7agent.wire.messages import PROTOCOL


def check(scene: Scene) -> Iterator[Finding]:
    """Version, lock, agents of the same user, and agents that lost their path to another."""
    if scene.status is not None:
        yield from _version(scene)
        yield from _lock(scene)
    yield from _others(scene)
    if scene.used:
        yield from _same_path(scene.used)


def _version(scene: Scene) -> Iterator[Finding]:
    version, protocol = scene.agent.get("version"), scene.agent.get("protocol")
    unit = "systemctl restart d7agent" if scene.system else "systemctl --user restart d7agent"
    restart = unit if scene.agent.get("systemd") else "d7agent stop; d7agent start"
    if protocol != PROTOCOL:
        text = f"the agent speaks protocol {protocol}, this client {PROTOCOL}"
        yield error("version", text, f"bring both to one version, then: {restart}")
    elif version != __version__:
        text = f"the agent is version {version}, this client {__version__}"
        yield warn("version", text, f"the agent was started before an upgrade, or from another place: {restart}")
    else:
        yield ok("version", f"agent and client are version {version}")


def _lock(scene: Scene) -> Iterator[Finding]:
    if scene.agent.get("locked"):
        yield error("lock", "the agent is locked by a passphrase and hands out nothing", "d7agent unlock")
    else:
        yield ok("lock", "the agent is not locked")


def _others(scene: Scene) -> Iterator[Finding]:
    """Processes of this user that are agents, too: each logs in for itself."""
    known = scene.agent.get("pid")
    others = [pid for pid in running(scene.uid, scene.proc) if pid != known]
    if others and known is not None and not scene.system:
        text = f"{len(others)} more agent{'s' * (len(others) > 1)} of yours run: pid {', '.join(map(str, others))}"
        yield warn("other-agents", text, "each logs in to D7 for itself: end those you do not need with kill PID")
    elif others and known is None:
        text = f"an agent of yours runs (pid {others[0]}) where no client looks for it"
        yield warn("other-agents", text, f"set D7AGENT_SOCK to its socket, or end it: kill {others[0]}")
    elif known is not None:
        yield ok("other-agents", "no other agent of yours runs")


def running(uid: int, proc: str) -> list[int]:
    """The pids of agents of this user, in order. Its command line tells an agent; anybody may read that."""
    found = []
    for entry in os.listdir(proc):
        folder = Path(proc, entry)
        if not entry.isdigit():
            continue
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if is_agent(words) and _uid(folder) == uid:
                found.append(int(entry))
        except OSError:  # it has ended
            continue
    return sorted(found)


def is_agent(words: list[bytes]) -> bool:
    """Whether this is a command line of `d7agent run`: by its launcher, or by `-m d7agent`."""
    for before, word in enumerate(words):
        if word == b"run":
            program = words[before - 1] if before else b""
            return program == b"d7agent" or program.endswith(b"/d7agent")
    return False


def _uid(folder: Path) -> int:
    """Not by the folder's owner, which is root for a process that is not dumpable."""
    lines = (folder / "status").read_text(encoding="utf-8", errors="replace").splitlines()
    return int(next(line for line in lines if line.startswith("Uid:")).split()[2])


def _same_path(path: str) -> Iterator[Finding]:
    """Two that listen at one path: the second one took the file's place, and nobody finds the first any more."""
    count = listeners(path)
    if count > 1:
        text = f"{count} processes listen at {path}; clients reach only the one that came last"
        yield warn("same-path", text, f"end all with kill, remove {path} and start one: `ss -xlp` tells who they are")
