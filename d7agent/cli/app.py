"""The click application: which commands there are, and how each run of one ends."""

import os
import sys
from typing import TYPE_CHECKING, Final, NoReturn

import click

from d7agent import __version__
from d7agent.cli import output, pending
from d7agent.client.blocking import AgentError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# name -> module in d7agent.cli, attribute, and the line in `d7agent --help` (so that help imports none of them).
COMMANDS: Final = {
    "token": ("tokens", "token", "Print an access token."),
    "header": ("tokens", "header", "Print the Authorization header, for curl -H @- and others."),
    "env": ("environment", "env", "Print shell code that sets D7_API_TOKEN."),
    "exec": ("environment", "exec_", "Run a command with the token in its environment."),
    "watch": ("renewal", "watch", "Print a line of JSON for every new token."),
    "renew": ("renewal", "renew", "Log in to D7 now and get a new token."),
    "reject": ("renewal", "reject", "Report a token that D7 refused (on stdin)."),
    "login": ("login", "login", "Prove a credential at D7 and store it."),
    "logout": ("logout", "logout", "Forget a credential and its token."),
    "status": ("status", "status", "Show agent and profiles."),
    "check": ("check", "check", "Tell a monitoring system how the agent does."),
    "doctor": ("doctor.command", "doctor", "Find out what is wrong, and how to mend it."),
    "lock": ("locking", "lock", "Lock the agent with a passphrase."),
    "unlock": ("locking", "unlock", "Unlock the agent."),
    "start": ("start", "start", "Start an agent in the background."),
    "stop": ("control", "stop", "End the agent."),
    "reload": ("control", "reload", "Make the agent read its configuration again."),
    "run": ("control", "run", "Be the agent, in the foreground."),
    "service": ("service", "service", "Have systemd run the agent."),
    "sandbox": ("sandbox", "sandbox", "Serve an embedded D7 for tries and tests."),
}

EPILOG: Final = """\b
Exit status: 0 done, 2 usage, 3 no agent, 4 no such profile or no credential,
5 rejected by D7, 6 unavailable for now, 7 agent locked, 8 not permitted,
9 store unavailable, 1 anything else.
"""


class Commands(click.Group):
    """The table above as a group that imports a command only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """The names, in the order in which a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the module that holds the command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        from importlib import import_module

        command = getattr(import_module(f"d7agent.cli.{module}"), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"d7agent.cli.{module}.{attribute} is no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The command list of the help, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem[str]]":
        """The commands that begin so, from the table alone, and the options."""
        from click.shell_completion import CompletionItem

        rows = ((name, line) for name, (_, _, line) in COMMANDS.items() if name.startswith(incomplete))
        return [
            *(CompletionItem(name, help=line) for name, line in rows),
            *click.Command.shell_complete(self, ctx, incomplete),
        ]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's, but a bare `d7agent` is told what comes first."""
        if not args and not ctx.resilient_parsing:
            hint = "`d7agent --help` lists the commands; `d7agent login` comes first"
            raise output.Failure("no command was given", hint, 2)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, but a word that may be a pasted token is not repeated."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            shown = f" {args[0]!r}" if args[0].isalpha() and len(args[0]) < 20 else ""
            raise click.UsageError(f"there is no such command{shown}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=Commands, no_args_is_help=False, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, "-V", "--version", message="d7agent %(version)s")
def cli() -> None:
    """Hand a valid D7 Networks access token to every local program.

    One agent holds the credential; `d7agent login` stores it once, `d7agent header | curl -H @- URL` uses it.
    """


def main(reply: bytes | None = None) -> NoReturn:
    """Run sys.argv and exit. `reply`: what the short way got from the agent (b"": nothing in time; None: not asked)."""
    pending.keep(reply)
    status = run(sys.argv[1:])
    output.settle()
    sys.exit(status)


def run(args: list[str]) -> int:
    """Run one command line; its exit status. Every error has become two lines on stderr, never a traceback."""
    try:
        return _run(args)
    except KeyboardInterrupt:
        return output.interrupted()
    except (AgentError, output.Failure) as error:
        return output.fail(error.message, error.hint, error.exit_code)
    except click.ClickException as error:
        return _usage(error)
    except BrokenPipeError:
        return output.quiet()
    except OSError as error:
        return _system(error)
    except Exception as error:  # noqa: BLE001  whatever it is, a person reads it
        return _bug(error)


def _run(args: list[str]) -> int:
    """As click's own main, without its blank line at Ctrl-C."""
    if instruction := os.environ.get("_D7AGENT_COMPLETE"):
        from d7agent.cli.completing import respond

        return respond(cli, instruction)
    status = 0
    try:
        with cli.make_context("d7agent", args) as ctx:
            cli.invoke(ctx)
    except click.exceptions.Exit as leave:
        status = leave.exit_code
    except click.Abort:
        return output.interrupted()
    return status


def _usage(error: click.ClickException) -> int:
    ctx = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".")
    hint = f"`{ctx.command_path if ctx else 'd7agent'} --help` shows the usage"
    return output.fail(message[:1].lower() + message[1:], hint, error.exit_code)


def _system(error: OSError) -> int:
    where = f"{error.filename}: " if error.filename else ""
    return output.fail(f"{where}{error.strerror or type(error).__name__}", "", 1)


def _bug(error: Exception) -> int:
    """An error that nobody foresaw. Its text is left out: it may quote a secret."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    if os.environ.get("D7AGENT_DEBUG"):
        output.complain("".join(traceback.format_list(frames)).rstrip())
    at = f"{frames[-1].name}, line {frames[-1].lineno} of {os.path.basename(frames[-1].filename)}"
    hint = "please report this at the project's issue tracker; with D7AGENT_DEBUG=1 the way there is shown"
    return output.fail(f"unexpected {type(error).__name__} in {at}", hint, 1)
