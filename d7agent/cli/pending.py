"""The reply that the short way got and could not use: the first question for a token takes it in place of asking."""

from d7agent.client.blocking import NoAgent

_reply: bytes | None = None


def keep(reply: bytes | None) -> None:
    """Keep the reply for `take`; b"" says that none came in time, None that nothing was asked."""
    global _reply
    _reply = reply


def take() -> bytes | None:
    """The reply, once; None when the agent is still to be asked. Raises NoAgent when it did not answer in time."""
    global _reply
    reply, _reply = _reply, None
    if reply == b"":
        raise NoAgent(
            "the agent accepted the call and did not answer in time",
            "it may be stopped or overloaded: `d7agent status` asks it again, `d7agent stop` ends it",
        )
    return reply
