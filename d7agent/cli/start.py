"""`start`: ssh-agent's manners."""

import contextlib
import os
import select
import signal
import subprocess
from typing import Final

import click

from d7agent.cli import autostart, background, options, output, quoting
from d7agent.cli.output import Failure

VARIABLE: Final = "D7AGENT_SOCK"
END_LIMIT: Final = 20.0  # seconds for the agent to leave after its command


@click.command(cls=options.Command, context_settings={"allow_interspersed_args": False})
@click.option("--shell", type=click.Choice(quoting.SHELLS), help="Whose syntax to print, if not that of $SHELL.")
@click.option("--socket", metavar="PATH", type=click.Path(), help="Where it is to listen, if not at the usual place.")
@click.argument(options.COMMAND, nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND [ARG]...]",
                shell_complete=options.complete_command)  # fmt: skip
@click.pass_context
def start(ctx: click.Context, shell: str | None, socket: str | None, command: tuple[str, ...]) -> None:
    r"""Start an agent in the background, and print what makes a shell find it.

    \b
    eval "$(d7agent start)"                  sh, bash, zsh
    d7agent start --shell fish | source
    d7agent start -- COMMAND                 the agent lives as long as the command

    If an agent answers there already, that one is used, and left running. Nothing is printed with COMMAND, which finds
    D7AGENT_SOCK in its environment and gives its exit status. The agent's log is agent.log in its state folder.
    """
    path = _socket(socket)
    if command:
        ctx.exit(_with_command(path, command))
    autostart.start_once(path, idle_exit=None)
    form = shell or quoting.guess_shell(os.environ)
    output.out(quoting.assignments("sh" if form in ("bash", "zsh") else form, {VARIABLE: path}))


def _socket(named: str | None) -> str:
    """--socket, else the agent that D7AGENT_SOCK names and that answers, else the user's own place."""
    if named:
        return os.path.abspath(named)
    found = os.environ.get(VARIABLE)
    return found if found and autostart.answers(found) else background.own_paths().socket


def _with_command(path: str, command: tuple[str, ...]) -> int:
    """Run the command beside an agent; its exit status, as a shell counts it."""
    agent = autostart.start_once(path, idle_exit=None, tied=True)
    try:
        return _run(command, {**os.environ, VARIABLE: path})
    finally:
        if agent:
            _end(agent)


def _run(command: tuple[str, ...], env: dict[str, str]) -> int:
    early: list[int] = []  # signals that came before there was anybody to pass them on to
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _: object) -> None:
        if child is None:
            early.append(number)
        else:
            child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    for number in (signal.SIGINT, signal.SIGQUIT):  # the terminal sends these to the command as well
        signal.signal(number, lambda *_: None)
    child = _started(command, env)
    for came in early:
        child.send_signal(came)
    status = child.wait()
    return status if status >= 0 else 128 - status


def _started(command: tuple[str, ...], env: dict[str, str]) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(command, env=env)
    except FileNotFoundError:
        raise Failure(f"{command[0]}: no such command", "check its name and your PATH", 127) from None
    except OSError as error:
        raise Failure(f"{command[0]}: {error.strerror}", "check that it may be executed", 126) from None


def _end(agent: int) -> None:
    """Let our child end in good order, or end it."""
    with contextlib.suppress(ChildProcessError, ProcessLookupError):
        os.kill(agent, signal.SIGTERM)
        pidfd = os.pidfd_open(agent)
        if not select.select([pidfd], [], [], END_LIMIT)[0]:
            os.kill(agent, signal.SIGKILL)
        os.waitpid(agent, 0)
