"""`status`: a table for people, versioned JSON for programs, OpenMetrics for Prometheus."""

import json
from collections.abc import Callable
from typing import Any, Final

import click

from d7agent.cli import options, output
from d7agent.cli.link import reach
from d7agent.client.blocking import AgentError

JSON_VERSION: Final = 1  # raised when a reader of the former would misread it; new fields do not raise it


def as_table(status: dict[str, Any]) -> str:
    """For people."""
    from d7agent.cli.table import render

    return render(status)


def as_json(status: dict[str, Any]) -> str:
    """For programs: `version`, and what GetStatus says."""
    document = {"version": JSON_VERSION, "agent": status.get("agent", {}), "profiles": status.get("profiles", [])}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def as_openmetrics(status: dict[str, Any]) -> str:
    """For Prometheus and others."""
    from d7agent.cli.openmetrics import render

    return render(status)


FORMATS: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "table": as_table,
    "json": as_json,
    "openmetrics": as_openmetrics,
}


@click.command(cls=options.Command)
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="table", show_default=True,
              help="table for people, json for programs, openmetrics for Prometheus.")  # fmt: skip
@click.option("--json", "json_too", is_flag=True, help="The same as --format json.")
@click.option("--output", "target", metavar="FILE", type=click.Path(dir_okay=False),
              help="Write this file, mode 0644, whole or not at all, in place of stdout.")  # fmt: skip
@options.profile_option
@options.socket_option
def status(form: str, json_too: bool, target: str | None, profile: str | None, socket: str | None) -> None:
    """Show the agent and its profiles: state, time left, next refresh, the last error and what to do about it.

    Status 0 whenever the agent answers, whatever it says: a monitoring system wants `d7agent check`. Where no agent
    answers, --format openmetrics --output FILE still writes `d7agent_up 0`.
    """
    form = "json" if json_too else form
    try:
        with reach(socket) as agent:
            text = FORMATS[form](agent.status(profile))
    except AgentError:
        if form == "openmetrics" and target:
            _write_down(target)
        raise
    if target:
        _write(target, text)
    else:
        output.out(text)


def _write(target: str, text: str) -> None:
    from d7agent.cli.openmetrics import write

    write(target, text)


def _write_down(target: str) -> None:
    from d7agent.cli.openmetrics import down

    _write(target, down())
