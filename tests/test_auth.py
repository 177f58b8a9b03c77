"""requests and httpx, as they are published, with our auth: the header, one report and one replay, and no leak."""

import asyncio
import io
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

import httpx
import pytest
import requests

from d7agent.client import auth
from d7agent.client.auth import TOKEN_CODES, HttpxAuth, RequestsAuth
from d7agent.client.blocking import Locked, fingerprint
from d7agent.sandbox import Sandbox
from tests.support import cli, fakeagent
from tests.support.fakeagent import ACCESS_TOKEN, SECOND_TOKEN, FakeAgent
from tests.support.longago import logged_in
from tests.support.web import REFUSED, Page, Seen, Web, refusal

# No proxy of the environment, and no time spent on loading certificates: it is all plain http on loopback.
HTTPX: dict[str, Any] = {
    "follow_redirects": True,
    "timeout": 10,
    "trust_env": False,
    "verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
}
OLD, NEW = f"Bearer {ACCESS_TOKEN}", f"Bearer {SECOND_TOKEN}"


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


def test_requests_rewinds_a_file_where_it_can(agent: FakeAgent, d7: Web) -> None:
    """A file is sent again from where it stood; one that cannot go back, or was closed, is not."""

    def play(seen: Seen) -> Page:
        if seen.path == "/closed":
            closed.close()
        return REFUSED if seen.authorization == OLD else Page()

    d7.play = play
    file, closed = io.BytesIO(b"xxhello"), io.BytesIO(b"hello")
    file.seek(2)
    assert by_requests(agent.path, "POST", f"{d7.url}/file", data=file).status == 200
    assert by_requests(agent.path, "POST", f"{d7.url}/pipe", data=Pipe(b"hello")).status == 401
    assert by_requests(agent.path, "POST", f"{d7.url}/closed", data=closed).status == 401
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


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_a_stranger_gets_no_token(send: Send, agent: FakeAgent, d7: Web, status: int) -> None:
    """Neither at another port nor under another name; and the stranger cannot ask for one by playing D7's 401."""
    with Web(lambda _: REFUSED) as stranger:
        for host in ("127.0.0.1", "localhost"):
            target = f"{stranger.url.replace('127.0.0.1', host)}/stolen"
            d7.play = lambda _, to=target: Page(status, b"", to)  # type: ignore[misc]
            assert send(agent.path, "POST", f"{d7.url}/x", data=b"hello").status == 401
    assert stranger.tokens == [None, None]
    assert d7.tokens == [OLD, OLD]
    assert agent.asked("RejectToken") == []


def test_a_stranger_asked_directly_gets_no_token(send: Send, agent: FakeAgent) -> None:
    """A session whose auth this is may be used for other hosts too; D7's own name counts only with scheme and port."""
    with Web(lambda _: REFUSED) as stranger:
        assert send(agent.path, "GET", f"{stranger.url}/x").status == 401
    assert stranger.tokens == [None]
    assert agent.asked("GetToken") == agent.asked("RejectToken") == []


@pytest.mark.parametrize("url", ["https://d7.example:444/x", "http://d7.example:443/x", "https://d7.example.org/x"])
def test_a_refusal_from_elsewhere_is_none(url: str) -> None:
    """Should a library let the header through to another origin, its 401 would still not be taken for D7's."""
    ours = RequestsAuth(base_url="https://D7.example./")
    assert ours._sent("https://d7.example:443/x", OLD) == OLD
    assert ours._sent(url, OLD) == ""


def test_a_redirect_within_d7_keeps_the_token(send: Send, agent: FakeAgent, d7: Web) -> None:
    """What it leads to is sent again after a refusal, not what it led away from: nothing is done twice."""

    def play(seen: Seen) -> Page:
        if seen.path == "/old":
            return Page(307, b"", f"{d7.url}/new")
        return REFUSED if seen.authorization == OLD else Page(200, b"sent")

    d7.play = play
    assert send(agent.path, "POST", f"{d7.url}/old", data=b"hello") == (200, b"sent")
    assert [(seen.path, seen.authorization, seen.body) for seen in d7.seen] == [
        ("/old", OLD, b"hello"),
        ("/new", OLD, b"hello"),
        ("/new", NEW, b"hello"),
    ]


