"""The way to the agent: reach it, start one where that is allowed, and ask for a token."""

from typing import Any

from d7agent.cli import pending
from d7agent.cli.output import Failure
from d7agent.client.blocking import MARGIN, Agent, NoAgent, parse_reply, token_of


def reach(socket: str | None, *, start: bool = False, timeout: float = 15.0) -> Agent:
    """A connected agent; where none answers and `start` says so, one that was started for it.

    `timeout` is the limit of a call in seconds. Raises PermissionDenied, and NoAgent with a hint that fits.
    """
    agent = Agent(socket, timeout)
    try:
        agent.connect()
    except NoAgent as error:
        if error.fields.get("busy"):
            raise
        from d7agent.cli import autostart

        autostart.revive(error, socket, start=start)
        agent.connect()
    return agent


def ask_token(
    profile: str | None, socket: str | None, min_validity: int | None, max_wait: int, no_start: bool
) -> dict[str, Any]:
    """The Token (see the interface): of the reply that the short way left, else of the agent. Raises AgentError."""
    reply = pending.take()
    if reply is not None:
        return token_of(parse_reply(reply))
    with reach(socket, start=not no_start, timeout=max_wait + MARGIN) as agent:
        return agent.get(profile, min_validity=min_validity, max_wait=max_wait)


def one_name(name: str | None, profile: str | None) -> str | None:
    """The profile that is named as an argument or as an option. Raises Failure when both are, and differ."""
    if name and profile and name != profile:
        raise Failure("two different profiles are named", "name it once, as an argument or with -p", 2)
    return name or profile


def default_profile(status: dict[str, Any]) -> str:
    """The agent's default profile, from its status."""
    return str(status.get("agent", {}).get("default_profile") or "default")
