"""The status as text: a table where there is room, else a list. State is told in words, never by colour alone."""

import sys
from typing import Any, Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from d7agent.cli.advice import notes, state_word
from d7agent.cli.output import one_line
from d7agent.cli.spans import instant, span
from d7agent.core.clock import SystemClock

ROOM: Final = 76  # columns that the table needs; with fewer there is a list
PLAIN_WIDTH: Final = 120  # columns for a file or a pipe
CELLS: Final = 10  # of a bar
COLOURS: Final = {
    "fresh": "green",
    "stale": "yellow",
    "empty": "yellow",
    "expired": "red",
    "no_credential": "red",
    "rejected": "bold red",
    "locked": "magenta",
}
COLUMNS: Final = ("Profile", "State", "Time left", "Next refresh", "Store")
Status = dict[str, Any]


def render(status: Status, width: int | None = None) -> str:
    """The whole text. `width` in columns, None: the terminal's. Colours on a terminal only, and not with NO_COLOR."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    console = Console(width=width or (None if terminal else PLAIN_WIDTH), highlight=False, markup=False, emoji=False)
    with console.capture() as capture:
        _print(console, status)
    return "".join(line.rstrip() + "\n" for line in capture.get().splitlines())


def _print(console: Console, status: Status) -> None:
    now = SystemClock().now().wall
    agent, profiles = status.get("agent", {}), status.get("profiles", [])
    console.print(_headline(agent, now))
    for problem in agent.get("config_problems", []):
        _print_note(console, "configuration", str(problem), "red")
    for problem in agent.get("hooks", []):
        _print_note(console, "hook", str(problem), "yellow")
    if not profiles:
        console.print("No profile. `d7agent login` makes one.")
        return
    rows = [_row(profile, now, blocks="█░" if console.encoding.startswith("utf") else "#-") for profile in profiles]
    _print_rows(console, rows)
    for profile in profiles:
        for colour, text in notes(profile, now):
            _print_note(console, str(profile.get("profile")), text, colour)


def _headline(agent: Status, now: float) -> Text:
    up = span(now - agent["started_at"]) if isinstance(agent.get("started_at"), int) else "unknown"
    text = Text(f"Agent {agent.get('version', '?')}, pid {agent.get('pid', '?')}, up {up}")
    text.append(", under systemd" if agent.get("systemd") else "")
    text.append(f", {agent.get('connections', 0)} connected")
    text.append(f", default profile {agent.get('default_profile', 'default')}.")
    if agent.get("locked"):
        text.append(" LOCKED: `d7agent unlock` opens it.", style="magenta")
    return text


def _row(profile: Status, now: float, blocks: str) -> tuple[Text, ...]:
    state = str(profile.get("state", ""))
    return (
        Text(one_line(str(profile.get("profile", "")))),
        Text(state_word(state), style=COLOURS.get(state, "")),
        Text(time_left(profile, blocks)),
        Text(_next_refresh(profile, now)),
        Text(_store(str(profile.get("store", "")))),
    )


def _print_rows(console: Console, rows: list[tuple[Text, ...]]) -> None:
    if console.width >= ROOM:
        table = Table(*COLUMNS, box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
        for row in rows:
            table.add_row(*row)
        console.print(Padding(table, (1, 0)))
        return
    for name, *values in rows:
        console.print()
        console.print(name, style="bold")
        for label, value in zip(COLUMNS[1:], values, strict=True):
            console.print(Text(f"  {label + ':':<14}").append(value), soft_wrap=True)
    console.print()


def _print_note(console: Console, about: str, text: str, colour: str) -> None:
    console.print(Text(f"{one_line(about)}: ", style=colour).append(one_line(text), style="default"), soft_wrap=True)


def time_left(profile: Status, blocks: str) -> str:
    """The span that is left, behind a bar where the life is known. `blocks`: the signs of a full and an empty cell."""
    left = profile.get("valid_for")
    if not isinstance(left, int):
        return "no expiry" if profile.get("state") in ("fresh", "stale") else "-"
    begin, end = profile.get("issued_at"), profile.get("expires_at")
    if not isinstance(begin, int) or not isinstance(end, int) or end <= begin:
        return span(left)
    full = min(CELLS, max(0, round(CELLS * left / (end - begin))))
    return f"{blocks[0] * full}{blocks[1] * (CELLS - full)} {span(left)}"


def _next_refresh(profile: Status, now: float) -> str:
    at = profile.get("refresh_at")
    if not isinstance(at, int):
        return "-"
    when = f"in {span(at - now)}" if at > now else "now"
    if at - now > 86_400:
        when = instant(at)
    why = profile.get("refresh_why")
    return one_line(f"{when}, {why}" if why else when)


def _store(store: str) -> str:
    kind, _, rest = one_line(store).partition(":")
    if kind == "keyring" and rest:
        return f"keyring ({rest.removeprefix('keyring.backends.').removesuffix('.Keyring')})"
    return f"{kind}:{rest}" if rest else kind
