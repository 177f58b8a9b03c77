"""The asyncio client, on asyncio's own loop and on uvloop: against a scripted agent, and against the real one."""

import asyncio
import contextlib
import gc
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from d7agent.client import aio, blocking
from d7agent.client.aio import Agent
from d7agent.sandbox import Sandbox
from tests.support import cli, d7client, fakeagent
from tests.support.fakeagent import ACCESS_TOKEN, SECOND_TOKEN, FakeAgent
from tests.support.longago import logged_in, restart
from tests.support.sources import ROOT

Run = Callable[[Coroutine[Any, Any, None]], None]
LIMIT = 20.0  # seconds for one test's loop: what hangs fails


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine to its end, and looks whether it left anything open."""

    def on_loop(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param, debug=True) as runner:
            runner.run(asyncio.wait_for(main, LIMIT))
        gc.collect()  # an open socket would warn here, and warnings are errors

    return on_loop


@pytest.fixture
def path() -> Iterator[str]:
    with cli.short_folder() as folder:
        yield str(folder / "a.sock")


def first_of_stream(*replies: dict[str, Any]) -> list[fakeagent.Answer]:
    return [reply if "error" in reply else {**reply, "continues": True} for reply in replies]


def push(agent: FakeAgent, reply: dict[str, Any]) -> None:
    """One more reply on every connection of the scripted agent."""
    for connection in list(agent._open):
        connection.sendall(fakeagent.encode({**reply, "continues": True}))


async def until(condition: Callable[[], bool]) -> None:
    """Let the other tasks run until this holds; the limit is the test's own."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)  # real time: what happens in the agent's thread cannot be awaited


def test_the_calls(run: Run, path: str) -> None:
    """`token`, `header`, `get` and `reject` give what the blocking client gives; the refused token does not travel."""

    async def main() -> None:
        async with Agent("work", path) as agent:
            assert await agent.token(min_validity=60, max_wait=5) == ACCESS_TOKEN
            assert await agent.header() == {"Authorization": f"Bearer {ACCESS_TOKEN}"}
            assert (await agent.get()).serial == 1
            assert await agent.reject("refused", max_wait=3) == SECOND_TOKEN
            assert (await agent.call("GetStatus"))["agent"]["default_profile"] == "default"

    with FakeAgent(path) as served:
        run(main())
    assert served.connections == 1
    assert served.asked("GetToken")[:2] == [{"profile": "work", "min_validity": 60, "max_wait": 5}, {"profile": "work"}]
    assert served.asked("RejectToken") == [
        {"profile": "work", "fingerprint": blocking.fingerprint("refused"), "max_wait": 3}
    ]
    assert b"refused" not in served.received


@pytest.mark.parametrize("kind", [blocking.Locked, blocking.TokenUnavailable, blocking.PermissionDenied])
def test_errors_are_the_blocking_client_s(run: Run, path: str, kind: type[blocking.AgentError]) -> None:
    """The class, the message, the hint and the fields of the agent's error; afterwards the connection still serves."""

    async def main() -> None:
        async with Agent(socket=path) as agent:
            with pytest.raises(kind) as caught:
                await agent.token()
            assert (caught.value.message, caught.value.hint) == ("not now", "wait")
            assert caught.value.fields == {"retry_after": 7}
            await agent.call("GetStatus")

    with FakeAgent(path, GetToken=fakeagent.error(kind.__name__, "not now", "wait", retry_after=7)) as served:
        run(main())
    assert served.connections == 1


def test_a_token_shows_itself_to_no_one(run: Run, path: str) -> None:
    """The repr names profile, serial and state alone."""

    async def main() -> None:
        async with Agent(socket=path) as agent:
            found = await agent.get()
        assert repr(found) == str(found) == "<Token of profile default, serial 1, fresh>"
        assert 3539 < (found.left() or 0) <= 3540
        assert (found.good_for(3500), found.good_for(3540)) == (True, False)

    with FakeAgent(path):
        run(main())


def test_a_subscriber_hears_of_each_newer_token(run: Run, path: str) -> None:
    """The present one at once, then newer ones; not the same bytes again; one connection for any number of readers."""
    second = fakeagent.token(SECOND_TOKEN, serial=2)

    async def main() -> None:
        async with Agent(socket=path) as agent:
            one, other = agent.subscribe(), agent.subscribe()
            assert (await anext(one)).access_token == (await anext(other)).access_token == ACCESS_TOKEN
            for reply in (fakeagent.token(valid_for=3000), second):
                push(served, reply)
            assert (await anext(one)).access_token == (await anext(other)).access_token == SECOND_TOKEN

    with FakeAgent(path, GetToken=first_of_stream(fakeagent.token())) as served:
        run(main())
    assert [(call.get("more"), call["parameters"]) for call in served.requests] == [(True, {})]


