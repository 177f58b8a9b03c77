"""`watch`, `renew` and `reject`: what happens to a token after it was handed out."""

import json
import sys
from typing import Any

import click

from d7agent.cli import options, output, prompts, spans
from d7agent.cli.link import reach
from d7agent.client.blocking import MARGIN, fingerprint, token_of


@click.command(cls=options.Command)
@options.profile_option
@options.socket_option
@options.no_start_option
def watch(profile: str | None, socket: str | None, no_start: bool) -> None:
    """Print a line of JSON now, and one for every new token.

    Each line is the Token of the interface io.d7agent: access_token, header, valid_for (seconds) and more. It ends with
    status 3 when the agent ends, and with another error when the profile has no token to give any more.
    """
    with reach(socket, start=not no_start) as agent:
        agent.close()  # a stream has a connection of its own
        for token in agent.stream(profile):
            output.out(json.dumps(token, separators=(",", ":"), ensure_ascii=False) + "\n")


@click.command(cls=options.Command)
@options.profile_option
@options.socket_option
@options.max_wait_option
def renew(profile: str | None, socket: str | None, max_wait: int) -> None:
    """Log in to D7 now and get a new token.

    For the owner of the agent and root. Within 10 s of a login the token of that login is the answer.
    """
    with reach(socket, timeout=max_wait + MARGIN) as agent:
        token = token_of(agent.call("RenewToken", {"profile": profile, "max_wait": max_wait}))
    output.out(f"Profile {_name(token)} has token {token.get('serial')}, {spans.validity(token.get('valid_for'))}.\n")


@click.command(cls=options.Command)
@options.profile_option
@options.socket_option
@options.max_wait_option
def reject(profile: str | None, socket: str | None, max_wait: int) -> None:
    r"""Report a token that D7 refused; it is read from stdin.

    \b
    printf '%s\n' "$TOKEN" | d7agent reject

    Only a fingerprint of it goes to the agent, which has a better one when this returns with status 0.
    """
    refused = _refused()
    params = {"fingerprint": fingerprint(refused), "profile": profile, "max_wait": max_wait}
    with reach(socket, timeout=max_wait + MARGIN) as agent:
        token = token_of(agent.call("RejectToken", params))
    if token["access_token"] == refused:
        output.out(f"Profile {_name(token)}: D7 accepts this token. Check the header of the refused request.\n")
    else:
        output.out(f"Profile {_name(token)} has another token, {spans.validity(token.get('valid_for'))}.\n")


def _refused() -> str:
    if sys.stdin is not None and sys.stdin.isatty():
        return prompts.clean(prompts.hidden("Refused token"), "token")
    lines = prompts.piped_lines("the refused token")
    if len(lines) > 1:
        raise output.Failure("stdin holds more than one line", "pipe in the token and nothing else", 2)
    return prompts.clean(lines[0], "token")


def _name(token: dict[str, Any]) -> str:
    return str(token.get("profile", ""))
