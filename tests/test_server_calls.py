"""The server on real sockets: order, streams, who is told what when a peer or the server leaves."""

import asyncio
import json
import os

import pytest

from d7agent.agent.call import Call
from d7agent.agent.server import Server
from d7agent.core.errors import NoSuchProfile, PermissionDenied
from tests.support.wire import BOTH_LOOPS, SWIFT, TOKEN, FakeHandler, Stand, hold, play, run, slow_client, until

pytestmark = BOTH_LOOPS
DENIED = PermissionDenied("not you", "ask the owner")


def test_answers_come_in_order(loop: str) -> None:
    """A request behind an open call waits for it, even one that could be answered at once."""

    async def scene(stand: Stand) -> None:
        stand.handler.on_call["RenewToken"] = hold
        client = await stand.client()
        client.ask("RenewToken")
        client.ask("GetToken")
        client.ask("org.varlink.service.GetInfo")
        call = await stand.handler.next_call()
        await stand.works()
        assert len(stand.handler.calls) == 2
        call.reply(b'{"first":true}')
        assert (await client.reply())["parameters"] == {"first": True}
        assert "token" in (await client.reply())["parameters"]
        assert "vendor" in (await client.reply())["parameters"]

    play(loop, scene)


def test_stream(loop: str) -> None:
    """With `more` a call has any number of replies, and an error ends it; then the next request is served."""

    async def scene(stand: Stand) -> None:
        stand.handler.on_call["GetStatus"] = hold
        client = await stand.client()
        client.ask("GetStatus", more=True)
        call = await stand.handler.next_call()
        assert call.more
        for number in range(3):
            call.reply(b'{"n":%d}' % number, continues=True)
            assert await client.reply() == {"parameters": {"n": number}, "continues": True}
        call.error(NoSuchProfile("gone", "log in"))
        assert not call.open
        reply = await client.reply()
        assert reply == {"error": "io.d7agent.NoSuchProfile", "parameters": {"message": "gone", "hint": "log in"}}
        assert "parameters" in await client.call("GetToken")

    play(loop, scene)


def test_only_a_stream_continues(loop: str) -> None:
    """A second reply to a call without `more` is refused to the handler, not sent to the client."""

    async def scene(stand: Stand) -> None:
        stand.handler.on_call["GetStatus"] = hold
        client = await stand.client()
        client.ask("GetStatus")
        call = await stand.handler.next_call()
        with pytest.raises(ValueError, match="without `more`"):
            call.reply(b"{}", continues=True)
        call.reply(b"{}")
        call.reply(b'{"late":1}')
        assert await client.reply() == {"parameters": {}}
        assert "token" in (await client.call("GetToken"))["parameters"]

    play(loop, scene)


def test_oneway_gets_no_reply(loop: str) -> None:
    """Neither a reply nor an error comes back for a oneway call, whoever would have answered it."""

    async def scene(stand: Stand) -> None:
        client = await stand.client()
        client.ask("GetStatus", oneway=True, more=True)
        client.ask("Nope", oneway=True)
        client.ask("org.varlink.service.GetInfo", oneway=True)
        assert (await client.call("GetToken"))["parameters"] == json.loads(TOKEN)
        assert stand.handler.calls[0].oneway
        assert not stand.handler.calls[0].more

    play(loop, scene)


def test_answering_one_peer_while_another_is_served(loop: str) -> None:
    """A handler that answers a call of one connection while it handles another's mixes nothing up."""

    async def scene(stand: Stand) -> None:
        seen: list[bytes] = []

        def answer_the_first(call: Call) -> None:
            stand.handler.calls[0].reply(b'{"to":"first"}')
            stand.server.policy_changed()
            seen.append(bytes(call.parameters))
            call.reply(b'{"to":"second"}')

        stand.handler.on_call.update(RenewToken=hold, Lock=answer_the_first)
        first, second = await stand.client(), await stand.client()
        first.ask("RenewToken")
        await until(lambda: len(stand.handler.calls) == 1)
        second.send(
            b'{"method":"io.d7agent.Lock","parameters":{"passphrase":"s"}}\0'
            b'{"method":"io.d7agent.GetStatus","parameters":{"profile":"p"}}\0{"method":"io.d7agent.GetT'
        )
        assert await first.reply() == {"parameters": {"to": "first"}}
        assert await second.reply() == {"parameters": {"to": "second"}}
        assert "token" in (await second.reply())["parameters"]
        assert "token" in (await first.call("GetToken"))["parameters"]
        second.send(b'oken"}\0')
        assert "token" in (await second.reply())["parameters"]
        assert seen == [b'{"passphrase":"s"}']
        assert stand.handler.seen[2] == b'{"profile":"p"}'

    play(loop, scene)


