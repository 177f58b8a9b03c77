"""`doctor`: everything that a user can get wrong, each with its remedy; or, with --scan, tokens left in files."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Final

import click

from d7agent.cli import options, output
from d7agent.cli.doctor import agents, configuration, profiles, reports, sockets, units
from d7agent.cli.doctor.finding import Finding, error
from d7agent.cli.doctor.scene import Scene, gather

JSON_VERSION: Final = 1  # raised when a reader of the former would misread it; new findings do not raise it
CHECKS: Final[dict[str, Callable[[Scene], Iterator[Finding]]]] = {
    "sockets": sockets.check,
    "agents": agents.check,
    "units": units.check,
    "configuration": configuration.check,
    "profiles": profiles.check,
    "reports": reports.check,
}
MARKS: Final = {"ok": ("ok", "green"), "warn": ("warning", "yellow"), "error": ("ERROR", "bold red")}


@click.command(cls=options.Command)
@click.option("--json", "as_json", is_flag=True, help="For programs: `version`, `ok` and `findings`.")
@click.option("--scan", is_flag=True, help="Look for D7 tokens in these files and folders instead.")
@options.socket_option
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path())
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, scan: bool, paths: tuple[str, ...], socket: str | None) -> None:
    r"""Look at everything that can be wrong, and say how to mend it.

    Sockets, agent, systemd's units, configuration, modes of files, keyring, the way to D7, clock. It makes one call to
    D7 without a token, no login, starts no agent and changes nothing.

    \b
    d7agent doctor --scan /usr/lib/nagios/plugins /etc/systemd/system

    prints file and line of each D7 token that was pasted into a script or unit, never the token, and what to put there.

    Status 0 when all is well (with --scan: nothing was found), 1 otherwise.
    """
    if scan != bool(paths):
        raise click.UsageError("--scan needs at least one PATH" if scan else "PATH goes with --scan")
    if scan:
        from d7agent.cli.scan import report

        ctx.exit(report(paths, as_json=as_json))
    findings = examine(gather(os.environ, os.geteuid(), socket))
    output.out(_json(findings) if as_json else _text(findings))
    ctx.exit(int(any(finding.level != "ok" for finding in findings)))


def examine(scene: Scene) -> list[Finding]:
    """All findings, in the order in which they are best mended."""
    return [finding for name, check in CHECKS.items() for finding in _safely(name, check, scene)]


def _safely(name: str, check: Callable[[Scene], Iterator[Finding]], scene: Scene) -> list[Finding]:
    """One check that fails does not take the others with it."""
    found: list[Finding] = []
    try:
        found.extend(check(scene))
    except Exception as fault:  # noqa: BLE001  its text is left out: it may quote a secret
        what = fault.strerror if isinstance(fault, OSError) else type(fault).__name__
        text = f"the check of {name} could not be finished: {what}"
        found.append(error("doctor", text, "please report this at the project's issue tracker"))
    return found


def _json(findings: list[Finding]) -> str:
    rows = [{name: getattr(finding, name) for name in Finding.__struct_fields__} for finding in findings]
    fine = all(finding.level == "ok" for finding in findings)
    return json.dumps({"version": JSON_VERSION, "ok": fine, "findings": rows}, indent=2, ensure_ascii=False) + "\n"


def _text(findings: list[Finding]) -> str:
    if sys.stdout is not None and sys.stdout.isatty():
        return _table(findings)
    return "".join(_lines(finding) for finding in findings)


def _lines(finding: Finding) -> str:
    remedy = f"{'':9}-> {output.one_line(finding.remedy)}\n" if finding.remedy else ""
    return f"{MARKS[finding.level][0]:<8} {finding.id}: {output.one_line(finding.text)}\n{remedy}"


def _table(findings: list[Finding]) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("", "Check", "What was found", box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for finding in findings:
        said = Text(output.one_line(finding.text))
        if finding.remedy:
            said.append(f"\n→ {output.one_line(finding.remedy)}", style="cyan")
        table.add_row(Text(*MARKS[finding.level]), finding.id, said)
    console = Console(highlight=False, markup=False, emoji=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()
