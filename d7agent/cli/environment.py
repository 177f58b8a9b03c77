"""`env` and `exec`: for programs that read the token from their environment."""

import os
import signal
from typing import Any, Final, NoReturn

import click

from d7agent.cli import options, output, quoting
from d7agent.cli.link import ask_token
from d7agent.cli.output import Failure

VARIABLE: Final = "D7_API_TOKEN"


def check_names(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Let only names of variables through."""
    for name in value:
        if not quoting.VARIABLE.fullmatch(name):
            raise click.BadParameter("not the name of a variable", ctx, param)
    return value


@click.command(cls=options.Command)
@click.option("--shell", "form", type=click.Choice(quoting.FORMS), help="Without it, the one of $SHELL.")
@click.option("--name", "names", multiple=True, metavar="NAME", callback=check_names,
              help=f"The variable, {VARIABLE} by default; may be repeated.")  # fmt: skip
@options.token_options
def env(form: str | None, names: tuple[str, ...], **asked: Any) -> None:
    r"""Print shell code that sets and exports the token.

    \b
    eval "$(d7agent env)"                    sh, bash, zsh
    d7agent env --shell fish | source
    d7agent env --shell dotenv > .env        mind who may read the file

    A variable does not follow the token when it is renewed: for what runs long, `d7agent exec` or an always-fresh file.
    """
    token = str(ask_token(**asked)["access_token"])
    output.out(quoting.assignments(form or quoting.guess_shell(os.environ), dict.fromkeys(names or (VARIABLE,), token)))


@click.command("exec", cls=options.Command, context_settings={"allow_interspersed_args": False})
@click.option("--env", "names", multiple=True, metavar="NAME", callback=check_names,
              help=f"The variable, {VARIABLE} by default; may be repeated.")  # fmt: skip
@click.option("--fd", type=click.IntRange(0, 1023), metavar="N",
              help="Hand the token over on this file descriptor; in the environment only with --env.")  # fmt: skip
@options.token_options
@click.argument(options.COMMAND, nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARG]...",
                shell_complete=options.complete_command)  # fmt: skip
def exec_(names: tuple[str, ...], fd: int | None, command: tuple[str, ...], **asked: Any) -> NoReturn:
    r"""Run a command with the token in its environment.

    d7agent becomes the command, so signals and exit status are the command's own. Without a token it is not started.

    \b
    d7agent exec -- ./send.py
    d7agent exec --fd 3 -- sh -c 'read -r TOKEN <&3; ...'
    """
    if fd in (1, 2):
        raise click.BadParameter("1 and 2 are the command's output", param_hint="--fd")
    token = str(ask_token(**asked)["access_token"])
    if fd is not None:
        _hand_over(token, fd)
    if fd is None or names:
        os.environ.update(dict.fromkeys(names or (VARIABLE,), token))
    _become(command)


def _hand_over(token: str, fd: int) -> None:
    """Put the token and a line end into a pipe that the command inherits under this number."""
    reader, writer = os.pipe()  # holds 64 KiB: four times the longest token
    os.write(writer, f"{token}\n".encode())
    try:
        if reader != fd:
            os.dup2(reader, fd)
        os.set_inheritable(fd, True)
    except OSError as error:
        raise Failure(f"--fd {fd}: {error.strerror}", "choose a smaller number, such as 3", 2) from None
    if writer != fd:
        os.close(writer)


def _become(command: tuple[str, ...]) -> NoReturn:
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and an ignored signal stays so in the command
    try:
        os.execvp(command[0], command)  # noqa: S606  no shell is the point  # nosec B606
    except FileNotFoundError:
        raise Failure(f"{command[0]}: no such command", "check its name and your PATH", 127) from None
    except OSError as error:
        raise Failure(f"{command[0]}: {error.strerror}", "check that it may be executed", 126) from None
