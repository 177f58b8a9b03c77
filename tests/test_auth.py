"""requests and httpx, as they are published, with our auth: the header, one report and one replay after a 401."""

import asyncio
import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import requests

from d7agent.client.auth import TOKEN_CODES, HttpxAuth, RequestsAuth
from d7agent.client.blocking import fingerprint
from d7agent.sandbox import Sandbox
from tests.support import cli, fakeagent
from tests.support.callers import (
    HTTPX,
    Send,
    by_httpx,
    by_httpx_async,
    by_requests,
    with_httpx,
    with_httpx_async,
    with_requests,
)
from tests.support.fakeagent import ACCESS_TOKEN, SECOND_TOKEN, FakeAgent
from tests.support.longago import logged_in
from tests.support.web import REFUSED, Page, Seen, Web, refusal

OLD, NEW = f"Bearer {ACCESS_TOKEN}", f"Bearer {SECOND_TOKEN}"


@pytest.fixture(params=[by_requests, by_httpx, by_httpx_async])
def send(request: pytest.FixtureRequest) -> Send:
    """One request through one of the libraries."""
    found: Send = request.param
    return found


@pytest.fixture
def d7() -> Iterator[Web]:
    """The profile's host."""
    with Web() as web:
        yield web


@pytest.fixture
def agent(d7: Web) -> Iterator[FakeAgent]:
    """Has the old token; after a report, the new one."""
    with cli.short_folder() as folder:
        status = fakeagent.status(fakeagent.profile(base_url=f"{d7.url}/"))
        with FakeAgent(folder / "a.sock", GetStatus=status) as served:
            yield served


def replies(*pages: Page) -> Callable[[Seen], Page]:
    """These, one after the other."""
    left = iter(pages)
    return lambda _: next(left)


def test_the_header_is_on_every_request(send: Send, agent: FakeAgent, d7: Web) -> None:
    """The agent is asked for the profile's token, within the time that was named."""
    reply = send(agent.path, "GET", f"{d7.url}/messages/v1/balance", auths={"profile": "work", "max_wait": 5})
    assert (reply.status, d7.tokens) == (200, [OLD])
    assert agent.asked("GetToken") == [{"profile": "work", "max_wait": 5}]
    assert agent.asked("GetStatus") == [{"profile": "work"}]


@pytest.mark.parametrize("code", TOKEN_CODES)
def test_a_refused_token_is_reported_and_replaced_once(send: Send, agent: FakeAgent, d7: Web, code: str) -> None:
    """The caller sees the good answer; the body arrives whole again, with the new token."""
    d7.play = replies(refusal(code), Page(200, b"sent"))
    assert send(agent.path, "POST", f"{d7.url}/messages/v1/send", data=b"hello") == (200, b"sent")
    assert d7.seen == [("POST", "/messages/v1/send", token, b"hello") for token in (OLD, NEW)]
    assert [call["fingerprint"] for call in agent.asked("RejectToken")] == [fingerprint(ACCESS_TOKEN)]


def test_never_more_than_one_replay(send: Send, agent: FakeAgent, d7: Web) -> None:
    """A second refusal is the answer."""
    d7.play = lambda _: REFUSED
    assert send(agent.path, "GET", f"{d7.url}/x").status == 401
    assert d7.tokens == [OLD, NEW]
    assert len(agent.asked("RejectToken")) == 1


@pytest.mark.parametrize(
    "page",
    [
        refusal("APPLICATION_NOT_EXISTS", 404),
        refusal("ACCESS_TOKEN_EXPIRED", 404),
        refusal("ACCESS_TOKEN_EXPIRED", 422),
        refusal("ACCESS_TOKEN_EXPIRED", 403),
        refusal("ACCESS_TOKEN_EXPIRED", 500),
        refusal("SOMETHING_ELSE"),
        Page(422, b'{"detail":[{"loc":["body"],"msg":"field required","type":"value_error"}]}'),
        Page(401, b'{"detail":[{"loc":["body"],"msg":"field required","type":"value_error"}]}'),
        Page(401, b'{"detail":"Access token signature has expired"}'),
        Page(401, b'{"detail":{"code":["ACCESS_TOKEN_EXPIRED"]}}'),
        Page(401, b'"ACCESS_TOKEN_EXPIRED"'),
        Page(401, b"<html>ACCESS_TOKEN_EXPIRED</html>"),
        Page(401, b"[" * 100_000),
        Page(401, b"\xff\xfe"),
        Page(401, b""),
    ],
)
def test_anything_else_is_the_caller_s(send: Send, agent: FakeAgent, d7: Web, page: Page) -> None:
    """No other status and no other 401 is reported or sent again; the answer comes through untouched."""
    d7.play = lambda _: page
    assert send(agent.path, "GET", f"{d7.url}/x") == (page.status, page.body)
    assert len(d7.seen) == 1
    assert agent.asked("RejectToken") == []


def test_a_body_that_is_gone_is_not_sent_again(send: Send, agent: FakeAgent, d7: Web) -> None:
    """A generator's 401 is reported, so that the next call works, and is the answer."""
    d7.play = lambda seen: REFUSED if seen.authorization == OLD else Page()
    assert send(agent.path, "POST", f"{d7.url}/x", data=iter([b"a", b"b"])) == (401, REFUSED.body)
    assert d7.seen == [("POST", "/x", OLD, b"ab")]
    assert len(agent.asked("RejectToken")) == 1