def test_a_peer_that_leaves_is_told_once(loop: str) -> None:
    """When the peer goes while its call is open, on_gone is called once and late answers go nowhere."""

    async def scene(stand: Stand) -> None:
        stand.handler.on_call["GetStatus"] = hold
        client = await stand.client()
        client.ask("GetStatus", more=True)
        call = await stand.handler.next_call()
        gone: list[bool] = []
        call.on_gone = lambda: gone.append(call.open)
        await client.close()
        await until(lambda: bool(gone))
        call.reply(b"{}", continues=True)
        call.reply(b"{}")
        assert gone == [False]
        assert stand.server.connections == 0

    play(loop, scene)


def test_a_peer_that_only_stops_sending_is_still_answered(loop: str) -> None:
    """`nc -N` shuts its sending side after the request: replies and streams go on until it leaves for good."""

    async def scene(stand: Stand) -> None:
        stand.handler.on_call["GetStatus"] = hold
        client = await stand.client()
        client.ask("GetToken")
        client.ask("GetStatus", more=True)
        client.writer.write_eof()
        assert "token" in (await client.reply())["parameters"]
        await until(lambda: len(stand.handler.calls) == 2)
        call, gone = stand.handler.calls[1], asyncio.Event()
        call.on_gone = gone.set
        call.reply(b"{}", continues=True)
        assert (await client.reply())["continues"]
        await client.close()
        await asyncio.wait_for(gone.wait(), 10)

    play(loop, scene, SWIFT)


def test_a_half_closed_connection_ends_with_its_last_answer(loop: str) -> None:
    """After the answer to a peer that sends no more, the server closes."""

    async def scene(stand: Stand) -> None:
        stand.handler.on_call["RenewToken"] = hold
        client = await stand.client()
        client.ask("RenewToken")
        client.writer.write_eof()
        (await stand.handler.next_call()).reply(b"{}")
        assert await client.ended() == b'{"parameters":{}}\0'

    play(loop, scene)


def test_parameters_are_out_of_reach_after_the_call(loop: str) -> None:
    """A handler that keeps the view of the parameters finds it released, and what it cut out of it wiped."""
    kept: list[memoryview] = []

    async def scene(stand: Stand) -> None:
        def keep(call: Call) -> None:
            kept.append(call.parameters)
            call.reply(b"{}")

        def keep_a_slice(call: Call) -> None:
            kept.append(call.parameters[2:6])
            call.reply(b"{}")

        client = await stand.client()
        stand.handler.on_call.update(Lock=keep, Unlock=keep_a_slice)
        await client.call("Lock", {"passphrase": "s"})
        with pytest.raises(ValueError, match="released"):
            bytes(kept[0])
        await client.call("Unlock", {"passphrase": "s"})
        await client.call("GetToken")
        assert bytes(kept[1]) == b"\0\0\0\0"

    play(loop, scene)


def test_the_handlers_agent_errors_are_answers(loop: str) -> None:
    """An AgentError raised by the handler is sent with its fields; None fields are left out."""

    async def scene(stand: Stand) -> None:
        def fail(call: Call) -> None:
            raise NoSuchProfile("no x", "see status", extra=1, nothing=None)

        stand.handler.on_call["GetStatus"] = fail
        client = await stand.client()
        reply = await client.call("GetStatus")
        assert reply["parameters"] == {"extra": 1, "message": "no x", "hint": "see status"}

    play(loop, scene)


