"""The token in every request that requests or httpx sends to D7, and a second try when D7 refuses it.

    from d7agent.client.auth import HttpxAuth, RequestsAuth

    session.auth = RequestsAuth()
    httpx.Client(auth=HttpxAuth())
    httpx.AsyncClient(auth=HttpxAuth("work"))

Both put the header on requests to the base URL of the profile (scheme, host and port; asked of the agent once) and on
no others: neither another host that a session is used for, nor one that a redirect leads to, gets a token. A 401 with
one of D7's token codes is reported to the agent once and the request sent again once with its answer. A body that
cannot be sent twice (a generator, a stream; with httpx everything but bytes) is not: its 401 is reported, so that the
caller's own next try works. Where the agent has no token they raise AgentError; where it has nothing better to offer
after a 401, that 401 is the response. They keep no connection open: any thread, task or forked process may use them.

Neither library is needed to import this module. An httpx.AsyncClient has to run on asyncio (or uvloop), not on trio.
"""

import json
import logging
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from d7agent.client.blocking import Agent, AgentError, Name, Seconds

if TYPE_CHECKING:
    import httpx
    import requests

TOKEN_CODES: Final = ("ACCESS_TOKEN_EXPIRED", "ACCESS_TOKEN_SIGNATURE_VERIFICATION_FAILED")
NOTHING_BETTER: Final = "D7 refused the token, and the agent has no better one: %s (%s)"
PORTS: Final = {"http": 80, "https": 443}

Origin = tuple[str, str, int | None]

log = logging.getLogger(__name__)


def origin(url: str) -> Origin:
    """Scheme, host and port of a URL."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or PORTS.get(parts.scheme)


def refuses_token(body: bytes) -> bool:
    """Whether the body of a 401 says that the token is no good (any more)."""
    try:
        return json.loads(body)["detail"]["code"] in TOKEN_CODES
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


class _Auth:
    """What both have in common. `base_url`: where the token may go, if not where the agent says."""

    def __init__(
        self, profile: Name = None, *, max_wait: Seconds = None, socket: Name = None, base_url: Name = None
    ) -> None:
        self._profile = profile
        self._max_wait = max_wait
        self._socket = socket
        self._home = origin(base_url) if base_url else None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of profile {self._profile or 'by default'}>"

    def _header(self, url: str) -> str | None:
        """The header for a request to `url`; None if that is not D7. Raises AgentError."""
        with Agent(self._socket) as agent:
            if self._home is None:
                self._home = _home(agent.status(self._profile))
            if origin(url) != self._home:
                return None
            return str(agent.get(self._profile, max_wait=self._max_wait)["header"])

    def _better(self, refused: str) -> str | None:
        """Report the header that was refused; the one to try again with, or None if there is none."""
        try:
            with Agent(self._socket) as agent:
                return f"Bearer {agent.reject(_token(refused), self._profile, max_wait=self._max_wait)}"
        except AgentError as error:
            log.warning(NOTHING_BETTER, error.message, error.hint)
            return None

    def _sent(self, url: str, header: Any) -> str:
        """The token's header that was sent with a request to `url`; "" if none was, or not to D7."""
        return str(header) if header and origin(url) == self._home and str(header).startswith("Bearer ") else ""


class RequestsAuth(_Auth):
    """For requests: `session.auth = RequestsAuth()`, or `auth=` of one call. See the module."""

    def __call__(self, request: "requests.PreparedRequest") -> "requests.PreparedRequest":
        """Put the header on, and watch for D7's refusal of it."""
        header = self._header(request.url or "")
        if header is not None:
            request.headers["Authorization"] = header
            request.register_hook("response", self._watch())  # type: ignore[no-untyped-call]
        return request

    def _watch(self) -> Callable[..., "requests.Response"]:
        tried = False  # redirected requests share this hook, so that one call is one try

        def handle(response: "requests.Response", **kwargs: Any) -> "requests.Response":
            nonlocal tried
            sent = self._sent(response.request.url or "", response.request.headers.get("Authorization"))
            if tried or not sent or response.status_code != 401 or not refuses_token(response.content):
                return response
            tried = True
            better = self._better(sent)
            if better is None or not _rewound(response.request):
                return response
            again = _again(response, better, kwargs)
            tried = again.status_code == 401 or again.is_redirect  # a request that is sent anew later starts anew
            return again

        return handle


