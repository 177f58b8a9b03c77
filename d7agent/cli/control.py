"""`run`, `stop` and `reload`."""

import select
from typing import Any, Final

import click

from d7agent.cli import options, output
from d7agent.cli.link import reach
from d7agent.cli.output import Failure
from d7agent.core.paths import SYSTEM_SOCKET

STOP_LIMIT: Final = 20.0  # seconds: helpers under way get some to finish
RELOAD_LIMIT: Final = 30.0  # seconds


@click.command(cls=options.Command)
@click.option("--socket", metavar="PATH", type=click.Path(), help="Where to listen, if not at the usual place.")
@click.option("--system", is_flag=True, help="Be the host's agent: /etc/d7agent, /run/d7agent, [access] in effect.")
@click.option("--idle-exit", type=click.FloatRange(0.001), metavar="SECONDS", help="Leave when unused for so long.")
@click.option("-v", "--verbose", is_flag=True, help="Log every step, grants included; never a secret.")
@click.pass_context
def run(ctx: click.Context, socket: str | None, system: bool, idle_exit: float | None, verbose: bool) -> None:
    """Be the agent, in the foreground, logging to stderr.

    This is what systemd starts; the sockets that it passes are adopted.
    """
    from d7agent.agent.lean import keep_openssl_out

    keep_openssl_out()
    from d7agent.agent import daemon

    level = "debug" if verbose else "info"
    ctx.exit(daemon.main(socket=socket, system=system, idle_exit=idle_exit, log_level=level))


@click.command(cls=options.Command)
@options.socket_option
def stop(socket: str | None) -> None:
    """End the agent, and wait until it is gone. Credentials stay stored."""
    with reach(socket, timeout=STOP_LIMIT) as agent:
        systemctl = "systemctl" if agent.connect() == SYSTEM_SOCKET else "systemctl --user"
        about = agent.status().get("agent", {})
        end = _pidfd(about.get("pid"))
        agent.call("Shutdown")
        if end is not None and not _ended(end):
            raise Failure(f"the agent (pid {about['pid']}) was told to end and still runs", "its log says what it does")
    output.out("The agent has ended.\n")
    if about.get("systemd"):
        output.note(
            "hint: systemd starts it again at the next request; "
            f"`{systemctl} stop d7agent.socket d7agent.service` ends it for good"
        )


@click.command("reload", cls=options.Command)
@options.socket_option
def reload(socket: str | None) -> None:
    """Make the agent read its configuration again.

    If it is faulty the last good one stays in force, and this fails and says what is wrong.
    """
    with reach(socket, timeout=RELOAD_LIMIT) as agent:
        problems: list[Any] = agent.call("Reload").get("problems") or []
    if problems:
        raise Failure(
            "the configuration is faulty: " + "; ".join(map(str, problems)),
            "what was good before stays in force; mend it and reload again",
        )
    output.out("The configuration is in force.\n")


def _pidfd(pid: object) -> int | None:
    """A handle of the agent's process; None where it cannot be had (another PID namespace)."""
    import os

    try:
        return os.pidfd_open(pid) if isinstance(pid, int) else None
    except OSError:
        return None


def _ended(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], STOP_LIMIT)[0])
