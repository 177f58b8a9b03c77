"""The unit files: where those we ship are, what they become on this machine, and which files on it are ours."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from d7agent import __version__
from d7agent.cli.launcher import quoted
from d7agent.cli.output import Failure

SHIPPED_COMMAND: Final = "/usr/bin/d7agent"  # what the shipped units start, right for a distribution's package
MARK: Final = "# Written by `d7agent service install`"  # the first line of what is ours to replace and remove
SOCKET: Final = "d7agent.socket"
SERVICE: Final = "d7agent.service"
DROP_IN: Final = "d7agent.service.d/notify-reload.conf"
METRICS: Final = "d7agent-metrics.service"  # the host's only; written, and left to the admin to enable
TIMER: Final = "d7agent-metrics.timer"
DROP_IN_SINCE: Final = 253  # the systemd that knows Type=notify-reload


@dataclass(frozen=True)
class Place:
    """Where one flavour's files go: by what they are called in our folder. `system`: the host's agent."""

    system: bool
    units: str

    def files(self, systemd: int) -> dict[str, str]:
        """The path of each file to be written, by its shipped name, for this version of systemd."""
        names = [SOCKET, SERVICE, *([DROP_IN] if systemd >= DROP_IN_SINCE else [])]
        paths = {name: f"{self.units}/{name}" for name in names}
        if self.system:
            paths |= {"d7agent.sysusers": SYSUSERS} | {name: f"{self.units}/{name}" for name in (METRICS, TIMER)}
        return paths

    @property
    def every_file(self) -> dict[str, str]:
        """The same for any version: what an uninstallation looks for."""
        return self.files(DROP_IN_SINCE)


SYSUSERS: Final = "/etc/sysusers.d/d7agent.conf"
SYSTEM: Final = Place(system=True, units="/etc/systemd/system")


def user_place(env: Mapping[str, str]) -> Place:
    """The user's own units, where `systemctl --user edit` puts them, too. Raises Failure without a home."""
    config = env.get("XDG_CONFIG_HOME", "")
    if not config.startswith("/"):
        home = env.get("HOME", "")
        if not home.startswith("/"):
            raise Failure("HOME is not set to an absolute path", "set it to your home folder")
        config = f"{home.rstrip('/')}/.config"
    return Place(system=False, units=f"{config.rstrip('/')}/systemd/user")


def shipped(flavour: str, name: str) -> str:
    """The text of a file of ours: in the package or, where that was installed as editable, beside it."""
    package = Path(__file__).parents[1]
    for folder in (package / "_units", package.parent / "systemd"):
        with contextlib.suppress(OSError):
            return (folder / flavour / name).read_text(encoding="utf-8")
    raise Failure(f"the unit file {flavour}/{name} is not part of this installation", "install d7agent again")


def rendered(place: Place, name: str, command: str) -> str:
    """A shipped file as it is to stand on this machine, our mark in its first line."""
    text = shipped("system" if place.system else "user", name).replace(SHIPPED_COMMAND, quoted(command))
    return f"{MARK} of d7agent {__version__}, and removed by `d7agent service uninstall`.\n{text}"


def is_ours(path: str) -> bool:
    """Whether a file is there that we wrote."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").startswith(MARK)
    except OSError:
        return False


def write(texts: Mapping[str, str]) -> list[str]:
    """Write each file, by path, that does not stand there already; the paths of those changed.

    Raises Failure, before any is written, if one of them is somebody else's.
    """
    for path in texts:
        if os.path.lexists(path) and not is_ours(path):
            raise Failure(
                f"{path} exists and was not written by d7agent",
                "move it away, or keep it and enable it yourself with systemctl",
            )
    return [path for path, text in texts.items() if _written(path, text)]


def _written(path: str, text: str) -> bool:
    with contextlib.suppress(OSError):
        if Path(path).read_text(encoding="utf-8") == text:
            return False
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    beside = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside)
    number = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with open(number, "w", encoding="utf-8") as file:
        os.fchmod(number, 0o644)
        file.write(text)
    os.replace(beside, path)
    return True


def remove(place: Place) -> list[str]:
    """Remove the files that we wrote, and a drop-in folder that is empty then; their paths."""
    gone = [path for path in place.every_file.values() if is_ours(path)]
    for path in gone:
        os.unlink(path)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(place.every_file[DROP_IN]))
    return gone
