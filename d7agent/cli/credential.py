"""Where `login` takes a credential from: a terminal, stdin, the environment; never the command line."""

import os
from typing import TYPE_CHECKING, Final

import click

from d7agent.cli import prompts
from d7agent.cli.output import Failure

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def obtain(ready_made: bool, piped: bool, from_env: bool, store: str) -> dict[str, str]:
    """The secret parameters of StoreCredential, from where the user wants them taken; none where the store has them."""
    if piped:
        return _from_stdin(ready_made)
    if from_env:
        return _from_env(ready_made)
    if not ready_made and not takes_secrets(store):
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


def takes_secrets(store: str) -> bool:
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


STORES: Final = {
    "keyring": "the desktop's keyring",
    "directory:": "files in a folder: client_id and client_secret, or access_token",
    "command:": "a program that prints the credential",
    "environment": "D7_CLIENT_ID and D7_CLIENT_SECRET, or D7_API_TOKEN, of the agent",
}


def complete_store(_: click.Context, __: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """The kinds of store that begin so; behind `directory:` the folders."""
    from click.shell_completion import CompletionItem

    if incomplete.startswith("directory:"):
        return [CompletionItem("directory:", type="folder")]
    return [CompletionItem(kind, help=text) for kind, text in STORES.items() if kind.startswith(incomplete)]
