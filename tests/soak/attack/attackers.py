"""As a program: one kind of hostile peer. attackers.py SOCKET KIND ENOUGH; it needs nothing but the standard library.

Prints "up" when it is at work, "enough" when it has done ENOUGH of what it does, and how much at the end, which is the
end of its stdin. Everything it holds and everything it sends at once is bounded by the numbers below.
"""

import array
import itertools
import os
import resource
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator

ASK = b'{"method":"io.d7agent.GetToken"}\0'
STATUS = b'{"method":"io.d7agent.GetStatus"}\0'
FOLLOW = b'{"method":"io.d7agent.GetStatus","more":true}\0'
SILENT = 1_024  # connections that say nothing
MANY = 256  # connections of the kinds that do something on each
UIDS = 2_000  # strangers, with one connection after the other
FIRST_UID = 200_000
DESCRIPTORS = 200  # passed with one request; the kernel takes 253
PATIENCE = 5  # seconds for a connect while the queue is full
CHECK = 64  # steps between two looks at stdin

DEEP = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
RUBBISH = (
    b"{" * 60_000 + b"\0",
    b'{"method":' + b"[" * 60_000 + b"\0",
    b'{"method":"io.d7agent.GetToken","parameters":' + DEEP + b"}\0",
    b'{"method":"io.d7agent.GetToken","parameters":{"min_validity":' + b"9" * 60_000 + b"}}\0",
    b'{"method":"io.d7agent.GetToken","parameters":{"max_wait":1e' + b"9" * 400 + b"}}\0",
    b'{"method":"io.d7agent.GetToken","parameters":{"profile":"' + b"a" * 65_000 + b'"}}\0',
    b'{"method":"\xff\xfe\xc0\x80"}\0',
    b"GET / HTTP/1.1\r\n\r\n",
    b'{"a":"' + b"b" * 70_000,
)


class Place:
    """The socket attacked, and a new connection to it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def connect(self) -> socket.socket:
        """One that waits for its place in the queue."""
        sock = socket.socket(socket.AF_UNIX)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", PATIENCE, 0))
        sock.connect(self._path)
        return sock

    def many(self, count: int) -> list[socket.socket]:
        """So many."""
        return [self.connect() for _ in range(count)]


# Each kind yields how much it has done, again and again; the first time when all is set up.


def silent(place: Place) -> Iterator[int]:
    """Connections that never say anything."""
    held = place.many(SILENT)
    while True:
        yield len(held)
        time.sleep(0.05)  # real time: it does nothing, for a while


def byte_by_byte(place: Place) -> Iterator[int]:
    """Requests that come a byte at a time, on many connections at once."""
    held = place.many(MANY)
    for at in itertools.cycle(range(len(ASK))):
        for number, sock in enumerate(held):
            try:
                sock.send(ASK[at : at + 1], socket.MSG_DONTWAIT)
                if at == len(ASK) - 1:
                    sock.recv(65_536)
            except OSError:
                held[number] = place.connect()
            yield 1


def unread(place: Place) -> Iterator[int]:
    """Subscribers that ask and ask and never read."""
    held = place.many(MANY)
    for sock in held:
        sock.send(FOLLOW)
    for number in itertools.cycle(range(MANY)):
        try:
            held[number].send(STATUS * 200, socket.MSG_DONTWAIT)
        except BlockingIOError:
            time.sleep(0.0001)  # real time: the agent has to drop it first
        except OSError:  # dropped, as it should be
            held[number].close()
            held[number] = place.connect()
        yield 1


def knock(place: Place) -> Iterator[int]:
    """Connect and leave."""
    while True:
        yield _visit(place, lambda sock: None)


def ask_and_leave(place: Place) -> Iterator[int]:
    """Connect, ask, and leave without the answer."""
    while True:
        yield _visit(place, lambda sock: sock.send(ASK))


def visit(place: Place) -> Iterator[int]:
    """Connect, ask, read, leave."""
    while True:
        yield _visit(place, lambda sock: (sock.send(ASK), sock.recv(65_536)))


def rubbish(place: Place) -> Iterator[int]:
    """Oversized, nested, absurd, and what is no JSON at all."""
    for data in itertools.cycle(RUBBISH):
        yield _visit(place, lambda sock, data=data: (sock.sendall(data), sock.recv(65_536)))  # type: ignore[misc]


def descriptors(place: Place) -> Iterator[int]:
    """Requests with descriptors, which are to be refused, or closed and not kept."""
    passed = array.array("i", [os.open(os.devnull, os.O_RDONLY) for _ in range(DESCRIPTORS)])
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)]

    def ask(sock: socket.socket) -> None:
        try:
            sock.sendmsg([ASK], rights)
        except PermissionError:  # a kernel that refuses for the agent
            sock.send(ASK)
        sock.recv(65_536)

    while True:
        yield _visit(place, ask)


def ahead(place: Place) -> Iterator[int]:
    """Requests sent ahead, as many as it takes, on one connection."""
    sock = place.connect()
    sock.setblocking(False)
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLOUT)
    while True:
        for _, events in poll.poll(100):
            if events & select.POLLIN:
                sock.recv(1 << 20)
            if events & select.POLLOUT:
                sock.send(ASK * 500)
        yield 1


def status(place: Place) -> Iterator[int]:
    """The status, without pause, on many connections."""
    socks = {sock.fileno(): sock for sock in place.many(MANY)}
    poll = select.epoll()
    for number, sock in socks.items():
        poll.register(number, select.EPOLLIN)
        sock.send(STATUS)
    while True:
        for number, _ in poll.poll(0.1):
            socks[number].recv(1 << 20)
            socks[number].send(STATUS)
            yield 1


def strangers(place: Place) -> Iterator[int]:
    """Thousands of uids that may not ask, each with half a request on a connection that it keeps. As root."""
    held: list[socket.socket] = []
    for uid in itertools.cycle(range(FIRST_UID, FIRST_UID + UIDS)):
        os.seteuid(uid)
        try:
            held.append(place.connect())
            held[-1].send(b'{"method"', socket.MSG_DONTWAIT)
        except OSError:
            pass
        finally:
            os.seteuid(0)
        if len(held) > 2 * UIDS:
            held.pop(0).close()
        yield 1


KINDS: dict[str, Callable[[Place], Iterator[int]]] = {
    kind.__name__: kind
    for kind in (
        *(silent, byte_by_byte, unread, knock, ask_and_leave, visit),
        *(rubbish, descriptors, ahead, status, strangers),
    )
}


def _visit(place: Place, act: Callable[[socket.socket], object]) -> int:
    """One connection; whether it came about."""
    try:
        with place.connect() as sock:
            sock.settimeout(PATIENCE)
            act(sock)
    except OSError:
        return 0
    return 1


def _told_to_end() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def _say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def main() -> None:
    """Attack until told to end."""
    path, kind, enough = sys.argv[1], sys.argv[2], int(sys.argv[3])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    done, said = 0, False
    for step, count in enumerate(KINDS[kind](Place(path))):
        if step == 0:
            _say("up")
        done += count
        if done >= enough and not said:
            said = True
            _say("enough")
        if step % CHECK == 0 and _told_to_end():
            break
    _say(done)


if __name__ == "__main__":
    main()
