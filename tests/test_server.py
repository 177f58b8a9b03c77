"""The server on real sockets: what it makes of requests, good and bad."""

import array
import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys

import pytest

from d7agent.agent import listener
from d7agent.agent.call import Call
from d7agent.core.errors import NoSuchProfile
from d7agent.wire.messages import MAX_REQUEST
from d7agent.wire.service import STANDARD, interface_text
from tests.support.wire import (
    BOTH_LOOPS,
    TOKEN,
    Client,
    Stand,
    play,
    slow_client,
    until,
)

pytestmark = BOTH_LOOPS


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
            await asyncio.sleep(0)  # real time: a turn for the server
        await client.reply()
        assert stand.handler.seen == [b'{"profile":"a"}']

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


def passes_rights(sock: socket.socket) -> bool:
    """Whether descriptors may be passed over this socket; before kernel 6.16 that cannot be forbidden."""
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, listener.SO_PASSRIGHTS))
    except OSError:
        return True


def test_passed_descriptors_are_refused(loop: str) -> None:
    """Where the kernel can refuse descriptors (SCM_RIGHTS) on the agent's behalf, their sender gets EPERM."""
    with socket.socket(socket.AF_UNIX) as probe:
        listener.refuse_descriptors(probe)
        refuses = not passes_rights(probe)

    async def scene(stand: Stand) -> None:
        with slow_client(stand.path) as sock:
            await until(lambda: stand.server.connections == 1)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))]
            with pytest.raises(PermissionError) if refuses else contextlib.nullcontext():
                sock.sendmsg([b"{"], rights)

    play(loop, scene)


def test_passed_descriptors_are_not_kept(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot, those sent along with a request do not stay open in the agent."""
    monkeypatch.setattr(listener, "refuse_descriptors", lambda sock: None)

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


def test_listening_is_logged(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where the server listens is found in its log."""
    caplog.set_level(logging.DEBUG, "d7agent")

    async def scene(stand: Stand) -> None:
        assert f"listening on {stand.path}" in caplog.text

    play(loop, scene)
