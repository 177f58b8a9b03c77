"""The clients: one connection, one connection a question, and many at once; the same code for all peers."""

import select
import socket
import time
from dataclasses import dataclass
from statistics import quantiles
from typing import NamedTuple

TOKEN_REQUEST = b'{"method":"io.d7agent.GetToken"}\0'
SSH_LIST = b"\0\0\0\1\x0b"  # SSH_AGENTC_REQUEST_IDENTITIES
MOST = 65536  # bytes of a reply, which comes in one piece


@dataclass(frozen=True)
class Service:
    """Somebody who listens, the question to put to him, and his process."""

    path: str
    request: bytes
    pid: int

    def connect(self) -> socket.socket:
        """A connection of our own."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.path)
        return sock

    def prove(self, mark: bytes) -> bytes:
        """His answer, which has this mark in it. Raises RuntimeError."""
        with self.connect() as sock:
            sock.settimeout(30)
            sock.send(self.request)
            reply = sock.recv(MOST)
        if mark not in reply:
            raise RuntimeError(f"{self.path} answers {reply[:200]!r}")
        return reply


class Talk:
    """Round trips on a connection that stays open."""

    def __init__(self, service: Service) -> None:
        self._sock = service.connect()
        self._request = service.request

    def times(self, count: int) -> list[float]:
        """Seconds of each."""
        send, recv, request, clock = self._sock.send, self._sock.recv, self._request, time.perf_counter
        found = []
        for _ in range(count):
            began = clock()
            send(request)
            recv(MOST)
            found.append(clock() - began)
        return found

    def close(self) -> None:
        """Hang up."""
        self._sock.close()


def visits(service: Service, count: int) -> list[float]:
    """Seconds of each connect, ask, close."""
    clock, path, request = time.perf_counter, service.path, service.request
    found = []
    for _ in range(count):
        began = clock()
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        sock.send(request)
        sock.recv(MOST)
        sock.close()
        found.append(clock() - began)
    return found


def median_and_99th(times: list[float]) -> tuple[float, float]:
    """In microseconds."""
    cuts = quantiles(times, n=100)
    return cuts[49] * 1e6, cuts[98] * 1e6


class Load(NamedTuple):
    """What many clients got."""

    requests: int
    seconds: float
    cpu: float  # ours

    @property
    def a_second(self) -> float:
        """Requests."""
        return self.requests / self.seconds


def rate(service: Service, clients: int, seconds: float) -> Load:
    """So many clients, each of which asks again when it is answered."""
    epoll = select.epoll()
    socks = [service.connect() for _ in range(clients)]
    by_number = {sock.fileno(): sock for sock in socks}
    for sock in socks:
        epoll.register(sock.fileno(), select.EPOLLIN)
    answered, began, used = 0, time.perf_counter(), time.process_time()
    for sock in socks:
        sock.send(service.request)
    while time.perf_counter() - began < seconds:
        for number, _ in epoll.poll(1):
            sock = by_number[number]
            sock.recv(MOST)
            sock.send(service.request)
            answered += 1
    load = Load(answered, time.perf_counter() - began, time.process_time() - used)
    for sock in socks:
        sock.close()
    epoll.close()
    return load
