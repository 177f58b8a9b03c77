"""The server on real sockets, under stock asyncio and uvloop, with a made-up handler."""

import array
import asyncio
import json
import logging
import os
import socket
import subprocess
import sys

import pytest

from d7agent.agent.call import Call
from d7agent.agent.limits import Limits
from d7agent.agent.server import Server
from d7agent.core.errors import NoSuchProfile, PermissionDenied
from d7agent.wire.messages import MAX_REQUEST
from d7agent.wire.service import STANDARD, interface_text
from tests.support.wire import LOOPS, TOKEN, Client, FakeHandler, HandClock, Stand, play, run, until

SWIFT = Limits(sweep=0.02)  # looks often; the times themselves are the hand clock's
DENIED = PermissionDenied("not you", "ask the owner")


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    """Both event loops."""
    name: str = request.param
    return name


def hold(call: Call) -> None:
    """Leave a call open."""


def test_get_info(loop: str) -> None:
    """GetInfo names the product and both interfaces."""

    async def scene(stand: Stand) -> None:
        client = await stand.client()
        info = (await client.call("org.varlink.service.GetInfo"))["parameters"]
        assert info["product"] == "d7agent"
        assert info["interfaces"] == ["org.varlink.service", "io.d7agent"]

    play(loop, scene)


@pytest.mark.parametrize(("name", "text"), [("io.d7agent", interface_text()), ("org.varlink.service", STANDARD)])
def test_describes_its_interfaces(loop: str, name: str, text: str) -> None:
    """GetInterfaceDescription gives each interface's own text."""

    async def scene(stand: Stand) -> None:
        client = await stand.client()
        reply = await client.call("org.varlink.service.GetInterfaceDescription", {"interface": name})
        assert reply["parameters"]["description"] == text

    play(loop, scene)


@pytest.mark.parametrize(
    ("request_", "error", "field"),
    [
        ({"method": "io.d7agent.Nope"}, "MethodNotFound", ("method", "io.d7agent.Nope")),
        ({"method": "org.varlink.service.Nope"}, "MethodNotFound", ("method", "org.varlink.service.Nope")),
        ({"method": "x.y.GetToken"}, "InterfaceNotFound", ("interface", "x.y")),
        ({"method": "GetToken"}, "InvalidParameter", ("parameter", "method")),
        ({"method": 5}, "InvalidParameter", ("parameter", "method")),
        ({}, "InvalidParameter", ("parameter", "method")),
        ({"method": "io.d7agent.GetToken", "more": "yes"}, "InvalidParameter", ("parameter", "more")),
        ({"method": "io.d7agent.GetToken", "parameters": []}, "InvalidParameter", ("parameter", "parameters")),
        ({"method": "io.d7agent.GetToken", "parameters": "x"}, "InvalidParameter", ("parameter", "parameters")),
        ({"method": "io.d7agent.GetToken", "upgrade": True}, "InvalidParameter", ("parameter", "upgrade")),
        (
            {"method": "org.varlink.service.GetInterfaceDescription"},
            "InvalidParameter",
            ("parameter", "interface"),
        ),
        (
            {"method": "org.varlink.service.GetInterfaceDescription", "parameters": {"interface": "a.b"}},
            "InterfaceNotFound",
            ("interface", "a.b"),
        ),
    ],
)
def test_standard_errors(loop: str, request_: object, error: str, field: tuple[str, str]) -> None:
    """A call that fits nowhere gets the standard error with its field, and the connection goes on."""

    async def scene(stand: Stand) -> None:
        client = await stand.client()
        client.send(json.dumps(request_).encode() + b"\0")
        reply = await client.reply()
        assert reply["error"] == f"org.varlink.service.{error}"
        assert reply["parameters"][field[0]] == field[1]
        assert reply["parameters"]["message"]
        assert not stand.handler.calls
        assert "parameters" in await client.call("GetToken")

    play(loop, scene)


@pytest.mark.parametrize("parameters", [b"", b',"parameters":null', b',"parameters":{}', b',"parameters": { } '])
def test_missing_null_and_empty_parameters_are_the_same(loop: str, parameters: bytes) -> None:
    """However a caller says `no parameters`, the handler gets an empty object; `more: null` is no `more`."""

    async def scene(stand: Stand) -> None:
        client = await stand.client()
        client.send(b'{"more":null,"oneway":null,"strange":[1],"method":"io.d7agent.GetStatus"' + parameters + b"}\0")
        assert await client.reply() == {"parameters": json.loads(TOKEN)}
        assert json.loads(stand.handler.seen[0]) == {}
        assert not stand.handler.calls[0].more
        assert not stand.handler.calls[0].oneway

    play(loop, scene)


