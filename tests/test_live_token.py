"""d7agent.Token with D7's own SDK as it is published, over the real agent and the sandbox."""

import threading

import direct7
import pytest

import d7agent
from d7agent.client.blocking import Agent, Locked, NoAgent
from d7agent.sandbox import Sandbox, Settings
from tests.support import cli, fakeagent
from tests.support.fakeagent import FakeAgent
from tests.support.longago import logged_in, restart


def sdk(box: Sandbox, token: d7agent.Token) -> direct7.Client:
    """The SDK as its README has it, but for its host."""
    client = direct7.Client(api_token=token)
    client.host(box.url)
    client.session.trust_env = False
    return client


def send(client: direct7.Client) -> str:
    """The status that D7 answers to one SMS."""
    message = {"recipients": ["+971500000000"], "content": "hello", "unicode": "False"}
    return str(client.sms.send_messages(message, originator="SignOTP")["status"])


@pytest.mark.system
def test_the_sdk_works_over_a_refresh() -> None:
    """One client, made once: after the token was refused and replaced, its next call carries the new one."""
    with Sandbox(Settings()) as box, logged_in(box) as live:
        client = sdk(box, d7agent.Token(socket=str(live.socket)))
        assert send(client) == "accepted"
        with Agent(str(live.socket)) as agent:
            box.revoke_all()
            with pytest.raises(direct7.errors.AuthenticationError):
                send(client)
            agent.reject(agent.token())
        assert send(client) == "accepted"
        assert len(box.messages) == 2
        assert box.stats.logins == 2


@pytest.mark.system
def test_the_sdk_works_over_a_restart() -> None:
    """Nothing is kept open that a new agent would not know."""
    with Sandbox(Settings()) as box, logged_in(box) as live:
        client = sdk(box, d7agent.Token(socket=str(live.socket)))
        assert send(client) == "accepted"
        live.kill()
        with pytest.raises(NoAgent):
            send(client)
        restart(live)
        assert send(client) == "accepted"


def test_it_asks_each_time() -> None:
    """`str()`, `format()` and f-strings give the token of the moment, in the width that is asked for."""
    serial = iter(range(1, 9))

    def answer(_: dict[str, object]) -> fakeagent.Answer:
        return fakeagent.token(f"token-{next(serial)}")

    with cli.short_folder() as folder, FakeAgent(folder / "a.sock", GetToken=answer) as agent:
        token = d7agent.Token("work", max_wait=3, socket=agent.path)
        shown = [str(token), f"Bearer {token}", f"{token:>9}", f"{token!s}"]
    assert shown == ["token-1", "Bearer token-2", "  token-3", "token-4"]
    assert agent.asked("GetToken") == [{"profile": "work", "max_wait": 3}] * 4


def test_its_repr_shows_nothing_and_asks_nobody() -> None:
    """In logs and tracebacks it is the name of a profile."""
    assert repr(d7agent.Token("work")) == "<d7agent.Token of profile work>"
    assert f"{[d7agent.Token()]}" == "[<d7agent.Token of profile by default>]"


def test_the_error_is_the_agent_s() -> None:
    """Where there is no token the SDK's call fails with the cause; no empty header is sent."""
    locked = fakeagent.error("Locked", "the agent is locked")
    with cli.short_folder() as folder, Sandbox() as box, FakeAgent(folder / "a.sock", GetToken=locked) as agent:
        with pytest.raises(Locked, match="the agent is locked"):
            send(sdk(box, d7agent.Token(socket=agent.path)))
        assert box.stats.requests == 0


def test_a_thread_that_waits_holds_up_no_other() -> None:
    """While one thread's question waits for the agent, another thread is answered."""
    asked, go = threading.Event(), threading.Event()

    def answer(_: dict[str, object]) -> fakeagent.Answer:
        if not asked.is_set():
            asked.set()
            assert go.wait(10)
        return fakeagent.token()

    with cli.short_folder() as folder, FakeAgent(folder / "a.sock", GetToken=answer) as agent:
        token = d7agent.Token(socket=agent.path)
        first = threading.Thread(target=str, args=(token,))
        first.start()
        assert asked.wait(10)
        assert str(token) == fakeagent.ACCESS_TOKEN
        go.set()
        first.join()
