"""Many clients in one process: crowd.py SOCKET PROFILE COUNT ask|follow.

All connect and ask; `follow` then waits for one more reply each. A line of JSON tells each thing that has happened.
Instants are those of the machine's monotonic clock.
"""

import json
import resource
import select
import socket
import struct
import sys
import time

REQUEST = '{"method":"io.d7agent.GetToken","parameters":{"profile":"%s","max_wait":60},"more":%s}\0'
LIMIT = 90.0  # seconds for each of the two


def tell(**what: float) -> None:
    """One line."""
    print(json.dumps(what), flush=True)


class Crowd:
    """The clients, by descriptor."""

    def __init__(self, path: str, count: int, request: bytes) -> None:
        self.epoll = select.epoll()
        self.errors = 0
        self.socks: dict[int, socket.socket] = {}
        self.halves: dict[int, bytes] = {}
        for _ in range(count):
            sock = socket.socket(socket.AF_UNIX)
            # The kernel's limit: a connect with Python's is turned away while the backlog is full.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(LIMIT), 0))
            try:
                sock.connect(path)
                sock.send(request)
            except OSError:
                self.errors += 1
                continue
            self.socks[sock.fileno()] = sock
            self.epoll.register(sock.fileno(), select.EPOLLIN)

    def wait(self) -> dict[str, float]:
        """One reply for each; the instants of the first and of the last."""
        first = last = 0.0
        due, deadline = set(self.socks), time.monotonic() + LIMIT
        while due and time.monotonic() < deadline:
            for number, _ in self.epoll.poll(1):
                data = self.socks[number].recv(65536)
                reply = self.halves.pop(number, b"") + data
                if data and not reply.endswith(b"\0"):
                    self.halves[number] = reply
                    continue
                last = time.monotonic()
                first = first or last
                due.discard(number)
                if b'"access_token"' not in reply:
                    self.errors += 1
                    if not data:
                        self.epoll.unregister(number)
        if not self.socks:
            return {"errors": self.errors}
        return {"first": first, "last": last, "errors": self.errors + len(due)}


def main() -> None:
    """Connect, then a reply, and if asked for another."""
    path, profile, count, what = sys.argv[1:]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    more = "true" if what == "follow" else "false"
    crowd = Crowd(path, int(count), (REQUEST % (profile, more)).encode())
    tell(connected=time.monotonic())
    tell(**crowd.wait())
    if what == "follow":
        tell(**crowd.wait())
    sys.stdin.read()  # they hang up when told, all at once


main()
