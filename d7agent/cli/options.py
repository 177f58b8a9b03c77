"""The options that commands share, and the command class that repeats no stray argument."""

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from d7agent.cli.output import Failure
from d7agent.core.durations import parse_duration

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])

MAX_WAIT: Final = 20  # seconds; Nagios kills a check after 30
LONGEST: Final = 366 * 24 * 3600  # seconds; what the wire allows
COMPLETE_LIMIT: Final = 0.5  # seconds that the TAB key waits for the agent
COMMAND: Final = "command"  # the parameter of `exec` and `start` that holds another command's words
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class Seconds(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """A span of time as in the configuration: `90`, `90s`, `5m`, `12h`."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Seconds, within what the wire allows."""
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if seconds > LONGEST:
            self.fail("must not be longer than 366 days", param, ctx)
        return seconds


class Command(click.Command):
    """A command that does not repeat arguments it has no use for: they may be secrets that belong on stdin."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.help = (self.help or "").replace("\\b\n", "\b\n")  # click's mark of lines to leave as they are

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's, with a usage error that keeps the extra arguments to itself."""
        ctx.allow_extra_args = True
        rest = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            hint = f"`{ctx.command_path} --help` shows the usage; secrets go to stdin, never onto the command line"
            raise Failure(f"{len(rest)} argument{'s' * (len(rest) > 1)} too many", hint, 2)
        return rest

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem[str]]":
        """As click's; but where another command's words have begun, an option is that one's."""
        return words_before(ctx) if ctx.params.get(COMMAND) else super().shell_complete(ctx, incomplete)


def check_profile(ctx: click.Context, _: click.Parameter, value: str | None) -> str | None:
    """Let only profile names through, and repeat nothing else: it may be a secret in the wrong place."""
    if value is None or ctx.resilient_parsing or _NAME.fullmatch(value):
        return value
    raise Failure(
        "that is no profile name: small letters, digits, _ and -, at most 64, a letter or digit first",
        "`d7agent status` lists the profiles; secrets go to stdin, never onto the command line",
        2,
    )


def complete_profile(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The agent's profiles that begin so; none when it does not answer."""
    from d7agent.client.blocking import Agent, AgentError

    socket = ctx.params.get("socket")
    try:
        with Agent(socket and os.path.expanduser(socket), timeout=COMPLETE_LIMIT) as agent:
            profiles = agent.status()["profiles"]
    except AgentError:
        return []
    names = (str(profile.get("profile", "")) for profile in profiles)
    return [name for name in names if name.startswith(incomplete) and _NAME.fullmatch(name)]


def complete_command(ctx: click.Context, _: click.Parameter, __: str) -> "list[CompletionItem[str]]":
    """The words of another command: the shell knows how to complete those."""
    return words_before(ctx)


def words_before(ctx: click.Context) -> "list[CompletionItem[str]]":
    """Tells the shell how many of another command's words stand before the one to complete."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(str(len(ctx.params.get(COMMAND) or ())), type="command")]


def profile_option(function: F) -> F:
    """`-p/--profile NAME`."""
    return click.option(
        "-p", "--profile", metavar="NAME", callback=check_profile, shell_complete=complete_profile,
        help="Which profile; without it the agent's default one.",
    )(function)  # fmt: skip


def socket_option(function: F) -> F:
    """`--socket PATH`."""
    return click.option(
        "--socket", metavar="PATH", type=click.Path(readable=False),
        help="The agent's socket; without it $D7AGENT_SOCK, your own agent's, the system's.",
    )(function)  # fmt: skip


def no_start_option(function: F) -> F:
    """`--no-start`."""
    return click.option("--no-start", is_flag=True, help="Fail when no agent runs instead of starting one.")(function)


def min_validity_option(function: F) -> F:
    """`--min-validity SECONDS`."""
    return click.option(
        "--min-validity",
        metavar="SECONDS",
        type=Seconds(),
        help="How long it must still be good.",
    )(function)


def max_wait_option(function: F) -> F:
    """`--max-wait SECONDS`."""
    return click.option(
        "--max-wait", metavar="SECONDS", type=Seconds(), default=MAX_WAIT, show_default=True,
        help="How long to wait for a token.",
    )(function)  # fmt: skip


def token_options(function: F) -> F:
    """What every command takes that asks for a token, and starts an agent for it."""
    for option in (no_start_option, max_wait_option, min_validity_option, socket_option, profile_option):
        function = option(function)
    return function
