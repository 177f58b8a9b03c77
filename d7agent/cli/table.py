"""The status as text: a table where there is room, a list where there is not. State is told in words and colour."""

import sys
from typing import Any, Final

from rich.box import ASCII, SIMPLE
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from d7agent.cli.output import one_line
from d7agent.cli.spans import instant, span

ROOM: Final = 100  # columns that the table needs; with fewer there is a list
PLAIN_WIDTH: Final = 200  # columns where no terminal says: a file or a pipe, in which no line is to be broken
BAR: Final = 10  # cells
STATES: Final = {
    "fresh": ("green", "fresh"),
    "stale": ("yellow", "stale: still good, refresh failing"),
    "expired": ("red", "expired"),
    "rejected": ("bold red", "rejected by D7"),
    "empty": ("yellow", "no token yet"),
    "no_credential": ("red", "no credential"),
    "locked": ("magenta", "locked"),
}
HINTS: Final = {
    "rejected": "store a valid credential: d7agent login {profile}",
    "no_credential": "store one: d7agent login {profile}",
    "locked": "d7agent unlock",
    "expired": "d7agent renew -p {profile} tries at once",
}
Profile = dict[str, Any]


def render(status: dict[str, Any], width: int | None = None) -> str:
    """The whole text. `width`: columns, or None for what the terminal has; colours only on a terminal, unless NO_COLOR."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    console = Console(
        file=sys.stdout,
        width=width or (None if terminal else PLAIN_WIDTH),
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=not terminal,
    )
    with console.capture() as capture:
        console.print(_agent(status.get("agent", {})))
        profiles: list[Profile] = status.get("profiles", [])
        if not profiles:
            console.print(Text("No profile."))
        elif console.width >= ROOM and terminal:
            console.print(_table(profiles, utf8=console.encoding.startswith("utf")))
        else:
            console.print(Group(*(_block(profile, utf8=console.encoding.startswith("utf")) for profile in profiles)))
    return "".join(line.rstrip() + "\n" for line in capture.get().splitlines())
