"""The queue of those who wait to be accepted: who floods it, and leaves, waits like others."""

import contextlib
import select
import socket

import pytest

from d7agent.agent import listener
from d7agent.agent.limits import Limits
from d7agent.agent.listener import SHORT, SIGNS
from tests.support.wire import BOTH_LOOPS, TOKEN, Stand, play, until

pytestmark = BOTH_LOOPS

ASK = b'{"method":"io.d7agent.GetToken"}'
MANY = 4 * SIGNS
LONG = 2 * MANY


@pytest.fixture(autouse=True)
def crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One client a turn, so that whoever comes has others behind him."""
    monkeypatch.setattr(listener, "TURN", 0.0)


def leave(stand: Stand, data: bytes = b"", count: int = MANY) -> None:
    """Clients that connect, send this and are gone before the server gets a turn."""
    for _ in range(count):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(stand.path)
            sock.send(data)


def places(path: str) -> int:
    """How many can connect before the server gets a turn."""
    with contextlib.ExitStack() as stack:
        for count in range(2 * LONG):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.setblocking(False)
            try:
                sock.connect(path)
            except BlockingIOError:
                return count
    raise AssertionError("the queue has no end")


def is_short(stand: Stand) -> bool:
    return stand.server._listeners[0]._calming is not None


@pytest.mark.parametrize("data", [b"", ASK + b"\0"])
def test_a_flood_of_leavers_finds_a_short_queue(loop: str, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is short while the flood lasts, and long again when there was none for a while."""
    monkeypatch.setattr(listener, "CALM", 0.2)

    async def scene(stand: Stand) -> None:
        leave(stand, data)
        await until(lambda: is_short(stand) and not select.select([stand.server._listeners[0]._sock], [], [], 0)[0])
        assert places(stand.path) == SHORT + 1  # the kernel lets one more in than it was told
        await until(lambda: not is_short(stand))
        assert places(stand.path) == LONG + 1

    play(loop, scene, Limits(backlog=LONG))


def test_a_flood_that_goes_on_keeps_the_queue_short(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time that it is looked at again, new signs keep it so."""
    monkeypatch.setattr(listener, "CALM", 0.01)

    async def scene(stand: Stand) -> None:
        leave(stand)
        await until(lambda: is_short(stand))
        one = stand.server._listeners[0]
        for _ in range(3):
            looked = one._calming
            one._leavers = SIGNS - 1  # somebody was served meanwhile
            await until(lambda looked=looked: one._calming is not looked)  # type: ignore[misc]
            assert is_short(stand)

    play(loop, scene)


def test_who_stays_is_served_in_a_crowd(loop: str) -> None:
    """Also one that has closed its sending side, as `nc -N` does: it is no leaver."""

    async def scene(stand: Stand) -> None:
        stand.handler.frames[ASK] = TOKEN + b"\0"
        leave(stand, ASK + b"\0", 10)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(stand.path)
            sock.send(ASK + b"\0")
            sock.shutdown(socket.SHUT_WR)
            leave(stand, ASK + b"\0", 10)
            sock.setblocking(False)
            got: list[bytes] = []
            await until(lambda: bool(received(sock, got)))
            assert got == [TOKEN + b"\0"]
        assert len(stand.handler.asked_quick) < 5  # nobody looks up an answer for those who have left

    play(loop, scene)


def received(sock: socket.socket, got: list[bytes]) -> list[bytes]:
    """`got`, with what has come on the socket."""
    with contextlib.suppress(BlockingIOError):
        got.append(sock.recv(65_536))
    return got


@pytest.mark.parametrize("data", [
    b'{"method":"io.d7agent.RejectToken","oneway":true}\0',
    b'{"method":"io.d7agent.RejectToken","oneway":true}\0' + ASK + b"\0",
    b'{"method":"io.d7agent.GetToken","method":"io.d7agent.RejectToken","oneway":true}\0',
])  # fmt: skip
def test_what_is_no_mere_question_is_done_for_who_has_left(loop: str, data: bytes) -> None:
    """A call that wants no answer may be sent by one that does not wait; it is done, and is no sign of a flood."""

    async def scene(stand: Stand) -> None:
        leave(stand, data)
        await until(lambda: sum("Reject" in call.method for call in stand.handler.calls) == MANY)
        assert not is_short(stand)

    play(loop, scene)


def test_a_wish_without_an_answer_is_heard(loop: str) -> None:
    """GetToken that wants no answer has the agent get a token, whoever has left."""

    async def scene(stand: Stand) -> None:
        leave(stand, ASK[:-1] + b',"oneway":true}\0')
        await until(lambda: len(stand.handler.calls) == MANY)

    play(loop, scene)


def test_the_next_agent_finds_a_long_queue(loop: str) -> None:
    """On a socket of systemd's, who comes while no agent runs waits there: as many as ever."""
    held: list[socket.socket] = []

    async def scene(stand: Stand) -> None:
        leave(stand)
        await until(lambda: is_short(stand))
        held.append(stand.server._listeners[0]._sock.dup())
        await stand.server.close(1.0)
        assert places(stand.path) >= LONG - MANY

    play(loop, scene, Limits(backlog=LONG))
    held[0].close()
