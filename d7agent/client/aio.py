"""Ask the d7agent from asyncio or uvloop.

    async with Agent() as agent:
        headers = await agent.header()
        async for token in agent.subscribe():  # now, and whenever there is a newer one
            use(token.access_token)

Errors are those of `d7agent.client.blocking`.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, Self

import msgspec

from d7agent.client.blocking import (
    MARGIN,
    MAX_WAIT,
    AgentError,
    BudgetSpent,
    Name,
    NoAgent,
    Seconds,
    StoreUnavailable,
    TokenUnavailable,
    fingerprint,
    parse_reply,
    token_of,
)
from d7agent.client.link import Link
from d7agent.core.clock import boot_time
from d7agent.core.errors import INTERFACE
from d7agent.wire import messages

PROMISE: Final = 30  # seconds: the agent's own promise where no min_validity is asked for is this or less
IDLE: Final = 8  # connections kept for the next call; more come and go with a burst of calls
FIRST_PAUSE, LONGEST_PAUSE = (
    0.1,
    30.0,
)  # seconds between attempts to subscribe, doubling; the agent costs nothing to ask
PASSING: Final = (NoAgent, TokenUnavailable, BudgetSpent, StoreUnavailable)  # no person need act: worth waiting for

log = logging.getLogger(__name__)


class Token(messages.Token, frozen=True):
    """An access token as the agent sent it: `valid_for` counts from then, `left()` from now."""

    received_at: float = 0.0  # on the boot clock

    def left(self) -> float | None:
        """Seconds of life left, or None if the token does not say."""
        return None if self.valid_for is None else self.received_at + self.valid_for - boot_time()

    def good_for(self, seconds: float) -> bool:
        """Whether it lives so long, as far as is known."""
        left = self.left()
        return left is None or left > seconds

    def __repr__(self) -> str:
        return f"<Token of profile {self.profile}, serial {self.serial}, {self.state}>"


class Agent:
    """The agent behind `socket`, else the first that accepts a connection; one profile of it, else the default one.

    For the tasks of one event loop; any number may call at once, and each may be cancelled. It connects when first
    needed. Use it with `async with`, or `close()` it.
    """

    def __init__(self, profile: Name = None, socket: Name = None) -> None:
        self.profile = profile
        self.socket = socket
        self._idle: list[Link] = []
        self._feed: _Feed | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def token(self, *, min_validity: Seconds = None, max_wait: Seconds = None) -> str:
        """The access token alone; see `get`."""
        return (await self.get(min_validity=min_validity, max_wait=max_wait)).access_token

    async def header(self, *, min_validity: Seconds = None, max_wait: Seconds = None) -> dict[str, str]:
        """The header of an API call, `{"Authorization": "Bearer …"}`; see `get`."""
        return {"Authorization": (await self.get(min_validity=min_validity, max_wait=max_wait)).header}

    async def get(self, *, min_validity: Seconds = None, max_wait: Seconds = None) -> Token:
        """A token good for `min_validity` seconds or more, waited for up to `max_wait` (30). Raises AgentError.

        Once `subscribe` was called this is the token at hand, without asking, while that is good for so long (30 where
        nothing is said). An agent that is away for a moment is then not missed either.
        """
        held = self._feed.held(PROMISE if min_validity is None else min_validity) if self._feed else None
        if held and self._feed and self._feed.live:
            return held
        try:
            return _token(await self.call("GetToken", {"min_validity": min_validity, "max_wait": max_wait}))
        except NoAgent:
            if held:
                return held
            raise

    async def reject(self, access_token: str, *, max_wait: Seconds = None) -> str:
        """Tell that D7 refused this token (only its fingerprint is sent); a better token. Raises AgentError."""
        feed = self._feed
        if feed:
            feed.refuse(access_token)
        found = _token(await self.call("RejectToken", {"fingerprint": fingerprint(access_token), "max_wait": max_wait}))
        if feed:
            feed.replace(found)
        return found.access_token

    def subscribe(self) -> AsyncIterator[Token]:
        """The token now, then each newer one; a slow reader gets the newest. Call it in a running event loop.

        Waits through restarts of the agent and troubles that pass by themselves; raises AgentError where a person must
        act (Locked, CredentialRejected, NoCredential, NoSuchProfile, PermissionDenied), and ends when the Agent is
        closed. From the first call on until `close` the newest token is at hand, whether or not anybody iterates.
        """
        if self._closed:
            raise RuntimeError("the Agent is closed: make a new one to subscribe")
        if self._feed is None or self._feed.ended:
            self._feed = _Feed(self.socket, _request("GetToken", self.profile, {}, more=True))
        return _Subscription(self._feed)

    async def call(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call a method of io.d7agent for this profile: the reply's parameters. Raises AgentError.

        Parameters that are None are left out. `max_wait`, if there is one, sets the limit of the call.
        """
        params = params or {}
        wait = params.get("max_wait")
        limit = (MAX_WAIT if wait is None else wait) + MARGIN
        link = await self._link(limit)
        try:
            reply = await link.ask(_request(method, self.profile, params), limit)
        except BaseException:
            link.close()  # what may still come on it belongs to a call that was given up
            raise
        if self._closed or len(self._idle) >= IDLE:
            link.close()
        else:
            self._idle.append(link)
        return parse_reply(reply)

    async def close(self) -> None:
        """Close every connection and end the subscriptions. Later calls connect each for itself."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        if self._feed:
            await self._feed.close()

    async def _link(self, limit: float) -> Link:
        while self._idle:
            link = self._idle.pop()
            if link.idle():
                return link
            link.close()
        return await Link.open(self.socket, limit)


class _Feed:
    """The newest token of a profile, kept so by a task of its own."""

    def __init__(self, path: str | None, request: bytes) -> None:
        self.live = False
        self._path = path
        self._request = request
        self._held: Token | None = None
        self._failures = 0
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="d7agent-subscription")
        self._task.add_done_callback(self._done)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._task.done()

    def held(self, seconds: float) -> Token | None:
        """The token at hand, if it is good for so long and was not withdrawn."""
        return self._held if self._held and self._held.good_for(seconds) and not self.ended else None

    def refuse(self, access_token: str) -> None:
        """Hold this one no longer."""
        if self._held and self._held.access_token == access_token:
            self._held = None

    def replace(self, token: Token) -> None:
        """What came in place of a refused one, unless a newer one has come already."""
        if self._held is None and not self.ended:
            self._hold(token)

    async def after(self, last: str) -> Token:
        """A token that is not `last`. Raises what ended the task; StopAsyncIteration when it was closed."""
        while True:
            found = self.held(0)
            if found and found.access_token != last:
                return found
            if self.ended:
                raise self._end()
            await self._changed.wait()

    async def close(self) -> None:
        """End the task and wait for that."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except PASSING as error:
                await self._pause(error)

    async def _listen(self) -> None:
        link = await Link.open(self._path, MAX_WAIT + MARGIN)
        try:
            reply = await link.ask(self._request, MAX_WAIT + MARGIN)
            while True:
                self._hold(_token(parse_reply(reply)))
                self.live, self._failures = True, 0
                reply = await link.receive()
        finally:
            self.live = False
            link.close()

    async def _pause(self, error: AgentError) -> None:
        if not self._failures:
            log.warning("no newer tokens for now: %s; trying again (%s)", error.message, error.hint)
        pause = min(FIRST_PAUSE * 2.0**self._failures, LONGEST_PAUSE)
        self._failures = min(self._failures + 1, 16)  # far past the longest pause, far from an overflow
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  jitter guards no secret  # nosec B311

    def _hold(self, token: Token) -> None:
        self._held = token
        self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # asked for, so that asyncio does not complain where nobody iterates
        self._held = None
        self._announce()

    def _end(self) -> BaseException:
        error = None if self._task.cancelled() else self._task.exception()
        return StopAsyncIteration() if error is None else error.with_traceback(None)


class _Subscription:
    """One reader of a feed."""

    def __init__(self, feed: _Feed) -> None:
        self._feed = feed
        self._last = ""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Token:
        found = await self._feed.after(self._last)
        self._last = found.access_token
        return found


def _request(method: str, profile: str | None, params: Mapping[str, Any], *, more: bool = False) -> bytes:
    given = {name: value for name, value in {"profile": profile, **params}.items() if value is not None}
    call = {"method": f"{INTERFACE}.{method}", "parameters": given} | ({"more": True} if more else {})
    return msgspec.json.encode(call) + b"\0"


def _token(params: dict[str, Any]) -> Token:
    found = token_of(params)
    try:
        return msgspec.convert({**found, "received_at": boot_time()}, Token)
    except msgspec.ValidationError as error:
        raise AgentError(f"the agent's answer holds no usable token: {error}") from None
