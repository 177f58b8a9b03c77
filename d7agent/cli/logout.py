"""`logout`: a credential is forgotten."""

import sys

import click

from d7agent.cli import link, options, output, prompts
from d7agent.cli.output import Failure


@click.command(cls=options.Command)
@click.argument("name", metavar="[PROFILE]", required=False, callback=options.check_profile,
                shell_complete=options.complete_profile)  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask whether you mean it.")
@options.profile_option
@options.socket_option
def logout(name: str | None, profile: str | None, yes: bool, socket: str | None) -> None:
    """Forget the credential and the token of a profile.

    D7 has no way to revoke a token: those that were handed out stay valid until they expire, or until you delete the
    application in D7's control panel.
    """
    with link.reach(socket, timeout=60) as agent:
        chosen = link.one_name(name, profile) or link.default_profile(agent.status())
        if not yes:
            _confirm(chosen)
        kept = agent.call("ForgetCredential", {"profile": chosen}).get("kept") or []
    text = f"Logged out: the agent has forgotten credential and token of profile {chosen}.\n"
    text += "".join(f"Kept, because a person wrote it: {output.one_line(str(path))}\n" for path in kept)
    text += "D7 cannot revoke tokens: to end those in use, delete the application in D7's control panel.\n"
    output.out(text)


def _confirm(profile: str) -> None:
    if sys.stdin is None or not sys.stdin.isatty():
        raise Failure("there is no terminal to ask whether you mean it", "add --yes", 2)
    if prompts.shown(f"Forget the credential of profile {profile}? [y/N]").strip().lower() not in ("y", "yes"):
        raise Failure("nothing was forgotten", "answer y, or add --yes", 1)
