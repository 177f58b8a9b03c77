"""`service`: the agent in the hands of systemd."""

import os
from typing import Final

import click

from d7agent.cli import options, output
from d7agent.cli.output import Failure

system_option: Final = click.option(
    "--system", is_flag=True, help="The host's agent, for other users and services (as root), not your own."
)


@click.group(no_args_is_help=False)
def service() -> None:
    """Have systemd start the agent at the first request, and keep it running."""


@service.command(cls=options.Command, short_help="Put the units in place and enable the socket.")
@system_option
def install(system: bool) -> None:
    """Write the units for this installation and enable the socket; again, to bring them up to date.

    An agent of yours that runs otherwise is ended first: its tokens are remembered, or come anew from D7. Files that
    others wrote are left alone.
    """
    from d7agent.cli import installing

    _as_root(system, "install")
    output.out("".join(f"{line}\n" for line in installing.install(system)))


@service.command(cls=options.Command, short_help="Stop the agent and remove the units.")
@system_option
def uninstall(system: bool) -> None:
    """Stop the agent and remove the units that `service install` wrote.

    Credentials, configuration, state and the user d7agent stay.
    """
    from d7agent.cli import installing

    _as_root(system, "uninstall")
    output.out("".join(f"{line}\n" for line in installing.uninstall(system)))


@service.command(cls=options.Command)
@system_option
@click.pass_context
def status(ctx: click.Context, system: bool) -> None:
    """Show what is installed, enabled and running. Status 0 when systemd listens for the agent, else 3."""
    from d7agent.cli import unit_report

    lines, listening = unit_report.report(system)
    output.out("".join(f"{line}\n" for line in lines))
    ctx.exit(0 if listening else 3)


def _as_root(system: bool, verb: str) -> None:
    if system and os.geteuid() != 0:
        raise Failure("only root may change the host's services", f"sudo d7agent service {verb} --system", 8)
