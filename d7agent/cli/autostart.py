"""Starting an agent for a command that found none, where nobody else is in charge of that; one for all who ask."""

import fcntl
import os
import stat
from collections.abc import Mapping
from typing import Final

from d7agent.cli import background
from d7agent.client.blocking import Agent, NoAgent
from d7agent.core.clock import boot_time

IDLE_EXIT: Final = 3600  # seconds after which such an agent leaves when nobody asks
UNITS: Final = ("d7agent.socket", "d7agent.service")
UNIT_DIRS: Final = (
    "/etc/systemd/user",
    "/run/systemd/user",
    "/usr/local/lib/systemd/user",
    "/usr/lib/systemd/user",
    "/lib/systemd/user",
)
SYSTEM_FOLDER: Final = "/run/d7agent"


def revive(error: NoAgent, socket: str | None, *, start: bool) -> None:
    """Start an agent and wait until it answers, or raise the error with a hint that fits this machine."""
    hint = obstacle(os.environ, os.geteuid(), socket)
    if hint is None and not start:
        hint = "start one with `d7agent start`"
    if hint is not None:
        raise NoAgent(error.message, hint) from None
    start_once(background.own_paths().socket)


def obstacle(env: Mapping[str, str], uid: int, socket: str | None) -> str | None:
    """Why no agent may be started for a command here, as a hint what to do; None when one may."""
    if socket:
        return f"`d7agent start --socket {socket}` starts one there; without --socket the usual places are tried"
    folder = runtime_folder(env, uid)
    named = env.get("D7AGENT_SOCK")
    if named and named != f"{folder}/d7agent/agent.sock":
        return f"D7AGENT_SOCK names {named}: unset it, or `d7agent start --socket {named}`"
    unit = user_unit(env)
    if unit:
        return f"start it with `systemctl --user start d7agent.socket` ({unit} is in charge of it)"
    if os.path.isdir(SYSTEM_FOLDER):
        return "start the system's agent (as root: `systemctl start d7agent.socket`) or your own: `d7agent start`"
    if folder is None:
        return "start one with `d7agent start` (there is no runtime folder of yours in which it could start by itself)"
    return None


def runtime_folder(env: Mapping[str, str], uid: int) -> str | None:
    """The user's live runtime folder: there, a folder, the user's and closed to others; else None."""
    path = env.get("XDG_RUNTIME_DIR", "").rstrip("/")
    path = path if path.startswith("/") else f"/run/user/{uid}"
    return path if is_ours(path, uid) else None


def is_ours(path: str, uid: int) -> bool:
    """Whether the path is an existing folder of this user that no other may enter."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and found.st_mode & 0o077 == 0


def user_unit(env: Mapping[str, str]) -> str | None:
    """The path of the first unit file of ours that the user's systemd would find; None where there is none."""
    home = env.get("HOME", "").rstrip("/")
    config = env.get("XDG_CONFIG_HOME") or f"{home}/.config"
    data = env.get("XDG_DATA_HOME") or f"{home}/.local/share"
    folders = (f"{config}/systemd/user", f"{data}/systemd/user", *UNIT_DIRS)
    paths = (f"{folder}/{unit}" for folder in folders for unit in UNITS)
    return next((path for path in paths if os.path.lexists(path)), None)


def start_once(path: str, *, idle_exit: int | None = IDLE_EXIT, tied: bool = False) -> int | None:
    """Start an agent on this socket unless one answers by now, and wait until it does; its pid, None if found.

    Whoever holds the lock file starts it; all others wait for that one. `tied` as in `background.start`. Raises NoAgent
    and Failure.
    """
    if answers(path):
        return None
    end = boot_time() + background.START_LIMIT
    with background.lock_file(path) as lock:
        while not _locked(lock):
            if boot_time() > end:
                raise NoAgent(f"another process is starting the agent at {path} and does not get done", "try again")
            background.pause()
        return None if answers(path) else background.start(path, idle_exit=idle_exit, tied=tied)


def answers(path: str) -> bool:
    """Whether an agent accepts connections on this socket. Raises PermissionDenied when it is a stranger's."""
    try:
        with Agent(path, timeout=2) as agent:
            agent.connect()
    except NoAgent as error:
        return bool(error.fields.get("busy"))
    return True


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
