"""Which `d7agent` a unit is to start: the launcher of the very installation that runs now."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator

from d7agent.cli.output import Failure

NAME = "d7agent"


def launcher() -> str:
    """The absolute path of this installation's `d7agent`, links (pipx's) left as they are. Raises Failure."""
    for path in _places():
        if os.path.basename(path) == NAME and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise Failure(
        f"no {NAME} command was found for the Python at {sys.executable}",
        "install d7agent with pip or pipx, so that there is a command for systemd to start",
    )


def _places() -> Iterator[str]:
    """The command that was typed, then where pip puts scripts: beside the interpreter, the user's, the system's."""
    if os.path.isabs(sys.argv[0]) or os.sep in sys.argv[0]:
        yield os.path.abspath(sys.argv[0])
    yield os.path.join(os.path.dirname(sys.executable), NAME)
    for scheme in (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")):
        yield os.path.join(sysconfig.get_path("scripts", scheme), NAME)
    if found := shutil.which(NAME):
        yield os.path.abspath(found)


def quoted(path: str) -> str:
    """The path as the first word of ExecStart= (systemd.service(5)). Raises Failure where systemd cannot have it."""
    if not path.isprintable() or any(c in path for c in "\"'\\$;"):
        raise Failure(f"systemd cannot start a command at {path!r}", "install d7agent in a folder with a plain name")
    escaped = path.replace("%", "%%")
    return f'"{escaped}"' if " " in escaped else escaped
