"""The server on real sockets: clients that stall, flood, do not read or come in crowds."""

import asyncio
import os
import socket

import pytest

from d7agent.agent import server
from d7agent.agent.limits import Limits
from d7agent.agent.poller import READ
from d7agent.core.errors import PermissionDenied
from d7agent.wire.messages import MAX_REQUEST
from tests.support.wire import (
    BOTH_LOOPS,
    SWIFT,
    HandClock,
    Stand,
    hold,
    play,
    slow_client,
    swept,
    until,
)

pytestmark = BOTH_LOOPS


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
                await asyncio.sleep(0)  # real time: a turn for the server
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
        [connection] = stand.server.roster
        await until(lambda: connection._held == MAX_REQUEST + 1)
        assert connection._watched == 0
        call.reply(b"{}")
        for _ in range(401):
            await client.reply()
        assert connection._held == 0
        assert connection._watched == READ

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


def test_a_crowd_of_halves_keeps_nobody_out(loop: str) -> None:
    """With a uid's places full of unfinished requests a newcomer is served, and an idle client keeps its place."""

    async def scene(stand: Stand) -> None:
        lasting = await stand.client()
        await lasting.call("GetToken")
        halves = [await stand.client() for _ in range(3)]
        for count, half in enumerate(halves, 1):
            half.send(b'{"method"')
            await until(lambda count=count: len(stand.server._watched) == count)  # type: ignore[misc]
        for _ in range(3):
            assert await stand.works()
        assert await halves[0].ended() == b""
        assert "parameters" in await lasting.call("GetToken")

    play(loop, scene, Limits(per_uid=4))


def test_those_who_may_not_ask_hold_few_connections(loop: str) -> None:
    """Of many that are refused the newest stay, and each is told why; one that may ask again is no longer of them."""

    async def scene(stand: Stand) -> None:
        stand.handler.refusal = PermissionDenied("no", "ask somebody")
        clients = [await stand.client() for _ in range(5)]
        for client in clients[:3]:
            assert await client.ended() == b""
        for client in clients[3:]:
            assert (await client.call("GetToken"))["error"].endswith("PermissionDenied")
        stand.handler.refusal = None
        stand.server.policy_changed()
        for client in clients[3:]:
            assert "parameters" in await client.call("GetToken")
        assert stand.server.roster._refused == {}

    play(loop, scene, Limits(refused=2))


def test_memory_is_given_back_when_a_crowd_has_left(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once three quarters of a crowd are gone, and not for the coming and going of a few."""
    given = list[int]()

    async def scene(stand: Stand) -> None:
        monkeypatch.setattr(server, "give_back", lambda: given.append(stand.server.connections))
        few = [await stand.client() for _ in range(10)]
        for client in few:
            await client.close()
        await until(lambda: stand.server.connections == 0)
        crowd = [await stand.client() for _ in range(server.CROWD)]
        assert await stand.works()
        for client in crowd:
            await client.close()
        await until(lambda: stand.server.connections == 0)
        assert len(given) == 1

    play(loop, scene)


def test_with_everybody_busy_newcomers_are_refused(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """At the cap with only open calls, a newcomer is closed, which is logged once; a free place is given again."""

    async def scene(stand: Stand) -> None:
        stand.handler.on_call["RenewToken"] = hold
        clients = [await stand.client() for _ in range(2)]
        for number, client in enumerate(clients):
            client.ask("RenewToken")
            await until(lambda number=number: len(stand.handler.calls) == number + 1)  # type: ignore[misc]
        for _ in range(3):
            with slow_client(stand.path) as late:
                late.send(b'{"method":"io.d7agent.Lock","parameters":{"passphrase":"s"}}\0')
                assert await asyncio.get_running_loop().sock_recv(late, 1) == b""
            assert not any(stand.server.inbox._data)
        stand.handler.calls[0].reply(b"{}")
        await clients[0].reply()
        assert await stand.works()

    play(loop, scene, Limits(per_uid=2))
    assert caplog.text.count("refused a connection") == 1


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


def test_who_has_left_already_costs_nothing(loop: str) -> None:
    """Clients that connect and leave at once are not even looked at, so that those behind them wait for little."""

    async def scene(stand: Stand) -> None:
        for _ in range(200):
            slow_client(stand.path).close()
        assert await stand.works()
        assert stand.handler.admitted == 1
        assert len(stand.handler.calls) == 1

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
                await asyncio.sleep(0)  # real time: a turn for the server
        await until(lambda: stand.server.connections == 0 and len(os.listdir("/proc/self/fd")) == before)
        assert list(stand.server.roster) == []
        assert not stand.server._watched
        assert await stand.works()

    play(loop, scene)


def nonblocking(sock: socket.socket) -> socket.socket:
    """The socket, as asyncio wants it."""
    sock.setblocking(False)
    return sock