def test_a_slow_reader_gets_the_newest(run: Run, path: str) -> None:
    """Tokens that came while nobody waited are passed over."""

    async def main() -> None:
        async with Agent(socket=path) as agent:
            tokens = agent.subscribe()
            await anext(tokens)
            for serial in range(2, 9):
                push(served, fakeagent.token(f"token-{serial}", serial=serial))
            feed = agent._feed
            assert feed is not None
            await until(lambda: (held := feed.held(0)) is not None and held.serial == 8)
            assert (await anext(tokens)).serial == 8

    with FakeAgent(path, GetToken=first_of_stream(fakeagent.token())) as served:
        run(main())


def test_while_subscribed_a_token_costs_nothing(run: Run, path: str) -> None:
    """No request is made for a token that is good for so long; one is made for a token that is not."""

    async def main() -> None:
        async with Agent(socket=path) as agent:
            await anext(agent.subscribe())
            for wanted in (None, 0, 60, 3000):
                assert await agent.token(min_validity=wanted) == ACCESS_TOKEN
            assert len(served.requests) == 1
            await agent.token(min_validity=3600)
            assert served.asked("GetToken")[1:] == [{"min_validity": 3600}]

    with FakeAgent(path, GetToken=first_of_stream(fakeagent.token())) as served:
        run(main())


@pytest.mark.parametrize(("valid_for", "asks"), [(29, 1), (31, 0), (None, 0)])
def test_a_token_at_its_end_is_not_served_from_hand(run: Run, path: str, valid_for: int | None, asks: int) -> None:
    """Where nothing is said, 30 seconds must be left; a token without expiry is served as long as the stream stands."""

    async def main() -> None:
        async with Agent(socket=path) as agent:
            await anext(agent.subscribe())
            await agent.token()
            assert len(served.requests) == 1 + asks

    with FakeAgent(path, GetToken=first_of_stream(fakeagent.token(valid_for=valid_for))) as served:
        run(main())


def test_a_refused_token_is_dropped_at_once(run: Run, path: str) -> None:
    """While `reject` is under way nobody gets the refused token from hand; its answer reaches subscribers too."""

    async def main() -> None:
        async with Agent(socket=path) as agent:
            tokens = agent.subscribe()
            await anext(tokens)
            served.scripts["RejectToken"] = fakeagent.SILENCE
            rejecting = asyncio.create_task(agent.reject(ACCESS_TOKEN))
            await until(lambda: len(served.requests) == 2)
            await agent.token()
            assert len(served.requests) == 3
            rejecting.cancel()
            served.scripts["RejectToken"] = fakeagent.token(SECOND_TOKEN, serial=2)
            assert await agent.reject(ACCESS_TOKEN) == SECOND_TOKEN
            assert await agent.token() == (await anext(tokens)).access_token == SECOND_TOKEN
            assert len(served.requests) == 4

    with FakeAgent(path, GetToken=first_of_stream(fakeagent.token())) as served:
        run(main())