def test_a_handler_that_breaks_harms_one_connection(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """Any other exception is logged and closes the connection whose call it was."""

    async def scene(stand: Stand) -> None:
        def fail(call: Call) -> None:
            raise RuntimeError("broken")

        stand.handler.on_call["GetStatus"] = fail
        client = await stand.client()
        client.ask("GetStatus")
        assert await client.ended() == b""
        assert await stand.works()

    play(loop, scene)
    assert "io.d7agent.GetStatus failed" in caplog.text


def test_refused_peers_get_an_error_for_everything(loop: str) -> None:
    """A peer that may not ask gets PermissionDenied for each call, GetInfo included."""

    async def scene(stand: Stand) -> None:
        stand.handler.refusal = DENIED
        stand.handler.frames[b'{"method":"io.d7agent.GetToken"}'] = b'{"parameters":{"quick":1}}\0'
        client = await stand.client()
        client.send(b'{"method":"io.d7agent.GetToken"}\0{"method":"org.varlink.service.GetInfo"}\0')
        for _ in range(2):
            reply = await client.reply()
            assert reply["error"] == "org.varlink.service.PermissionDenied"
            assert reply["parameters"] == {"message": "not you", "hint": "ask the owner"}
        assert not stand.handler.calls
        assert stand.handler.admitted == 1

    play(loop, scene)


def test_a_policy_change_reaches_connected_peers(loop: str) -> None:
    """Open calls of a peer that is no longer admitted end with the error; its next calls too, until it is again."""

    async def scene(stand: Stand) -> None:
        stand.handler.on_call["GetStatus"] = hold
        idle, watcher = await stand.client(), await stand.client()
        await idle.call("GetToken")
        watcher.ask("GetStatus", more=True)
        await until(lambda: len(stand.handler.calls) == 2)
        call, gone = stand.handler.calls[1], []
        call.on_gone = lambda: gone.append(1)
        stand.server.policy_changed()
        assert call.open
        stand.handler.refusal = DENIED
        stand.server.policy_changed()
        assert (await watcher.reply())["error"].endswith("PermissionDenied")
        assert gone == [1]
        call.reply(b'{"late":1}')
        assert "error" in await idle.call("GetToken")
        assert "error" in await watcher.call("GetToken")
        stand.handler.refusal = None
        stand.server.policy_changed()
        assert "parameters" in await idle.call("GetToken")

    play(loop, scene)


def test_a_peer_that_cannot_be_checked_is_refused(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """If the policy itself breaks, nobody gets in by that."""

    async def scene(stand: Stand) -> None:
        stand.handler.admit = lambda peer: 1 // 0  # type: ignore[method-assign,return-value,assignment]
        client = await stand.client()
        assert (await client.call("GetToken"))["error"].endswith("PermissionDenied")

    play(loop, scene)
    assert "cannot be checked" in caplog.text


def test_close_sends_what_is_waiting(loop: str) -> None:
    """At the end, answers under way arrive whole, streams end by the close, and the socket's file stays."""

    async def scene(stand: Stand) -> None:
        stand.handler.on_call["GetStatus"] = hold
        watcher, reader = await stand.client(), await stand.client()
        watcher.ask("GetStatus", more=True)
        call, gone = await stand.handler.next_call(), []
        call.on_gone = lambda: gone.append(1)
        stand.handler.on_call["RenewToken"] = lambda call: call.reply(b'{"x":"' + b"x" * 1_000_000 + b'"}')
        reader.ask("RenewToken")
        await until(lambda: len(stand.handler.calls) == 2)
        answer = asyncio.ensure_future(reader.ended())
        await stand.server.close(5.0)
        assert len(await answer) > 1_000_000
        assert await watcher.ended() == b""
        assert gone == [1]
        assert os.path.exists(stand.path)  # noqa: ASYNC240
        with pytest.raises(ConnectionRefusedError):
            await stand.client()

    play(loop, scene)


def test_close_does_not_wait_for_a_reader_that_never_reads(loop: str) -> None:
    """After the grace, what is still open is cut."""

    async def scene(stand: Stand) -> None:
        stand.handler.on_call["GetStatus"] = lambda call: call.reply(b'{"x":"' + b"x" * 1_000_000 + b'"}')
        with slow_client(stand.path) as sock:
            sock.send(b'{"method":"io.d7agent.GetStatus"}\0')
            await until(lambda: bool(stand.handler.calls))
            await stand.server.close(0.05)
            assert stand.server.connections == 0

    play(loop, scene)


def test_a_server_without_a_call_closes(loop: str) -> None:
    """A server that never listened or never had a client closes at once."""

    async def main() -> None:
        await Server(FakeHandler()).close(10.0)

    run(loop, main())


def test_a_peer_that_leaves_with_requests_waiting_is_noticed(loop: str) -> None:
    """Even while no more is read from it, because 64 KiB wait behind its open call, a peer's leaving is seen."""

    async def scene(stand: Stand) -> None:
        stand.handler.on_call["GetStatus"] = hold
        client = await stand.client()
        client.ask("GetStatus", more=True)
        await until(lambda: len(stand.handler.calls) == 1)
        gone = asyncio.Event()
        stand.handler.calls[0].on_gone = gone.set
        client.send(b'{"method":"io.d7agent.GetToken"}\0' * 10_000)
        [connection] = stand.server.roster
        await until(lambda: connection._watched == 0)
        await client.close()
        await asyncio.wait_for(gone.wait(), 10)
        await until(lambda: stand.server.connections == 0)

    play(loop, scene)


def test_a_quick_way_that_breaks_is_not_the_only_one(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """If looking up a request fails, that is logged and the request answered the long way."""

    async def scene(stand: Stand) -> None:
        stand.handler.quick = lambda peer, request: 1 // 0  # type: ignore[method-assign,return-value,assignment]
        client = await stand.client()
        client.send(b'{"method":"io.d7agent.GetToken"}\0')
        assert "token" in (await client.reply())["parameters"]

    play(loop, scene)
    assert "cannot be looked up" in caplog.text
