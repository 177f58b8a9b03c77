"""A token for programs that want one string at their start and keep it: an object that is always the present token."""

from d7agent.client.blocking import Name, Seconds, token


class Token:
    """A live token: `str()` of it asks the agent, so `direct7.Client(api_token=Token())` sends a good one always.

    It keeps neither a token nor a connection, so that any thread or forked process may use it; a question takes a third
    of a millisecond. `str()`, `format()` and f-strings give the token; `repr()` does not. Where a program joins strings
    with `+`, or must have a `str` (`requests` for the value of a header), write `str(token)` at each use. They raise
    AgentError as `token` does, after `max_wait` seconds at the latest (30).
    """

    __slots__ = ("_max_wait", "_profile", "_socket")

    def __init__(self, profile: Name = None, *, max_wait: Seconds = None, socket: Name = None) -> None:
        self._profile = profile
        self._max_wait = max_wait
        self._socket = socket

    def __str__(self) -> str:
        return token(self._profile, max_wait=self._max_wait, socket=self._socket)

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __repr__(self) -> str:
        return f"<d7agent.Token of profile {self._profile or 'by default'}>"