def test_a_restart_of_the_agent_is_bridged(
    run: Run, path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While it is away the token at hand serves, which is logged once; then a newer token comes, the same does not."""
    monkeypatch.setattr(aio, "FIRST_PAUSE", 0.01)

    async def main() -> None:
        async with Agent(socket=path) as agent:
            with FakeAgent(path, GetToken=first_of_stream(fakeagent.token())):
                tokens = agent.subscribe()
                await anext(tokens)
            await until(lambda: len(caplog.messages) == 1)
            assert await agent.token(min_validity=60) == ACCESS_TOKEN
            with pytest.raises(blocking.NoAgent):
                await agent.token(min_validity=3600)
            with FakeAgent(path, GetToken=first_of_stream(fakeagent.token())) as same:
                coming = asyncio.ensure_future(anext(tokens))
                await until(lambda: len(same.requests) == 1)
            with FakeAgent(path, GetToken=first_of_stream(fakeagent.token(SECOND_TOKEN))):
                assert (await coming).access_token == SECOND_TOKEN

    run(main())
    assert all("trying again" in message for message in caplog.messages)
    assert ACCESS_TOKEN not in caplog.text


def test_a_kept_connection_is_made_anew(run: Run, path: str) -> None:
    """After a restart of the agent, and after a byte that nobody asked for, the next call just works."""

    async def main() -> None:
        async with Agent(socket=path) as agent:
            with FakeAgent(path):
                await agent.token()
            with FakeAgent(path) as served:
                assert await agent.token() == ACCESS_TOKEN
                push(served, fakeagent.token("a reply to nothing"))
                assert await agent.token() == ACCESS_TOKEN
                assert served.connections == 2

    run(main())


@pytest.mark.parametrize("name", ["TokenUnavailable", "BudgetSpent", "StoreUnavailable"])
def test_what_passes_by_itself_is_waited_for(run: Run, path: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A subscriber is not bothered with it: he gets the token when there is one."""
    monkeypatch.setattr(aio, "FIRST_PAUSE", 0.001)
    replies = iter([fakeagent.error(name, retry_after=600)] * 3)

    async def main() -> None:
        async with Agent(socket=path) as agent:
            assert (await anext(agent.subscribe())).access_token == ACCESS_TOKEN

    with FakeAgent(path, GetToken=lambda _: next(replies, fakeagent.token())) as served:
        run(main())
    assert len(served.requests) == 4


@pytest.mark.parametrize("name", ["Locked", "CredentialRejected", "NoCredential", "NoSuchProfile", "PermissionDenied"])
def test_what_a_person_must_mend_is_raised(run: Run, path: str, name: str) -> None:
    """Every reader hears of it, the token at hand is forgotten, and a new subscription starts anew."""

    async def main() -> None:
        async with Agent(socket=path) as agent:
            readers = [agent.subscribe(), agent.subscribe()]
            for reader in readers:
                await anext(reader)
            readers.append(agent.subscribe())  # who has not read yet gets no token that is withdrawn
            push(served, fakeagent.error(name))
            await until(lambda: bool(agent._feed and agent._feed.ended))
            for reader in readers * 2:
                with pytest.raises(getattr(blocking, name)):
                    await anext(reader)
            await agent.token()
            assert len(served.requests) == 2
            assert (await anext(agent.subscribe())).access_token == ACCESS_TOKEN

    with FakeAgent(path, GetToken=first_of_stream(fakeagent.token())) as served:
        run(main())


def test_a_failure_nobody_reads_is_no_complaint(run: Run, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """Subscribed for `token()` alone, and locked: asyncio does not report an exception that was never retrieved."""

    async def main() -> None:
        async with Agent(socket=path) as agent:
            for _ in range(2):
                agent.subscribe()
                await until(lambda: bool(agent._feed and agent._feed.ended))

    with FakeAgent(path, GetToken=fakeagent.error("Locked")):
        run(main())
    assert caplog.messages == []


def test_closing_ends_subscriptions(run: Run, path: str) -> None:
    """A loop over tokens ends when the Agent is closed; a closed Agent takes no subscription, but still answers."""

    async def main() -> None:
        async with Agent(socket=path) as agent:
            seen = []

            async def read() -> None:
                seen.extend([token.serial async for token in agent.subscribe()])

            reading = asyncio.create_task(read())
            await anext(agent.subscribe())
        await reading
        assert seen == [1]
        with pytest.raises(RuntimeError, match="closed"):
            agent.subscribe()
        assert await agent.token() == ACCESS_TOKEN

    with FakeAgent(path, GetToken=first_of_stream(fakeagent.token())):
        run(main())


def test_a_cancelled_call_confuses_no_other(run: Run, path: str) -> None:
    """The late answer to a call that was given up never becomes the answer to the next."""

    async def main() -> None:
        async with Agent(socket=path) as agent:
            given_up = asyncio.create_task(agent.reject("refused"))
            await until(lambda: len(served.requests) == 1)
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            with contextlib.suppress(BrokenPipeError):
                push(served, fakeagent.token("an answer that comes too late"))
            assert await agent.token() == ACCESS_TOKEN

    with FakeAgent(path, RejectToken=fakeagent.SILENCE) as served:
        run(main())


def test_a_waiting_call_holds_up_no_other(run: Run, path: str) -> None:
    """Calls at once get a connection each, and answers find their callers; few connections are kept."""

    async def ask(name: str) -> None:
        async with Agent(name, path) as agent:
            tokens = await asyncio.gather(*(agent.token() for _ in range(20)))
            assert tokens == [f"token-of-{name}"] * 20
            assert len(agent._idle) <= aio.IDLE

    async def main() -> None:
        async with Agent(socket=path) as agent:
            waiting = asyncio.create_task(agent.reject("refused"))
            await asyncio.gather(*(ask(f"p{number}") for number in range(5)))
            waiting.cancel()

    echo: fakeagent.Script = lambda params: fakeagent.token(f"token-of-{params['profile']}")  # noqa: E731
    with FakeAgent(path, RejectToken=fakeagent.SILENCE, GetToken=echo):
        run(main())


@pytest.mark.parametrize("answer", [fakeagent.SILENCE, b'{"parameters":'])
def test_every_call_has_a_time_limit(
    run: Run, path: str, monkeypatch: pytest.MonkeyPatch, answer: fakeagent.Answer
) -> None:
    """An agent that does not answer, or not to the end, is given up and said to be there."""
    monkeypatch.setattr(aio, "MARGIN", 0.1)

    async def main() -> None:
        async with Agent(socket=path) as agent:
            with pytest.raises(blocking.NoAgent, match=r"did not answer within 0\.1 s") as caught:
                await agent.token(max_wait=0)
            assert caught.value.fields == {"busy": True}

    with FakeAgent(path, GetToken=answer):
        run(main())


@pytest.mark.parametrize("answer", [b"rubbish\0", b"[]\0", b'{"parameters":{"token":{}}}\0', b"9" * 9_000_000])
def test_rubbish_is_an_error_of_the_agent(run: Run, path: str, answer: bytes) -> None:
    """Whatever sits on the socket, nothing but an AgentError comes of it; a subscription ends by it."""

    async def main() -> None:
        async with Agent(socket=path) as agent:
            with pytest.raises(blocking.AgentError):
                await agent.token()
            with pytest.raises(blocking.AgentError):
                await anext(agent.subscribe())

    with FakeAgent(path, GetToken=answer):
        run(main())


def test_a_full_backlog_is_waited_for(run: Run, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that accepts nothing is given up in time; one that accepts in time is asked."""
    monkeypatch.setattr(aio, "MARGIN", 0.1)

    async def main() -> None:
        async with Agent(socket=path) as agent:
            with pytest.raises(blocking.NoAgent, match="accepts no connection"):
                await agent.token(max_wait=0)
            asking = asyncio.create_task(agent.call("GetStatus"))
            accepted = [await asyncio.to_thread(lambda: listener.accept()[0]) for _ in range(2)]
            accepted[1].sendall(fakeagent.encode(fakeagent.status()))
            assert "agent" in await asking
            for connection in accepted:
                connection.close()

    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        run(main())


def test_a_stranger_s_agent_is_told_nothing(run: Run, path: str) -> None:
    """A server of another uid is refused before a byte is sent to it."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: only root can run an agent as another user, so run the tests as root")

    async def main() -> None:
        async with Agent(socket=path) as agent:
            with pytest.raises(blocking.PermissionDenied, match="uid 12345"):
                await agent.token()
            with pytest.raises(blocking.PermissionDenied, match="uid 12345"):
                await anext(agent.subscribe())

    record = Path(path).with_name("received")
    argv = [sys.executable, "-m", "tests.support.fakeagent", path, "12345", str(record)]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdin is not None
        assert stranger.stdout.readline() == b"ready\n"
        run(main())
        stranger.stdin.close()
        assert stranger.wait(10) == 0
    assert record.read_bytes() == b""


@pytest.mark.system
def test_with_the_real_agent_over_a_restart(run: Run) -> None:
    """Subscribed to the real agent: SIGKILL and a new start go unnoticed, a renewal arrives, and every token works."""
    with Sandbox() as box, logged_in(box) as live:

        async def main() -> None:
            async with Agent(socket=str(live.socket)) as agent:
                tokens = agent.subscribe()
                first = (await anext(tokens)).access_token
                await asyncio.to_thread(live.kill)
                assert await agent.token() == first
                await asyncio.to_thread(restart, live)
                assert await agent.token() == first
                box.revoke(first)
                second = await agent.reject(first)
                assert (await anext(tokens)).access_token == second != first
                assert d7client.balance(box, second).status == 200
            await asyncio.to_thread(live.stop)

        run(main())