RUBBISH = {
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "not an object": b"[]\0",
    "nothing": b"\0",
    "blank first": b' {"method":"io.d7agent.GetToken"}\0',
    "cut short": b'{"method":\0',
    "one brace too many": b'{"method":"io.d7agent.GetToken"}}\0',
    "wrong type, then rubbish": b'{"method":5,]\0',
    "not UTF-8": b'{"method":"\xff"}\0',
    "nested": b'{"method":"a.b","parameters":' + b"[" * 60_000 + b"\0",
    "nested after a wrong type": b'{"method":5,"parameters":' + b"[" * 60_000 + b"\0",
    "one byte too many": b'{"method":"' + b"a" * (MAX_REQUEST - 12) + b'"}\0',
    "without end": b"{" + b" " * (MAX_REQUEST + 1),
}


@pytest.mark.parametrize("data", RUBBISH.values(), ids=RUBBISH)
def test_rubbish_closes_only_its_own_connection(loop: str, data: bytes) -> None:
    """What is no message ends the connection without a reply, and the next client notices nothing."""

    async def scene(stand: Stand) -> None:
        other = await stand.client()
        client = await stand.client()
        client.send(data)
        assert await client.ended() == b""
        assert "token" in (await other.call("GetToken"))["parameters"]
        assert await stand.works()

    play(loop, scene)


def test_answers_before_rubbish_are_sent(loop: str) -> None:
    """Requests before the rubbish are answered before the close."""

    async def scene(stand: Stand) -> None:
        client = await stand.client()
        client.send(b'{"method":"io.d7agent.GetStatus"}\0rubbish')
        assert await client.ended() == b'{"parameters":' + TOKEN + b"}\0"

    play(loop, scene)


def test_the_largest_request_is_taken(loop: str) -> None:
    """A request of exactly 64 KiB is served."""

    async def scene(stand: Stand) -> None:
        client = await stand.client()
        start, end = b'{"method":"io.d7agent.StoreCredential","parameters":{"a":"', b'"}}'
        client.send(start + b"x" * (MAX_REQUEST - len(start) - len(end)) + end + b"\0")
        await client.reply()
        assert len(stand.handler.seen[0]) == MAX_REQUEST - len(b'{"method":"io.d7agent.StoreCredential","parameters":}')

    play(loop, scene)


def test_a_byte_at_a_time(loop: str) -> None:
    """A request that comes in single bytes is served like any other."""

    async def scene(stand: Stand) -> None:
        client = await stand.client()
        for byte in b'{"method":"io.d7agent.GetStatus","parameters":{"profile":"a"}}\0':
            client.send(bytes([byte]))
            await asyncio.sleep(0)
        await client.reply()
        assert stand.handler.seen == [b'{"profile":"a"}']

    play(loop, scene)


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


def test_quick_requests_are_recognised_whole(loop: str) -> None:
    """A request that the handler knows byte for byte never reaches `call`; another one does."""

    async def scene(stand: Stand) -> None:
        stand.handler.frames[b'{"method":"io.d7agent.GetToken"}'] = b'{"parameters":{"quick":1}}\0'
        client = await stand.client()
        for _ in range(2):
            client.send(b'{"method":"io.d7agent.GetToken"}\0')
            assert (await client.reply())["parameters"] == {"quick": 1}
        client.send(b'{"method":"io.d7agent.GetToken"}\0{"method":"io.d7agent.GetToken"}\0')
        assert "token" in (await client.reply())["parameters"]
        assert "token" in (await client.reply())["parameters"]
        assert len(stand.handler.calls) == 2

    play(loop, scene)


def test_only_requests_without_secrets_are_copied(loop: str) -> None:
    """`quick` is shown small GetToken requests and nothing else."""

    async def scene(stand: Stand) -> None:
        client = await stand.client()
        await client.call("StoreCredential", {"client_secret": "s"})
        await client.call("Lock", {"passphrase": "s"})
        await client.call("GetStatus")
        client.send(b'{"method":"io.d7agent.GetToken","parameters":{"x":"' + b"x" * 512 + b'"}}\0')
        await client.reply()
        client.send(b'{"method":"io.d7agent.GetToken"')
        await until(lambda: bool(stand.server._watched))
        client.send(b"}\0")
        await client.reply()
        assert stand.handler.asked_quick == []

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


