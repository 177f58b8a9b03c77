"""What `service status` tells: installed, enabled, running, and what is wrong with that."""

import os
import re
from pathlib import Path

from d7agent.cli import units
from d7agent.cli.installing import place_of, socket_path
from d7agent.cli.launcher import launcher
from d7agent.cli.output import Failure
from d7agent.cli.systemctl import Manager, lingers
from d7agent.cli.units import SERVICE, SOCKET

STATES = ("LoadState", "FragmentPath", "UnitFileState", "ActiveState", "SubState", "MainPID", "StatusText", "NRestarts")


def report(system: bool) -> tuple[list[str], bool]:
    """Lines for people, and whether systemd listens for the agent."""
    manager = Manager(system=system)
    socket, service = manager.show(SOCKET, *STATES), manager.show(SERVICE, *STATES)
    listening = socket.get("ActiveState") == "active"
    lines = [
        _line("installed", _installed(system, service)),
        _line("starts", _starts(service)),
        _line("socket", f"{_state(socket)}{f', at {socket_path(system)}' if listening else ''}"),
        _line("service", _service(service)),
    ]
    if not socket:
        lines.append(_line("systemd", f"`{manager.command}` does not answer"))
    if not system and (found := lingers(os.geteuid())) is not None:
        text = "yes" if found else "no: the agent ends with your last session (`loginctl enable-linger` changes that)"
        lines.append(_line("linger", text))
    return lines, listening


def _line(name: str, text: str) -> str:
    return f"{name + ':':<11}{text}"


def _installed(system: bool, service: dict[str, str]) -> str:
    """The file that is in force, and whose it is."""
    path = service.get("FragmentPath") or place_of(system).every_file[SERVICE]
    if not os.path.exists(path):
        return f"no; `d7agent service install{' --system' if system else ''}` does that"
    return f"{path}{'' if units.is_ours(path) else ' (not written by `d7agent service install`)'}"


def _starts(service: dict[str, str]) -> str:
    command = started(service.get("FragmentPath", ""))
    if not command:
        return "nothing"
    if not os.access(command, os.X_OK):
        return f"{command}, which is not there any more: run `d7agent service install` again"
    try:
        here = launcher()
    except Failure:
        return command
    same = os.path.realpath(here) == os.path.realpath(command)
    return command if same else f"{command}; this command is another one, {here}"


def started(path: str) -> str:
    """The program in the ExecStart= of a unit file; "" where there is none."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(r'^ExecStart=[-:+!@]*(?:"([^"]+)"|(\S+))', text, re.MULTILINE)
    return (found[1] or found[2]).replace("%%", "%") if found else ""


def _state(unit: dict[str, str]) -> str:
    if unit.get("LoadState") != "loaded":
        return unit.get("LoadState") or "unknown"
    return f"{unit['UnitFileState'] or 'static'}, {unit['ActiveState']} ({unit['SubState']})"


def _service(unit: dict[str, str]) -> str:
    if unit.get("ActiveState") == "inactive":
        return "not running; the next request starts it"
    parts = [_state(unit)]
    if unit.get("MainPID", "0") != "0":
        parts.append(f"pid {unit['MainPID']}")
    if unit.get("NRestarts", "0") != "0":
        parts.append(f"restarted {unit['NRestarts']} times")
    return ", ".join(parts) + (f": {unit['StatusText']}" if unit.get("StatusText") else "")