def test_a_redirect_after_the_replay_goes_on_with_the_new_token(send: Send, agent: FakeAgent, d7: Web) -> None:
    """Redirected only once it is let in; a refusal there is the answer: one call is one replay."""

    def play(seen: Seen) -> Page:
        if seen.authorization == OLD:
            return REFUSED
        return Page(307, b"", f"{d7.url}/new") if seen.path == "/old" else REFUSED

    d7.play = play
    assert send(agent.path, "GET", f"{d7.url}/old").status == 401
    assert [(seen.path, seen.authorization) for seen in d7.seen] == [("/old", OLD), ("/old", NEW), ("/new", NEW)]
    assert len(agent.asked("RejectToken")) == 1


def test_without_a_token_the_call_fails(send: Send, agent: FakeAgent, d7: Web) -> None:
    """The agent's error is raised and nothing is sent."""
    agent.scripts["GetToken"] = fakeagent.error("Locked", "the agent is locked")
    with pytest.raises(Locked, match="the agent is locked"):
        send(agent.path, "GET", f"{d7.url}/x")
    assert d7.seen == []


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


def test_a_base_url_that_is_given_is_not_asked_for(send: Send, agent: FakeAgent, d7: Web) -> None:
    """It overrides the agent's, and its port counts."""
    reply = send(agent.path, "GET", f"{d7.url}/x", auths={"base_url": "http://127.0.0.1:1"})
    assert (reply.status, d7.tokens) == (200, [None])
    send(agent.path, "GET", f"{d7.url}/x", auths={"base_url": d7.url})
    assert d7.tokens == [None, OLD]
    assert agent.asked("GetStatus") == []


def test_of_several_profiles_the_default_one_s_base_url_counts(send: Send, agent: FakeAgent, d7: Web) -> None:
    """Where no profile is named the agent tells which is meant."""
    others = [fakeagent.profile(profile=name, base_url="https://other.example") for name in ("a", "z")]
    agent.scripts["GetStatus"] = fakeagent.status(
        others[0], fakeagent.profile(profile="mine", base_url=d7.url), others[1], default_profile="mine"
    )
    send(agent.path, "GET", f"{d7.url}/x")
    assert d7.tokens == [OLD]


def test_the_base_url_is_learned_once(agent: FakeAgent, d7: Web) -> None:
    """The second request asks for the token alone."""
    with requests.Session() as session:
        session.trust_env = False
        session.auth = RequestsAuth(socket=agent.path)
        for _ in range(3):
            session.get(f"{d7.url}/x", timeout=10)
    assert (len(agent.asked("GetStatus")), len(agent.asked("GetToken"))) == (1, 3)


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


def test_neither_library_needs_the_other() -> None:
    """Without httpx RequestsAuth is there, and asking for HttpxAuth says what is missing; no third name is."""
    code = """if True:
        import sys
        sys.modules["httpx"] = sys.modules["requests"] = None
        from d7agent.client import auth
        auth.RequestsAuth("work")
        try:
            auth.HttpxAuth
        except ImportError as error:
            assert error.name == "httpx", error
        assert not hasattr(auth, "AiohttpAuth")
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_nothing_secret_is_shown() -> None:
    """The reprs name the profile, and the class that httpx needs is one and the same each time."""
    assert repr(RequestsAuth("work")) == "<RequestsAuth of profile work>"
    assert repr(HttpxAuth()) == "<HttpxAuth of profile by default>"
    assert auth.HttpxAuth is HttpxAuth
    assert isinstance(HttpxAuth(), httpx.Auth)


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