async def swept(stand: Stand) -> None:
    """Wait for three sweeps."""
    for _ in range(3):
        timer = stand.server._sweeper
        await until(lambda timer=timer: stand.server._sweeper is not timer)  # type: ignore[misc]


def test_unfinished_requests_are_dropped(loop: str) -> None:
    """A request that is not whole after 10 s ends its connection, even if bytes keep coming; others stay."""
    clock = HandClock()

    async def scene(stand: Stand) -> None:
        idle, slow = await stand.client(), await stand.client()
        await idle.call("GetToken")
        slow.send(b'{"method":')
        await until(lambda: bool(stand.server._watched))
        clock.seconds += 9
        slow.send(b'"io.')
        await swept(stand)  # and found nothing to do
        assert not slow.reader.at_eof()
        clock.seconds += 1
        assert await slow.ended() == b""
        assert "parameters" in await idle.call("GetToken")

    play(loop, scene, SWIFT, clock)


def test_no_timer_without_need(loop: str) -> None:
    """The sweep stops when nobody keeps the server waiting, so that an idle agent has no wake-ups."""

    async def scene(stand: Stand) -> None:
        client = await stand.client()
        await client.call("GetToken")
        assert stand.server._sweeper is None
        client.send(b'{"method":')
        await until(lambda: stand.server._sweeper is not None)
        client.send(b'"io.d7agent.GetToken"}\0')
        await client.reply()
        await until(lambda: stand.server._sweeper is None)

    play(loop, scene, SWIFT)


def slow_client(path: str) -> socket.socket:
    """A client that reads only when told."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    sock.setblocking(False)
    return sock


def test_a_reader_that_stands_still_is_dropped(loop: str) -> None:
    """A client that takes no byte of its replies for 10 s is dropped; one that takes some is not."""
    clock = HandClock()

    async def scene(stand: Stand) -> None:
        frame = b'{"big":"' + b"x" * 900_000 + b'"}'
        stand.handler.on_call["GetStatus"] = lambda call: call.reply(frame)
        with slow_client(stand.path) as reader, slow_client(stand.path) as stuck:
            for sock in (reader, stuck):
                sock.send(b'{"method":"io.d7agent.GetStatus"}\0')
            await until(lambda: len(stand.server._watched) == 2)
            for _ in range(3):
                clock.seconds += 6
                await until(lambda: readable(reader, 100_000))
                await swept(stand)
            await until(lambda: stand.server.connections == 1)
            received = 300_000
            while received < len(frame) + 16:
                received += len(await asyncio.get_running_loop().sock_recv(reader, 65536))

    play(loop, scene, SWIFT, clock)


def readable(sock: socket.socket, count: int) -> bool:
    """Read `count` bytes that are there."""
    left = count
    while left:
        try:
            left -= len(sock.recv(left))
        except BlockingIOError:
            return False
    return True


def test_a_subscriber_that_does_not_read_is_dropped(loop: str) -> None:
    """With more than 1 MiB waiting, the next reply of a stream ends the connection instead of piling up."""

    async def scene(stand: Stand) -> None:
        stand.handler.on_call["GetStatus"] = hold
        with slow_client(stand.path) as sock:
            sock.send(b'{"method":"io.d7agent.GetStatus","more":true}\0')
            call = await stand.handler.next_call()
            sent = 0
            while call.open:
                call.reply(b'{"x":"' + b"x" * 100_000 + b'"}', continues=True)
                sent += 100_000
                assert sent < 3 * 1024 * 1024
                await asyncio.sleep(0)
            assert sent > 1024 * 1024
        assert await stand.works()

    play(loop, scene)


def test_requests_wait_while_their_client_does_not_read(loop: str) -> None:
    """A client that asks and asks without reading is answered no further than its buffer, and later to the end."""

    async def scene(stand: Stand) -> None:
        stand.handler.on_call["GetStatus"] = lambda call: call.reply(b'{"x":"' + b"x" * 60_000 + b'"}')
        client = await stand.client()
        sock = slow_client(stand.path)
        sock.send(b'{"method":"io.d7agent.GetStatus"}\0' * 100)
        await until(lambda: bool(stand.server._watched))
        assert "parameters" in await client.call("GetToken")
        assert len(stand.handler.calls) < 50
        received = 0
        while received < 100 * 60_000:
            received += len(await asyncio.get_running_loop().sock_recv(sock, 65536))
        sock.close()
        assert len(stand.handler.calls) == 101

    play(loop, scene)


def test_a_flood_does_not_starve_others(loop: str) -> None:
    """While one client pours in 10,000 requests at once, another's single request is answered in between."""

    async def scene(stand: Stand) -> None:
        flood, other = await stand.client(), await stand.client()
        await other.call("GetToken")
        flood.send(b'{"method":"io.d7agent.GetStatus"}\0' * 10_000)
        await until(lambda: len(stand.handler.calls) > 1)
        await other.call("GetToken")
        assert len(stand.handler.calls) < 5_000
        for _ in range(10_000):
            await flood.reply()

    play(loop, scene)


