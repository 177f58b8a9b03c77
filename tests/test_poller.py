"""The epoll set of the clients: who is watched for what, by the set or by the loop itself."""

import asyncio
import functools
import os
import socket

import pytest

from d7agent.agent.poller import BATCH, LEFT, READ, WRITE, Poller
from d7agent.agent.turns import TURN
from d7agent.core.clock import boot_time
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
        pairs = [socket.socketpair() for _ in range(3 * BATCH)]
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


def burn() -> None:
    """As much work as all of one kind may take in one turn."""
    until = boot_time() + TURN
    while boot_time() <= until:
        pass


def test_nobody_waits_behind_those_who_make_work(loop: str) -> None:
    """A socket of the first lane is served after one or two of a crowd in the lane of those who make work."""

    async def main() -> None:
        poller, served = Poller(asyncio.get_running_loop()), list[str]()
        crowd = [socket.socketpair() for _ in range(100)]
        ours, theirs = socket.socketpair()

        def answer(events: int) -> None:
            ours.recv(10)
            served.append("first")

        def make_work(events: int) -> None:
            if len(served) == 10:
                theirs.send(b"1")
                served.append("asked")
            served.append("crowd")
            burn()

        poller.watch(ours.fileno(), READ, answer)
        for mine, other in crowd:
            poller.watch(mine.fileno(), READ, make_work)
            poller.demote(mine.fileno(), READ)
            other.send(b"1")
        await until(lambda: "first" in served)
        assert served.index("first") - served.index("asked") <= 3
        for mine, other in (*crowd, (ours, theirs)):
            poller.forget(mine.fileno())
            mine.close()
            other.close()
        poller.close()

    run(loop, main())


def test_each_of_those_who_make_work_gets_its_turn(loop: str) -> None:
    """In a crowd that is ready without end, and of which a turn serves one, nobody is served twice before all are."""

    async def main() -> None:
        poller, served = Poller(asyncio.get_running_loop()), list[int]()
        crowd = [socket.socketpair() for _ in range(3 * BATCH)]

        def make_work(number: int, events: int) -> None:
            served.append(number)
            burn()

        for mine, other in crowd:
            poller.watch(mine.fileno(), READ, functools.partial(make_work, mine.fileno()))
            poller.demote(mine.fileno(), READ)
            other.send(b"1")
        await until(lambda: len(served) >= 2 * len(crowd))
        assert len(set(served[: len(crowd)])) == len(crowd)
        for mine, other in crowd:
            poller.forget(mine.fileno())
            mine.close()
            other.close()
        poller.close()

    run(loop, main())


def test_what_was_told_of_a_closed_socket_is_not_its_successors(loop: str) -> None:
    """Events of a descriptor that is closed before its turn comes are not told to the next socket of that number."""

    async def main() -> None:
        poller, seen = Poller(asyncio.get_running_loop()), list[int]()
        (first, one), (second, two) = socket.socketpair(), socket.socketpair()
        number, fresh = second.fileno(), list[socket.socket]()

        def close_both(events: int) -> None:
            for sock in (first, second):
                poller.forget(sock.fileno())
                sock.close()
            fresh.extend(socket.socketpair())
            assert fresh[1].fileno() == number
            poller.watch(number, READ, seen.append)
            fresh[0].send(b"1")
            burn()

        poller.watch(first.fileno(), READ, close_both)
        poller.watch(number, READ, seen.append)
        one.send(b"1")
        two.close()
        await until(lambda: bool(seen))
        assert not seen[0] & LEFT
        poller.forget(number)
        for sock in (one, *fresh):
            sock.close()
        poller.close()

    run(loop, main())
