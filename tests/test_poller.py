"""The epoll set of the clients: who is watched for what, by the set or by the loop itself."""

import asyncio
import functools
import os
import socket

import pytest

from d7agent.agent.poller import LEFT, READ, TURN, WRITE, Poller
from tests.support.wire import BOTH_LOOPS, run, until

pytestmark = BOTH_LOOPS


def test_a_socket_is_watched_wherever_it_is(loop: str) -> None:
    """Handed over to the loop and taken back, a socket's bytes are seen, and only what it is watched for."""

    async def main() -> None:
        poller, seen = Poller(asyncio.get_running_loop()), list[int]()
        ours, theirs = socket.socketpair()
        with ours, theirs:

            def ready(events: int) -> None:
                seen.append(events)
                if events & READ:
                    ours.recv(10)

            poller.watch(ours.fileno(), READ, ready)
            theirs.send(b"1")
            await until(lambda: len(seen) == 1)
            poller.hand_over(ours.fileno())
            theirs.send(b"2")
            await until(lambda: len(seen) == 2)
            poller.change(ours.fileno(), 0)
            theirs.send(b"3")
            poller.change(ours.fileno(), WRITE)
            await until(lambda: len(seen) > 2)
            assert seen[-1] == WRITE
            poller.change(ours.fileno(), 0)
            assert ours.recv(10) == b"3"
            theirs.close()
            await until(lambda: bool(seen[-1] & LEFT))
            poller.forget(ours.fileno())
        poller.close()
        poller.close()

    run(loop, main())


@pytest.mark.parametrize("handed_over", [False, True])
def test_a_forgotten_socket_is_seen_no_more(loop: str, handed_over: bool) -> None:
    """After forget, bytes that still come call nobody, whoever watched."""

    async def main() -> None:
        poller, seen = Poller(asyncio.get_running_loop()), list[int]()
        ours, theirs = socket.socketpair()
        other, wakes = socket.socketpair()
        with ours, theirs, other, wakes:
            poller.watch(ours.fileno(), READ, seen.append)
            if handed_over:
                poller.hand_over(ours.fileno())
            woken = asyncio.Event()
            poller.watch(other.fileno(), READ, lambda events: woken.set())
            poller.forget(ours.fileno())
            theirs.send(b"1")
            wakes.send(b"1")
            await asyncio.wait_for(woken.wait(), 10)
            assert seen == []
            poller.change(ours.fileno(), WRITE)
        poller.close()

    run(loop, main())


def note(seen: set[int], number: int, events: int) -> None:
    """A socket's `ready`."""
    seen.add(number)


def test_nobody_is_left_out(loop: str) -> None:
    """With more sockets ready than fit in a turn, each is served."""

    async def main() -> None:
        poller, seen = Poller(asyncio.get_running_loop()), set[int]()
        pairs = [socket.socketpair() for _ in range(3 * TURN)]
        for ours, theirs in pairs:
            poller.watch(ours.fileno(), READ, functools.partial(note, seen, ours.fileno()))
            theirs.send(b"1")
        await until(lambda: len(seen) == len(pairs))
        for ours, theirs in pairs:
            poller.forget(ours.fileno())
            ours.close()
            theirs.close()
        poller.close()

    before = len(os.listdir("/proc/self/fd"))
    run(loop, main())
    assert len(os.listdir("/proc/self/fd")) == before
