"""`login`: a credential comes in, is proved and stored."""

from typing import Any, Final

import click

from d7agent.cli import credential, link, options, output, spans
from d7agent.cli.output import Failure
from d7agent.client.blocking import Agent, AgentError, CredentialRejected, NoAgent

LIMIT: Final = 300.0  # seconds: a person may have to unlock the keyring first, and D7 has to answer
DEFAULT_STORE: Final = "keyring"


@click.command(cls=options.Command)
@click.argument("name", metavar="[PROFILE]", required=False, callback=options.check_profile,
                shell_complete=options.complete_profile)  # fmt: skip
@click.option("--token", "ready_made", is_flag=True, help="Store a ready-made access token in place of id and secret.")
@click.option("--stdin", "piped", is_flag=True, help="Read client id and secret, a line each, or the token from stdin.")
@click.option("--from-env", is_flag=True, help="Take them from D7_CLIENT_ID and D7_CLIENT_SECRET, or D7_API_TOKEN.")
@click.option("--base-url", metavar="URL", help="D7's address, if not https://api.d7networks.com; kept in the profile.")
@click.option("--store", metavar="STORE", shell_complete=credential.complete_store,
              help="Where it lives: keyring[:BACKEND], directory:PATH, command:ARGV or environment[:PREFIX]; "
              "kept in the profile.")  # fmt: skip
@click.option("--no-verify", is_flag=True, help="Store it without asking D7.")
@options.profile_option
@options.socket_option
@options.no_start_option
def login(
    name: str | None, profile: str | None, ready_made: bool, piped: bool, from_env: bool, base_url: str | None,
    store: str | None, no_verify: bool, socket: str | None, no_start: bool,
) -> None:  # fmt: skip
    r"""Prove a credential by logging in to D7, and store it.

    Asks for client id and client secret of the application that you made in D7's control panel. Where the store is a
    command, the environment or a read-only folder nothing is asked: what is there is proved.

    \b
    printf '%s\n%s\n' ID SECRET | d7agent login --stdin
    printf '%s\n' TOKEN | d7agent login --token --stdin
    """
    if piped and from_env:
        raise Failure("--stdin and --from-env exclude each other", "choose one", 2)
    with link.reach(socket, start=not no_start, timeout=LIMIT) as agent:
        wish = _target(agent, link.one_name(name, profile), store)
        secret = credential.obtain(ready_made, piped, from_env, wish["store"])
        wish |= {"base_url": base_url, "store": store, "verify": False if no_verify else None}
        status = _store(agent, wish | secret)
    output.out(_success(status, proved=not no_verify, here=bool(secret)))


def _target(agent: Agent, name: str | None, store: str | None) -> dict[str, Any]:
    """The profile's name and the store it has or is to have; asking for them shows that the agent is there for us."""
    status = agent.status()
    if status.get("agent", {}).get("locked"):
        agent.call("GetToken", {"profile": name, "max_wait": 0})  # fails, in the agent's own words
    chosen = name or link.default_profile(status)
    known = {str(p.get("profile")): str(p.get("store")) for p in status.get("profiles", [])}
    return {"profile": chosen, "store": store or known.get(chosen, DEFAULT_STORE)}


def _store(agent: Agent, wish: dict[str, Any]) -> dict[str, Any]:
    try:
        status = agent.call("StoreCredential", wish).get("profile")
    except NoAgent as error:
        error.hint = "whether it was stored is not known: see `d7agent status`"
        raise
    except AgentError as error:
        if "stored" not in error.message.lower():
            error.message = f"{error.message.rstrip('.')}. Nothing was stored"
        code = error.fields.get("code")
        if isinstance(error, CredentialRejected) and code and str(code) not in error.message:
            error.message = f"D7 answered {code}: {error.message}"
        raise
    return status if isinstance(status, dict) else {}


def _success(status: dict[str, Any], *, proved: bool, here: bool) -> str:
    name, store = str(status.get("profile", "")), str(status.get("store", ""))
    shown = store if not store.startswith("command:") else "the command of the profile"
    lines = [f"Logged in: profile {name}."]
    if proved:
        token = f"a token {spans.validity(status.get('valid_for'))}"
        lines.append(f"D7 at {status.get('base_url')} accepted the credential; the agent holds {token}.")
    else:
        lines.append("D7 was not asked; the first `d7agent token` will show whether the credential is good.")
    lines.append(f"It is kept in: {shown}." if here else f"It stays where it is: {shown}.")
    option = "" if name == "default" else f" -p {name}"
    base = status.get("base_url")
    lines.append(f"Next: d7agent header{option} | curl -H @- {base}/messages/v1/balance")
    return "".join(output.one_line(line) + "\n" for line in lines)