class Pipe(io.BytesIO):
    """A stream that does not go back."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise OSError("cannot seek")


class Once(io.BytesIO):
    """A file that is closed as soon as it was read."""

    def read(self, size: int | None = -1, /) -> bytes:
        if not (piece := super().read(size)):
            self.close()
        return piece


def test_requests_rewinds_a_file_where_it_can(agent: FakeAgent, d7: Web) -> None:
    """A file is sent again from where it stood; one that cannot go back, or was closed, is not."""
    d7.play = lambda seen: REFUSED if seen.authorization == OLD else Page()
    file = io.BytesIO(b"xxhello")
    file.seek(2)
    assert by_requests(agent.path, "POST", f"{d7.url}/file", data=file).status == 200
    assert by_requests(agent.path, "POST", f"{d7.url}/pipe", data=Pipe(b"hello")).status == 401
    assert by_requests(agent.path, "POST", f"{d7.url}/closed", data=Once(b"hello")).status == 401
    assert [(seen.path, seen.body) for seen in d7.seen] == [
        *[("/file", b"hello")] * 2,
        ("/pipe", b"hello"),
        ("/closed", b"hello"),
    ]


def test_httpx_does_not_trust_a_file(agent: FakeAgent, d7: Web) -> None:
    """httpx would send what is left of it, which is nothing."""
    d7.play = lambda _: REFUSED
    assert by_httpx(agent.path, "POST", f"{d7.url}/x", content=io.BytesIO(b"hello")).status == 401
    assert len(d7.seen) == 1


def test_without_a_better_token_the_401_is_the_answer(
    send: Send, agent: FakeAgent, d7: Web, caplog: pytest.LogCaptureFixture
) -> None:
    """The cause is in the log, with what to do; the token is not."""
    agent.scripts["RejectToken"] = fakeagent.error("CredentialRejected", "D7 refuses the credential", "log in again")
    d7.play = lambda _: REFUSED
    assert send(agent.path, "GET", f"{d7.url}/x") == (401, REFUSED.body)
    assert len(d7.seen) == 1
    assert [line for line in caplog.messages if "D7 refuses the credential (log in again)" in line]
    assert ACCESS_TOKEN not in caplog.text


def test_a_prepared_request_may_be_sent_again(agent: FakeAgent, d7: Web) -> None:
    """Each sending has its replay, and begins with the token that worked last."""
    serial = iter(range(9))
    agent.scripts["RejectToken"] = lambda _: fakeagent.token(f"token-{next(serial)}")
    d7.play = replies(REFUSED, Page(), REFUSED, Page())
    with requests.Session() as session:
        session.trust_env = False
        prepared = session.prepare_request(requests.Request("GET", f"{d7.url}/x", auth=RequestsAuth(socket=agent.path)))
        assert [session.send(prepared).status_code for _ in range(2)] == [200, 200]
    assert d7.tokens == [OLD, "Bearer token-0", "Bearer token-0", "Bearer token-1"]


def test_a_streamed_reply_stays_a_stream(agent: FakeAgent, d7: Web) -> None:
    """Only a 401 is read by us."""
    d7.play = lambda _: Page(200, b"x" * 1000)
    with requests.Session() as session:
        session.trust_env = False
        reply = session.get(f"{d7.url}/x", auth=RequestsAuth(socket=agent.path), stream=True, timeout=10)
        assert b"".join(reply.raw.stream(100)) == b"x" * 1000
    with (
        httpx.Client(auth=HttpxAuth(socket=agent.path), **HTTPX) as client,
        client.stream("GET", f"{d7.url}/x") as streamed,
    ):
        assert b"".join(streamed.iter_raw()) == b"x" * 1000


def test_a_report_does_not_block_the_loop(agent: FakeAgent, d7: Web) -> None:
    """While the agent logs in, other tasks run: here the login ends only when one of them has."""
    others_ran = threading.Event()

    def reject(_: dict[str, Any]) -> fakeagent.Answer:
        assert others_ran.wait(10)
        return fakeagent.token(SECOND_TOKEN)

    agent.scripts["RejectToken"] = reject
    d7.play = lambda seen: REFUSED if seen.authorization == OLD else Page()

    async def main() -> int:
        async with httpx.AsyncClient(auth=HttpxAuth(socket=agent.path), **HTTPX) as client:
            asking = asyncio.create_task(client.get(f"{d7.url}/x"))
            while not agent.asked("RejectToken"):  # noqa: ASYNC110
                await asyncio.sleep(0.001)  # real time: what happens in the agent's thread cannot be awaited
            others_ran.set()
            return (await asking).status_code

    assert asyncio.run(main()) == 200


@pytest.mark.system
@pytest.mark.parametrize(
    ("kind", "send"), [(RequestsAuth, with_requests), (HttpxAuth, with_httpx), (HttpxAuth, with_httpx_async)]
)
def test_many_threads_one_login(kind: type[Any], send: Send) -> None:
    """The real agent, its token revoked: 16 threads with one auth, each message is sent once, with one login more."""
    with Sandbox() as box, logged_in(box) as live:
        box.revoke_all()
        ours, start, statuses = kind(socket=str(live.socket)), threading.Barrier(16), []

        def ask() -> None:
            start.wait()
            body = {"messages": [{"content": "hello"}]}
            statuses.append(send(ours, "POST", f"{box.url}/messages/v1/send", json=body).status)

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 16
        assert len(box.messages) == 16
        assert box.stats.logins == 2