class _HttpxFlow(_Auth):
    """The two flows of an httpx.Auth."""

    def sync_auth_flow(self, request: "httpx.Request") -> Generator["httpx.Request", "httpx.Response", None]:
        """For httpx.Client."""
        header = self._header(str(request.url))
        if header is None:
            yield request
            return
        request.headers["Authorization"] = header
        response = yield request
        sent = self._sent(str(response.request.url), response.request.headers.get("Authorization"))
        if not sent or response.status_code != 401 or not refuses_token(response.read()):
            return
        better = self._better(sent)
        if better is not None and _has_bytes(response.request):
            response.request.headers["Authorization"] = better
            yield response.request  # not the first one: what a redirect led away from was done already

    async def async_auth_flow(self, request: "httpx.Request") -> AsyncGenerator["httpx.Request", "httpx.Response"]:
        """For httpx.AsyncClient."""
        header = await self._header_async(str(request.url))
        if header is None:
            yield request
            return
        request.headers["Authorization"] = header
        response = yield request
        sent = self._sent(str(response.request.url), response.request.headers.get("Authorization"))
        if not sent or response.status_code != 401 or not refuses_token(await response.aread()):
            return
        better = await self._better_async(sent)
        if better is not None and _has_bytes(response.request):
            response.request.headers["Authorization"] = better
            yield response.request

    async def _header_async(self, url: str) -> str | None:
        from d7agent.client import aio

        async with aio.Agent(self._profile, self._socket) as agent:
            if self._home is None:
                self._home = _home(await agent.call("GetStatus"))
            if origin(url) != self._home:
                return None
            return (await agent.get(max_wait=self._max_wait)).header

    async def _better_async(self, refused: str) -> str | None:
        from d7agent.client import aio

        try:
            async with aio.Agent(self._profile, self._socket) as agent:
                return f"Bearer {await agent.reject(_token(refused), max_wait=self._max_wait)}"
        except AgentError as error:
            log.warning(NOTHING_BETTER, error.message, error.hint)
            return None


if TYPE_CHECKING:

    class HttpxAuth(_HttpxFlow, httpx.Auth):
        """For httpx: `auth=HttpxAuth()` of a Client, an AsyncClient (asyncio) or one call. See the module."""


def __getattr__(name: str) -> object:
    """Make `HttpxAuth` when it is first asked for: httpx takes nothing but a subclass of its own."""
    if name != "HttpxAuth":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import httpx

    about = "For httpx: `auth=HttpxAuth()` of a Client, an AsyncClient (asyncio) or one call. See the module."
    made = type(name, (_HttpxFlow, httpx.Auth), {"__doc__": about, "__module__": __name__})
    return globals().setdefault(name, made)


def _home(status: dict[str, Any]) -> Origin:
    """The base URL in the status of one profile, or of the default one if there are several."""
    try:
        profiles = {profile["profile"]: profile["base_url"] for profile in status["profiles"]}
        return origin(profiles.popitem()[1] if len(profiles) == 1 else profiles[status["agent"]["default_profile"]])
    except (LookupError, TypeError, ValueError, AttributeError):
        raise AgentError("the agent's status names no base URL", "name it: base_url=") from None


def _token(header: str) -> str:
    return header.removeprefix("Bearer ")


def _rewound(request: "requests.PreparedRequest") -> bool:
    """Whether the body can be sent again, as it now is."""
    from requests.exceptions import UnrewindableBodyError
    from requests.utils import rewind_body

    body: object = request.body
    if body is None or isinstance(body, bytes | str):
        return True
    try:
        rewind_body(request)
    except (UnrewindableBodyError, ValueError):  # a file that was closed meanwhile is a ValueError
        return False
    return True


def _again(response: "requests.Response", header: str, kwargs: dict[str, Any]) -> "requests.Response":
    """Send the request once more on the same connection. In place: a redirect that follows copies its headers."""
    response.close()
    request = response.request
    request.headers["Authorization"] = header
    again: requests.Response = response.connection.send(request, **kwargs)
    again.history.append(response)
    again.request = request
    return again


def _has_bytes(request: "httpx.Request") -> bool:
    """Whether the body is bytes: a stream of httpx does not say whether it can be read twice."""
    import httpx

    return isinstance(request.stream, httpx.ByteStream)
