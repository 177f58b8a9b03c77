"""One HTTP request by each of the libraries that d7agent.client.auth is for, told in the same words."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

import httpx
import requests

from d7agent.client.auth import HttpxAuth, RequestsAuth

# No proxy of the environment, and no time spent on loading certificates: it is all plain http on loopback.
HTTPX: dict[str, Any] = {
    "follow_redirects": True,
    "timeout": 10,
    "trust_env": False,
    "verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
}


class Reply(NamedTuple):
    """What the caller got."""

    status: int
    body: bytes


Send = Callable[..., Reply]


def by_requests(path: str, method: str, url: str, *, auths: dict[str, Any] | None = None, **call: Any) -> Reply:
    ours = RequestsAuth(socket=path, **(auths or {}))
    return with_requests(ours, method, url, **call)


def by_httpx(path: str, method: str, url: str, *, auths: dict[str, Any] | None = None, **call: Any) -> Reply:
    return with_httpx(HttpxAuth(socket=path, **(auths or {})), method, url, **call)


def by_httpx_async(path: str, method: str, url: str, *, auths: dict[str, Any] | None = None, **call: Any) -> Reply:
    return with_httpx_async(HttpxAuth(socket=path, **(auths or {})), method, url, **call)


def with_requests(ours: RequestsAuth, method: str, url: str, **call: Any) -> Reply:
    with requests.Session() as session:
        session.trust_env = False
        reply = session.request(method, url, auth=ours, timeout=10, **call)
        return Reply(reply.status_code, reply.content)


def with_httpx(ours: httpx.Auth, method: str, url: str, **call: Any) -> Reply:
    with httpx.Client(auth=ours, **HTTPX) as client:
        reply = client.request(method, url, **_for_httpx(call))
        return Reply(reply.status_code, reply.content)


def with_httpx_async(ours: httpx.Auth, method: str, url: str, **call: Any) -> Reply:
    async def send() -> Reply:
        async with httpx.AsyncClient(auth=ours, **HTTPX) as client:
            given = _for_httpx(call)
            if isinstance(given.get("content"), Iterator):
                given["content"] = _async(given["content"])
            reply = await client.request(method, url, **given)
            return Reply(reply.status_code, reply.content)

    return asyncio.run(send())


def _for_httpx(call: dict[str, Any]) -> dict[str, Any]:
    return {"content" if name == "data" else name: value for name, value in call.items()}


async def _async(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
