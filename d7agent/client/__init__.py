"""For programs: `blocking` (one file, standard library only), what `import d7agent` offers, and its relatives."""

from d7agent.client.blocking import Agent, AgentError, header, token
from d7agent.client.live import Token

__all__ = ["Agent", "AgentError", "Token", "header", "token"]
