"""`status`: a table for people, versioned JSON for programs."""

import json
from collections.abc import Callable
from typing import Any, Final

import click

from d7agent.cli import options, output
from d7agent.cli.link import reach

JSON_VERSION: Final = 1  # raised when a reader of the former would misread it; new fields do not raise it


def as_table(status: dict[str, Any]) -> str:
    """For people."""
    from d7agent.cli.table import render

    return render(status)


def as_json(status: dict[str, Any]) -> str:
    """For programs: `version`, and what GetStatus says."""
    document = {"version": JSON_VERSION, "agent": status.get("agent", {}), "profiles": status.get("profiles", [])}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


FORMATS: Final[dict[str, Callable[[dict[str, Any]], str]]] = {"table": as_table, "json": as_json}


@click.command(cls=options.Command)
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="table", show_default=True,
              help="table for people, json for programs.")  # fmt: skip
@click.option("--json", "json_too", is_flag=True, help="The same as --format json.")
@options.profile_option
@options.socket_option
def status(form: str, json_too: bool, profile: str | None, socket: str | None) -> None:
    """Show the agent and its profiles: state, time left, next refresh, the last error and what to do about it.

    Status 0 whenever the agent answers, whatever it says: a monitoring system wants `d7agent check`.
    """
    with reach(socket) as agent:
        found = agent.status(profile)
    output.out(FORMATS["json" if json_too else form](found))
