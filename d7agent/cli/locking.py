"""`lock` and `unlock`: the agent's own lock."""

import click

from d7agent.cli import options, output, prompts
from d7agent.cli.link import reach
from d7agent.cli.output import Failure

LIMIT = 60.0  # seconds: the passphrase is hashed slowly on purpose
UNLOCK_LIMIT = 150.0  # seconds: after wrong tries the agent looks at one a minute, and another may be before ours

stdin_option = click.option("--stdin", "piped", is_flag=True, help="Read the passphrase from stdin, its first line.")


@click.command(cls=options.Command)
@stdin_option
@options.socket_option
def lock(piped: bool, socket: str | None) -> None:
    """Lock the agent with a passphrase: it forgets every token and answers nothing until it is unlocked.

    The lock is not kept over a restart of the agent: whoever can restart it has the credential's store anyway.
    """
    with reach(socket, timeout=LIMIT) as agent:
        agent.call("Lock", {"passphrase": _piped() if piped else _asked_twice()})
    output.out(
        "The agent is locked: tokens and always-fresh files are gone, remembered tokens deleted.\n"
        "`d7agent unlock` opens it. The lock is not kept over a restart of the agent.\n"
    )


@click.command(cls=options.Command)
@stdin_option
@options.socket_option
def unlock(piped: bool, socket: str | None) -> None:
    """Unlock the agent with the passphrase it was locked with."""
    with reach(socket, timeout=UNLOCK_LIMIT) as agent:
        agent.call("Unlock", {"passphrase": _piped() if piped else _asked("Passphrase")})
    output.out("The agent is unlocked; it gets a new token at the first request.\n")


def _piped() -> str:
    return _checked(prompts.piped_lines("the passphrase")[0])


def _asked(question: str) -> str:
    prompts.need_terminal()
    return _checked(prompts.hidden(question))


def _asked_twice() -> str:
    passphrase = _asked("New passphrase")
    if prompts.hidden("The same again") != passphrase:
        raise Failure("the two passphrases differ", "nothing was locked: try again", 2)
    return passphrase


def _checked(passphrase: str) -> str:
    if not passphrase:
        raise Failure("the passphrase is empty", "choose one of at least a few letters", 2)
    return passphrase