def test_what_waits_behind_an_open_call_is_bounded(loop: str) -> None:
    """Behind an open call no more than 64 KiB are read; all of it is served once the call ends."""

    async def scene(stand: Stand) -> None:
        stand.handler.on_call["RenewToken"] = hold
        client = await stand.client()
        client.ask("RenewToken")
        call = await stand.handler.next_call()
        request = b'{"method":"io.d7agent.GetStatus","parameters":{"x":"' + b"x" * 1000 + b'"}}\0'
        client.send(request * 400)
        await until(lambda: bool(stand.server._watched))
        [connection] = stand.server.roster
        assert connection._held == MAX_REQUEST + 1
        assert not connection._reading
        call.reply(b"{}")
        for _ in range(401):
            await client.reply()
        assert connection._held == 0
        assert connection._reading

    play(loop, scene)


def test_one_user_cannot_fill_the_memory_with_halves(loop: str) -> None:
    """Unfinished requests beyond a user's share of memory end the connection that went too far."""

    async def scene(stand: Stand) -> None:
        clients = [await stand.client() for _ in range(4)]
        for client in clients[:3]:
            client.send(b"{" + b" " * 10_000)
        await until(lambda: len(stand.server._watched) == 3)
        clients[3].send(b"{" + b" " * 10_000)
        assert await clients[3].ended() == b""
        assert stand.server.connections == 3
        for client in clients[:3]:
            await client.close()
        await until(lambda: stand.server.connections == 0)
        assert await stand.works()

    play(loop, scene, Limits(half_requests=3 * 16 * 1024))


def test_at_the_cap_the_longest_idle_leaves(loop: str) -> None:
    """A newcomer at the cap takes the place of the client that was silent longest, never of one with an open call."""

    async def scene(stand: Stand) -> None:
        stand.handler.on_call["RenewToken"] = hold
        busy, silent, lively = await stand.client(), await stand.client(), await stand.client()
        busy.ask("RenewToken")
        call = await stand.handler.next_call()
        await silent.call("GetToken")
        await lively.call("GetToken")
        await silent.call("GetToken")
        await lively.call("GetToken")
        assert await stand.works()
        assert await silent.ended() == b""
        assert "parameters" in await lively.call("GetToken")
        call.reply(b"{}")
        assert "parameters" in await busy.reply()

    play(loop, scene, Limits(per_uid=3))


def test_with_everybody_busy_newcomers_are_refused(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """At the cap with only open calls, a newcomer is closed, which is logged once; a free place is given again."""

    async def scene(stand: Stand) -> None:
        stand.handler.on_call["RenewToken"] = hold
        clients = [await stand.client() for _ in range(2)]
        for number, client in enumerate(clients):
            client.ask("RenewToken")
            await until(lambda number=number: len(stand.handler.calls) == number + 1)  # type: ignore[misc]
        for _ in range(3):
            assert await (await stand.client()).ended() == b""
        stand.handler.calls[0].reply(b"{}")
        await clients[0].reply()
        assert await stand.works()

    play(loop, scene, Limits(per_uid=2))
    assert caplog.text.count("refused a connection") == 1


def test_passed_descriptors_are_not_kept(loop: str) -> None:
    """Descriptors sent along with a request (SCM_RIGHTS) do not stay open in the agent."""

    async def scene(stand: Stand) -> None:
        with slow_client(stand.path) as sock:
            ready, theirs = os.pipe()
            await until(lambda: stand.server.connections == 1)
            before = set(os.listdir("/proc/self/fd"))
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs] * 50))]
            for part in (b'{"method":', b'"io.d7agent.GetToken"}\0'):
                sock.sendmsg([part], rights)
            await asyncio.get_running_loop().sock_recv(sock, 4096)
            assert set(os.listdir("/proc/self/fd")) == before
            os.close(theirs)
            assert os.read(ready, 1) == b""
            os.close(ready)

    play(loop, scene)


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


