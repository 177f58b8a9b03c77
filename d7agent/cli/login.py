"""`login` and `logout`: a credential comes in, is proved and stored; and is forgotten again."""

import os
import sys
from typing import Any, Final

import click

from d7agent.cli import options, output, prompts, spans
from d7agent.cli.link import reach
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
@click.option("--store", metavar="STORE", help="Where it lives: keyring[:BACKEND], directory:PATH, command:ARGV or "
              "environment[:PREFIX]; kept in the profile.")  # fmt: skip
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
    with reach(socket, start=not no_start, timeout=LIMIT) as agent:
        wish = _target(agent, _one_name(name, profile), store)
        secret = _secret(ready_made, piped, from_env, wish["store"])
        wish |= {"base_url": base_url, "store": store, "verify": False if no_verify else None}
        status = _store(agent, wish | secret)
    output.out(_success(status, proved=not no_verify, here=bool(secret)))


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
    with reach(socket, timeout=60) as agent:
        chosen = _one_name(name, profile) or _default_profile(agent.status())
        if not yes:
            _confirm(chosen)
        kept = agent.call("ForgetCredential", {"profile": chosen}).get("kept") or []
    text = f"Logged out: the agent has forgotten credential and token of profile {chosen}.\n"
    text += "".join(f"Kept, because a person wrote it: {output.one_line(str(path))}\n" for path in kept)
    text += "D7 cannot revoke tokens: to end those in use, delete the application in D7's control panel.\n"
    output.out(text)


def _one_name(name: str | None, profile: str | None) -> str | None:
    if name and profile and name != profile:
        raise Failure("two different profiles are named", "name it once: `d7agent login PROFILE`", 2)
    return name or profile


def _default_profile(status: dict[str, Any]) -> str:
    return str(status.get("agent", {}).get("default_profile") or "default")


def _target(agent: Agent, name: str | None, store: str | None) -> dict[str, Any]:
    """The profile's name and the store it has or is to have; asking for them shows that the agent is there for us."""
    status = agent.status()
    if status.get("agent", {}).get("locked"):
        agent.call("GetToken", {"profile": name, "max_wait": 0})  # fails, in the agent's own words
    chosen = name or _default_profile(status)
    known = {str(p.get("profile")): str(p.get("store")) for p in status.get("profiles", [])}
    return {"profile": chosen, "store": store or known.get(chosen, DEFAULT_STORE)}


def _secret(ready_made: bool, piped: bool, from_env: bool, store: str) -> dict[str, str]:
    """The secret parameters of StoreCredential, from where the user wants them taken; none where the store has them."""
    if piped:
        return _from_stdin(ready_made)
    if from_env:
        return _from_env(ready_made)
    if not ready_made and not _takes_secrets(store):
        return {}
    prompts.need_terminal()
    if ready_made:
        return {"access_token": prompts.clean(prompts.hidden("Access token"), "token")}
    client_id = prompts.clean(prompts.shown("Client id"), "client id")
    return {"client_id": client_id, "client_secret": prompts.clean(prompts.hidden("Client secret"), "client secret")}


def _from_stdin(ready_made: bool) -> dict[str, str]:
    lines = prompts.piped_lines("the token" if ready_made else "client id and client secret")
    if ready_made and len(lines) == 1:
        return {"access_token": prompts.clean(lines[0], "token")}
    if not ready_made and len(lines) == 2:
        pair = zip(("client_id", "client_secret"), lines, strict=True)
        return {name: prompts.clean(line, name.replace("_", " ")) for name, line in pair}
    hint = "printf '%s\\n' TOKEN | d7agent login --token --stdin; printf '%s\\n%s\\n' ID SECRET | d7agent login --stdin"
    expected = "one line, the token" if ready_made else "two lines, client id and client secret"
    raise Failure(f"stdin holds {len(lines)} line{'s' * (len(lines) > 1)}, not {expected}", hint, 2)


def _from_env(ready_made: bool) -> dict[str, str]:
    pair, token = ("D7_CLIENT_ID", "D7_CLIENT_SECRET"), "D7_API_TOKEN"
    if not ready_made and all(os.environ.get(name) for name in pair):
        return {name[3:].lower(): prompts.clean(os.environ[name], name) for name in pair}
    if os.environ.get(token):
        return {"access_token": prompts.clean(os.environ[token], token)}
    wanted = token if ready_made else f"{' and '.join(pair)} (or {token})"
    raise Failure(f"the environment has no {wanted}", "export it in this shell, or leave --from-env away", 2)


def _takes_secrets(store: str) -> bool:
    """Whether `login` is to ask: not for a store that cannot be written, as far as can be seen from here."""
    kind, _, path = store.partition(":")
    if kind != "directory":
        return kind == "keyring"
    folder = os.path.expanduser(path)
    if not folder.startswith("/"):  # %d, $CREDENTIALS_DIRECTORY: systemd's, read-only
        return folder.startswith(("%h", "%t", "%S"))
    if folder.startswith(("/run/credentials/", "/run/secrets")) or os.path.islink(f"{folder}/..data"):
        return False
    while folder != "/" and not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    return os.access(folder, os.W_OK)


def _store(agent: Agent, wish: dict[str, Any]) -> dict[str, Any]:
    try:
        status = agent.call("StoreCredential", wish).get("profile")
    except NoAgent as error:
        error.hint = "whether it was stored is not known: see `d7agent status`"
        raise
    except AgentError as error:
        if "stored" not in error.message.lower():
            error.message = f"{error.message.rstrip('.')}. Nothing was stored"
        if isinstance(error, CredentialRejected) and error.fields.get("code") not in (None, *error.message.split()):
            error.message = f"D7 answered {error.fields['code']}: {error.message}"
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


def _confirm(profile: str) -> None:
    if sys.stdin is None or not sys.stdin.isatty():
        raise Failure("there is no terminal to ask whether you mean it", "add --yes", 2)
    if prompts.shown(f"Forget the credential of profile {profile}? [y/N]").strip().lower() not in ("y", "yes"):
        raise Failure("nothing was forgotten", "answer y, or add --yes", 1)
