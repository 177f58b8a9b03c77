"""requests and httpx, as they are published, with our auth: who gets the token, and who does not."""

import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
import requests

from d7agent.client import auth
from d7agent.client.auth import HttpxAuth, RequestsAuth
from d7agent.client.blocking import Locked
from tests.support import cli, fakeagent
from tests.support.callers import Send, by_httpx, by_httpx_async, by_requests
from tests.support.fakeagent import ACCESS_TOKEN, SECOND_TOKEN, FakeAgent
from tests.support.web import REFUSED, Page, Seen, Web

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
