"""`token` and `header`: one line on stdout, nothing else ever."""

import json
import sys
from collections.abc import Callable
from typing import Any, Final

import click

from d7agent.cli import options, output
from d7agent.cli.link import ask_token


def _curl(header: str) -> str:
    quoted = f"Authorization: {header}".replace("\\", "\\\\").replace('"', '\\"')
    return f'header = "{quoted}"'


FORMS: Final[dict[str, Callable[[str], str]]] = {
    "header": lambda header: f"Authorization: {header}",
    "value": lambda header: header,
    "curl": _curl,
    "json": lambda header: json.dumps({"Authorization": header}, separators=(",", ":")),
}

no_newline_option = click.option("--no-newline", is_flag=True, help="Print no line end.")


@click.command(cls=options.Command)
@options.token_options
@no_newline_option
def token(no_newline: bool, **asked: Any) -> None:
    """Print an access token that is good for a while yet.

    For API calls `d7agent header | curl -H @- URL` is safer: it keeps the token out of `ps` and of your history.
    """
    answer = ask_token(**asked)
    output.out(str(answer["access_token"]) + ("" if no_newline else "\n"))
    if sys.stdout.isatty():
        output.note("hint: the token is on your screen now; `d7agent header | curl -H @- URL` avoids that")


@click.command(cls=options.Command)
@click.option("--format", "form", type=click.Choice(list(FORMS)), default="header", show_default=True,
              help="header: for curl -H @-; value: without the name; curl: for curl -K -; json: object.")  # fmt: skip
@options.token_options
@no_newline_option
def header(form: str, no_newline: bool, **asked: Any) -> None:
    r"""Print the Authorization header of an API call.

    \b
    d7agent header | curl -H @- https://api.d7networks.com/messages/v1/balance
    d7agent header --format curl | curl -K - URL
    """
    answer = ask_token(**asked)
    output.out(FORMS[form](str(answer["header"])) + ("" if no_newline else "\n"))
