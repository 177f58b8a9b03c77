"""The asyncio client's calls, on asyncio's own loop and on uvloop, against a scripted agent."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from d7agent.client import aio, blocking
from d7agent.client.aio import Agent
from tests.support import cli, fakeagent
from tests.support.fakeagent import ACCESS_TOKEN, SECOND_TOKEN, FakeAgent
from tests.support.loops import FACTORIES, Run, push, runner, until


@pytest.fixture(params=FACTORIES)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on asyncio's loop, and on uvloop's."""
    return runner(request.param)


@pytest.fixture
def path() -> Iterator[str]:
    """Where the scripted agent listens."""
    with cli.short_folder() as folder:
        yield str(folder / "a.sock")


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


def test_a_cancelled_call_confuses_no_other(run: Run, path: str) -> None:
    """The late answer to a call that was given up never becomes the answer to the next."""

    async def main() -> None:
        async with Agent(socket=path) as agent:
            given_up = asyncio.create_task(agent.reject("refused"))
            await until(lambda: len(served.requests) == 1)
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            with contextlib.suppress(OSError):
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