def test_a_closing_connection_does_not_linger(loop: str) -> None:
    """Rubbish behind a small answer that is never read: the connection is gone after 10 s all the same."""
    clock = HandClock()

    async def scene(stand: Stand) -> None:
        stand.handler.on_call["GetStatus"] = lambda call: call.reply(b'{"x":"' + b"x" * 1_000_000 + b'"}')
        with slow_client(stand.path) as sock:
            sock.send(b'{"method":"io.d7agent.GetStatus"}\0')
            await until(lambda: bool(stand.server._watched))
            sock.shutdown(socket.SHUT_WR)
            await swept(stand)
            assert stand.server.connections == 1
            clock.seconds += 10
            await until(lambda: stand.server.connections == 0)

    play(loop, scene, SWIFT, clock)


def test_two_sockets(loop: str) -> None:
    """One server serves any number of listening sockets."""

    async def scene(stand: Stand) -> None:
        second = stand.path + "2"
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(second)
        await stand.server.listen(sock)
        client = Client(*await asyncio.open_unix_connection(second))
        assert "parameters" in await client.call("GetToken")
        await client.close()
        assert await stand.works()

    play(loop, scene)


def test_the_peer_is_who_the_kernel_says(loop: str) -> None:
    """A call carries uid, gid and pid of the process that connected."""

    async def scene(stand: Stand) -> None:
        await (await stand.client()).call("GetStatus")
        peer = stand.handler.calls[0].peer
        assert (peer.uid, peer.gid, peer.pid) == (os.getuid(), os.getgid(), os.getpid())

    play(loop, scene)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["info", "unix:{}"], "io.d7agent"),
        (["help", "unix:{}/io.d7agent"], "method GetToken"),
        (["call", "unix:{}/io.d7agent.GetStatus", "{{}}"], '"access_token": "T"'),
        (["call", "-m", "unix:{}/io.d7agent.RenewToken", "{{}}"], '"last": true'),
        (["call", "unix:{}/io.d7agent.Reload", "{{}}"], "io.d7agent.NoSuchProfile"),
    ],
    ids=["info", "help", "call", "more", "error"],
)
def test_a_published_client_gets_along(loop: str, args: list[str], expected: str) -> None:
    """The `varlink` package's command line, written by others, understands this server."""

    async def scene(stand: Stand) -> None:
        def stream(call: Call) -> None:
            call.reply(b'{"token":{"n":1}}', continues=True)
            call.reply(b'{"last":true}')

        def fail(call: Call) -> None:
            raise NoSuchProfile("no", "none")

        stand.handler.on_call.update(RenewToken=stream, Reload=fail)
        command = [sys.executable, "-m", "varlink.cli", *(arg.format(stand.path) for arg in args)]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, _ = await process.communicate()
        assert expected in output.decode()

    play(loop, scene)


def test_nothing_is_left_behind(loop: str) -> None:
    """After 2,000 connections, half of them rude, no descriptor, place or byte of the share is still taken."""

    async def scene(stand: Stand) -> None:
        endings: list[bytes] = [b'{"method":"io.d7agent.GetToken"}\0', b'{"method":', b"x", b""]
        before = len(os.listdir("/proc/self/fd"))
        for number in range(2_000):
            with socket.socket(socket.AF_UNIX) as sock:
                await asyncio.get_running_loop().sock_connect(nonblocking(sock), stand.path)
                sock.send(endings[number % 4])
            if number % 50 == 0:
                await asyncio.sleep(0)
        await until(lambda: stand.server.connections == 0 and len(os.listdir("/proc/self/fd")) == before)
        assert stand.server.roster._shares == {}
        assert not stand.server._watched
        assert await stand.works()

    play(loop, scene)


def nonblocking(sock: socket.socket) -> socket.socket:
    """The socket, as asyncio wants it."""
    sock.setblocking(False)
    return sock


def test_listening_is_logged(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where the server listens is found in its log."""
    caplog.set_level(logging.DEBUG, "d7agent")

    async def scene(stand: Stand) -> None:
        assert f"listening on {stand.path}" in caplog.text

    play(loop, scene)


def test_a_server_without_a_call_closes(loop: str) -> None:
    """A server that never listened or never had a client closes at once."""

    async def main() -> None:
        await Server(FakeHandler()).close(10.0)

    run(loop, main())
