"""What `service install`, `uninstall` and `status` do, one after the other; each says in lines what it did."""

import contextlib
import os
import pwd
import select
import subprocess
import sys
from typing import Final

from d7agent.cli import units
from d7agent.cli.launcher import launcher
from d7agent.cli.output import Failure
from d7agent.cli.systemctl import LIMIT, Manager, lingers, run
from d7agent.cli.units import SERVICE, SOCKET, TIMER, Place
from d7agent.client.blocking import Agent, NoAgent
from d7agent.core.paths import SYSTEM_CONFIG, SYSTEM_SOCKET, SYSTEM_STATE

USER: Final = "d7agent"
# What the system service does not see, by ProtectHome= and PrivateTmp=.
HIDDEN: Final = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108  named, not used  # nosec B108


def install(system: bool) -> list[str]:
    """Write, reload, enable. Raises Failure."""
    manager, place = Manager(system=system), place_of(system)
    manager.check()
    command = launcher()
    texts = {path: units.rendered(place, name, command) for name, path in place.files(manager.version()).items()}
    if system:
        _check_reachable(command)
    changed = units.write(texts)
    if system:
        _make_user()
        _check_runs(command)
    said = [f"Wrote {path}" for path in changed] or [f"The units in {place.units} are up to date."]
    path = socket_path(system)
    if manager.show(SOCKET, "ActiveState").get("ActiveState") != "active":
        said += _end_other(path)
    _activate(manager, place, changed)
    return [*said, f"systemd listens at {path}; the first request starts {command}", *_next_steps(system)]


def uninstall(system: bool) -> list[str]:
    """Stop, disable, remove what is ours. Raises Failure."""
    manager, place = Manager(system=system), place_of(system)
    ours = [path for path in place.every_file.values() if units.is_ours(path)]
    if not ours:
        return [f"Nothing to do: no file in {place.units} was written by `d7agent service install`."]
    for unit in (SOCKET, *([TIMER] if system else [])):
        manager.tried("disable", "--now", unit)
    manager.tried("stop", SERVICE)
    removed = units.remove(place)
    manager.tried("daemon-reload")
    manager.tried("reset-failed", SOCKET, SERVICE)
    if not system:
        return [f"Removed {path}" for path in removed]
    for folder in (f"{SYSTEM_CONFIG}/profiles", SYSTEM_CONFIG, os.path.dirname(SYSTEM_SOCKET)):
        with contextlib.suppress(OSError):
            os.rmdir(folder)  # only when empty; while the last one stands, no user's command starts an agent by itself
    kept = f"Kept: the user {USER}, {SYSTEM_STATE}, and whatever is in {SYSTEM_CONFIG} and /etc/credstore."
    return [*(f"Removed {path}" for path in removed), kept]


def _activate(manager: Manager, place: Place, changed: list[str]) -> None:
    manager.do("daemon-reload")
    if f"{place.units}/{SOCKET}" in changed:  # a socket in use is not changed by a reload
        manager.do("stop", SOCKET, SERVICE)
    manager.do("enable", "--now", SOCKET)
    if changed:
        manager.do("try-restart", SERVICE)
    shown = manager.show(SOCKET, "FragmentPath")
    if shown.get("FragmentPath") != f"{place.units}/{SOCKET}":
        raise Failure(
            f"systemd uses {shown.get('FragmentPath') or 'no file'} and not {place.units}/{SOCKET}",
            "move that one away, or see XDG_CONFIG_HOME of your manager, then install again",
        )


def place_of(system: bool) -> Place:
    """Where the units of this flavour go."""
    return units.SYSTEM if system else units.user_place(os.environ)


def socket_path(system: bool) -> str:
    """Where systemd listens for this flavour's agent."""
    if system:
        return SYSTEM_SOCKET
    runtime = os.environ.get("XDG_RUNTIME_DIR", "").rstrip("/") or f"/run/user/{os.geteuid()}"
    return f"{runtime}/d7agent/agent.sock"


def _end_other(path: str) -> list[str]:
    """End the agent that somebody started otherwise and that answers on our socket."""
    try:
        with Agent(path, LIMIT) as agent:
            pid = agent.status().get("agent", {}).get("pid")
            end = os.pidfd_open(pid) if isinstance(pid, int) else None
            agent.call("Shutdown")
    except (NoAgent, OSError):
        return []
    if end is not None:
        gone = select.select([end], [], [], LIMIT)[0]
        os.close(end)
        if not gone:
            raise Failure(f"the agent (pid {pid}) was told to end and still runs", "its log says what it does")
    return [f"Ended the agent that ran at {path} (pid {pid})"]


def _check_reachable(command: str) -> None:
    """The system service sees no home folder: neither command nor interpreter nor packages may be in one."""
    places = (command, sys.prefix, sys.base_prefix, os.path.dirname(__file__))
    hidden = [path for path in (*places, *map(os.path.realpath, places)) if f"{path}/".startswith(HIDDEN)]
    if hidden:
        raise Failure(
            f"{hidden[0]} is in a home or temporary folder, which a system service does not see",
            "install it for all users: python3 -m venv /opt/d7agent && /opt/d7agent/bin/pip install d7agent; "
            "then /opt/d7agent/bin/d7agent service install --system",
        )


def _make_user() -> None:
    done = run(["systemd-sysusers", units.SYSUSERS])
    try:
        pwd.getpwnam(USER)
    except KeyError:
        said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise Failure(f"systemd-sysusers did not make the user {USER}: {said}", f"useradd --system {USER}") from None
    for folder in (SYSTEM_CONFIG, f"{SYSTEM_CONFIG}/profiles"):
        if not os.path.isdir(folder):
            os.mkdir(folder)
            os.chmod(folder, 0o755)  # noqa: S103  whatever the umask: no secret is ever written there  # nosec B103


def _check_runs(command: str) -> None:
    """Whether the user d7agent can run it, interpreter and packages included."""
    found = pwd.getpwnam(USER)
    try:
        done = subprocess.run(
            [command, "--version"], user=found.pw_uid, group=found.pw_gid, extra_groups=[], env={}, cwd="/",
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=LIMIT,
        )  # fmt: skip
        said = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    except OSError as error:
        said = error.strerror or type(error).__name__
    if said:
        raise Failure(
            f"the user {USER} cannot run {command}: {said}",
            "install it where every user can read it: python3 -m venv /opt/d7agent && "
            "/opt/d7agent/bin/pip install d7agent",
        )


def _next_steps(system: bool) -> list[str]:
    if system:
        return [
            "Next: put client id and secret into /etc/credstore/d7agent.client_id and d7agent.client_secret (0600),",
            f'write store = "directory:%d" into {SYSTEM_CONFIG}/profiles/default.toml, name who may ask under [access]',
            f"in {SYSTEM_CONFIG}/config.toml, then: systemctl restart d7agent.service && d7agent token",
        ]
    said = ["Next: d7agent login, unless you have done so; then d7agent token"]
    if lingers(os.geteuid()) is False:
        said.append(
            "Note: the agent ends with your last session, so a cron job or timer may find none; "
            "`loginctl enable-linger` keeps it running."
        )
    if os.environ.get("D7AGENT_SOCK", socket_path(system)) != socket_path(system):
        said.append(f"Note: D7AGENT_SOCK names {os.environ['D7AGENT_SOCK']}; unset it to reach this agent.")
    return said
