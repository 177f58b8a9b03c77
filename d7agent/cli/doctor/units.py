"""systemd's part: the units, whether they outlive a session, and what the manager gives the agent to see."""

import os
import shutil
from collections.abc import Iterator
from typing import Final

from d7agent.cli.autostart import user_unit
from d7agent.cli.doctor.finding import Finding, error, ok, warn
from d7agent.cli.doctor.scene import Scene, asked

UNITS: Final = ("d7agent.socket", "d7agent.service")
PROPERTIES: Final = "Id,LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload,FragmentPath"
LINGER: Final = "/var/lib/systemd/linger"
PROXIES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")
OTHERS: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
Unit = dict[str, str]


def check(scene: Scene) -> Iterator[Finding]:
    """The units of the agent that counts here, linger, and the manager's environment."""
    if shutil.which("systemctl", path=scene.env.get("PATH")) is None:
        yield ok("units", "there is no systemd here; `d7agent start` starts an agent")
        return
    command = "systemctl" if scene.system else "systemctl --user"
    text = asked([*command.split(), "show", *UNITS, "--property", PROPERTIES], scene.env)
    if text is None:
        yield from _no_manager(scene, command)
        return
    units = parsed(text)
    if not scene.system and not is_installed(units) and (path := user_unit(scene.env)):
        remedy = f"{command} daemon-reload; if that changes nothing, the manager has another HOME than this shell"
        yield warn("units", f"{path} is there, and systemd does not know it", remedy)
        return
    yield from judged(units, command, systemd=scene.agent.get("systemd"), answers=scene.status is not None)
    if not scene.system and is_installed(units):
        yield from _linger(scene)
        yield from _environment(scene)


def parsed(text: str) -> dict[str, Unit]:
    """The properties of each unit, by its name."""
    blocks = (dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in text.split("\n\n"))
    return {block["Id"]: block for block in blocks if "Id" in block}


def is_installed(units: dict[str, Unit]) -> bool:
    """Whether either unit file is there."""
    return any(unit.get("LoadState") not in ("not-found", None) for unit in units.values())


def judged(units: dict[str, Unit], command: str, *, systemd: object, answers: bool) -> Iterator[Finding]:
    """What the units' properties mean. `systemd`: whether the agent that answers was started by systemd."""
    if not is_installed(units):
        yield ok("units", "no unit is installed; `d7agent service install` has systemd start the agent when needed")
        return
    for name in UNITS:
        yield from _unit(units.get(name, {}), name, command)
    if answers and systemd is False and units.get("d7agent.socket", {}).get("ActiveState") == "active":
        yield warn("units", "the agent that answers is not the one of systemd", "d7agent stop; systemd starts its own")


def _unit(unit: Unit, name: str, command: str) -> Iterator[Finding]:
    load, active, enabled = (unit.get(key, "") for key in ("LoadState", "ActiveState", "UnitFileState"))
    journal = f"journalctl{'' if command == 'systemctl' else ' --user'} -u {name}"
    if load == "masked":
        yield error("units", f"{name} is masked: systemd starts it for nobody", f"{command} unmask {name}")
    elif load != "loaded":
        yield error("units", f"{name} cannot be used ({load or 'not there'})", "d7agent service install")
    elif active == "failed":
        yield error("units", f"{name} has failed", f"{journal}; then: {command} restart {name}")
    elif name.endswith(".socket") and active != "active":
        yield error("units", f"{name} is not active: nobody listens", f"{command} enable --now {name}")
    elif name.endswith(".socket") and enabled not in ("enabled", "static", "generated", "linked"):
        yield warn("units", f"{name} is not enabled: after the next start it is gone", f"{command} enable {name}")
    else:
        state = "waits for the first request" if active == "inactive" else f"is {active}"
        yield ok("units", f"{name} {state} ({unit.get('FragmentPath', '')})")
    if unit.get("NeedDaemonReload") == "yes":
        yield warn("units", f"{name} was changed since systemd read it", f"{command} daemon-reload")


def _no_manager(scene: Scene, command: str) -> Iterator[Finding]:
    unit = None if scene.system else user_unit(scene.env)
    if unit and scene.status is None:
        text = f"{unit} is installed, and `{command}` does not answer from here"
        yield error("units", text, "log in by ssh or on the console rather than by su, or: d7agent start")
    else:
        yield ok("units", f"`{command}` does not answer from here; the agent does not depend on it")


def _linger(scene: Scene) -> Iterator[Finding]:
    """Without it the user's manager, and the agent with it, ends at the last logout."""
    import pwd

    try:
        name = pwd.getpwuid(scene.uid).pw_name
    except KeyError:
        return
    if os.path.exists(f"{LINGER}/{name}"):
        yield ok("linger", "the agent stays when you log out")
    elif scene.env.get("DISPLAY") or scene.env.get("WAYLAND_DISPLAY"):
        yield ok("linger", "the agent ends with your desktop session")
    else:
        text = "the agent ends when you log out: programs started by cron or at boot find none"
        yield warn("linger", text, f"loginctl enable-linger {name}")


def _environment(scene: Scene) -> Iterator[Finding]:
    """A proxy or a CA that a shell's profile sets is not seen by a unit."""
    text = asked(["systemctl", "--user", "show-environment"], scene.env)
    names = {line.partition("=")[0] for line in (text or "").splitlines()}
    unseen = [name for name in (*PROXIES, *OTHERS) if scene.env.get(name) and name not in names]
    if text is not None and unseen:
        listed = " ".join(unseen)
        remedy = (
            f"write them into ~/.config/environment.d/d7agent.conf, or: systemctl --user import-environment {listed}"
        )
        yield warn("environment", f"{listed} is set in this shell; the agent of systemd does not see it", remedy)
