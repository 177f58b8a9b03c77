"""The asyncio client's subscriptions: against a scripted agent, and against the real one."""

import asyncio
from collections.abc import Iterator

import pytest

from d7agent.client import aio, blocking
from d7agent.client.aio import Agent
from d7agent.sandbox import Sandbox
from tests.support import cli, d7client, fakeagent
from tests.support.fakeagent import ACCESS_TOKEN, SECOND_TOKEN, FakeAgent
from tests.support.longago import logged_in, restart
from tests.support.loops import FACTORIES, Run, push, runner, stream, until


@pytest.fixture(params=FACTORIES)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on asyncio's loop, and on uvloop's."""
    return runner(request.param)


@pytest.fixture
def path() -> Iterator[str]:
    """Where the scripted agent listens."""
    with cli.short_folder() as folder:
        yield str(folder / "a.sock")


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

    with FakeAgent(path, GetToken=stream(fakeagent.token())) as served:
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

    with FakeAgent(path, GetToken=stream(fakeagent.token())) as served:
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

    with FakeAgent(path, GetToken=stream(fakeagent.token())) as served:
        run(main())


@pytest.mark.parametrize(("valid_for", "asks"), [(29, 1), (31, 0), (None, 0)])
def test_a_token_at_its_end_is_not_served_from_hand(run: Run, path: str, valid_for: int | None, asks: int) -> None:
    """Where nothing is said, 30 seconds must be left; a token without expiry is served as long as the stream stands."""

    async def main() -> None:
        async with Agent(socket=path) as agent:
            await anext(agent.subscribe())
            await agent.token()
            assert len(served.requests) == 1 + asks

    with FakeAgent(path, GetToken=stream(fakeagent.token(valid_for=valid_for))) as served:
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

    with FakeAgent(path, GetToken=stream(fakeagent.token())) as served:
        run(main())


def test_a_restart_of_the_agent_is_bridged(
    run: Run, path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While it is away the token at hand serves, which is logged once; then a newer token comes, the same does not."""
    monkeypatch.setattr(aio, "FIRST_PAUSE", 0.01)

    async def main() -> None:
        async with Agent(socket=path) as agent:
            with FakeAgent(path, GetToken=stream(fakeagent.token())):
                tokens = agent.subscribe()
                await anext(tokens)
            await until(lambda: len(caplog.messages) == 1)
            assert await agent.token(min_validity=60) == ACCESS_TOKEN
            with pytest.raises(blocking.NoAgent):
                await agent.token(min_validity=3600)
            with FakeAgent(path, GetToken=stream(fakeagent.token())) as same:
                coming = asyncio.ensure_future(anext(tokens))
                await until(lambda: len(same.requests) == 1)
            with FakeAgent(path, GetToken=stream(fakeagent.token(SECOND_TOKEN))):
                assert (await coming).access_token == SECOND_TOKEN

    run(main())
    assert all("trying again" in message for message in caplog.messages)
    assert ACCESS_TOKEN not in caplog.text


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

    with FakeAgent(path, GetToken=stream(fakeagent.token())) as served:
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

    with FakeAgent(path, GetToken=stream(fakeagent.token())):
        run(main())


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
