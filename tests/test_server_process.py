"""The server in a process of its own: where secrets are not, and what it does when it runs out of descriptors."""

import hashlib
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.wire import BOTH_LOOPS

pytestmark = BOTH_LOOPS

ROOT = Path(__file__).parent.parent
SECRET = hashlib.sha256(os.urandom(16)).hexdigest().encode()
START, END = b'{"method":"io.d7agent.StoreCredential","parameters":{"profile":"default","client_secret":"', b'"}}\0'
CALL = START + SECRET + END


@contextmanager
def serving(loop: str, *extra: str, files: int | None = None) -> Iterator[tuple[int, str]]:
    """A server process; its pid and socket."""

    def limit() -> None:
        if files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    with tempfile.TemporaryDirectory(prefix="d7") as folder:
        path = f"{folder}/s"
        command = [sys.executable, "-m", "tests.support.wire_server", loop, path, *extra]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, preexec_fn=limit) as process:  # noqa: PLW1509
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                yield process.pid, path
            finally:
                process.kill()


def connect(path: str) -> socket.socket:
    """A client with a time limit."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(path)
    return sock


def hits(pid: int, needle: bytes) -> int:
    """How often the needle lies in the readable memory of a process."""
    found = 0
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            span, rights, *_ = line.split()
            if "r" not in rights or "[v" in line:
                continue
            start, end = (int(number, 16) for number in span.split("-"))
            with suppress(OSError):
                memory.seek(start)
                found += memory.read(end - start).count(needle)
    return found


def ask(sock: socket.socket, *parts: bytes) -> None:
    """Send a request in pieces, each read by the server before the next; wait for the reply."""
    for part in parts[:-1]:
        sock.sendall(part)
        drained(sock)
    sock.sendall(parts[-1])
    while not sock.recv(65536).endswith(b"\0"):
        pass


def drained(sock: socket.socket) -> None:
    """Wait until the peer has read all that was sent (SIOCOUTQ says 0)."""
    import fcntl
    import termios

    left = bytearray(4)
    deadline = time.monotonic() + 10
    while fcntl.ioctl(sock, termios.TIOCOUTQ, left) or int.from_bytes(left, sys.byteorder):
        assert time.monotonic() < deadline


def at_once(path: str) -> None:
    """The secret in one piece."""
    with connect(path) as sock:
        ask(sock, CALL)


def in_pieces(path: str) -> None:
    """The secret cut in two, three, and behind 3,000 and 20,000 bytes, so that the unfinished request moves."""
    with connect(path) as sock:
        ask(sock, CALL[:100], CALL[100:])
        ask(sock, CALL[:10], CALL[10:-2], CALL[-2:])
        for size in (3_000, 20_000):
            long = START[:-1] + SECRET + b'","pad":"' + b"x" * size + b'"}}\0'
            long = long.replace(b'"client_secret":' + SECRET, b'"client_secret":"' + SECRET)
            ask(sock, long[:200], long[200:2_500], long[2_500:10_000], long[10_000:])


def pipelined(path: str) -> None:
    """The secret behind an open call, and behind 100 other requests."""
    with connect(path) as sock, connect(path) as other:
        sock.sendall(b'{"method":"io.d7agent.StoreCredential","parameters":{"hold":true}}\0' + CALL)
        drained(sock)
        ask(other, b'{"method":"io.d7agent.Reload"}\0')
        replies = b""
        while replies.count(b"\0") < 2:
            replies += sock.recv(65536)
        sock.sendall(b'{"method":"io.d7agent.GetToken"}\0' * 100 + CALL)
        while replies.count(b"\0") < 103:
            replies += sock.recv(65536)


def broken_off(path: str) -> None:
    """A client that leaves in the middle of the secret, and one whose message turns out to be rubbish."""
    with connect(path) as sock:
        sock.sendall(CALL[:-3])
        drained(sock)
    with connect(path) as sock:
        sock.sendall(CALL[:-3] + b",\0")
        assert sock.recv(1) == b""


@pytest.mark.parametrize("way", [at_once, in_pieces, pipelined, broken_off], ids=lambda way: way.__name__)
def test_no_secret_stays_in_memory(loop: str, way: Callable[[str], None]) -> None:
    """However a request with a secret comes in, no byte of the secret is left in the server's memory afterwards."""
    with serving(loop) as (pid, path):
        for _ in range(5):
            way(path)
        with connect(path) as sock:  # an answer to somebody else: the server has finished its turn with us
            ask(sock, b'{"method":"org.varlink.service.GetInfo"}\0')
        assert hits(pid, SECRET[:24]) + hits(pid, SECRET[-24:]) == 0


def test_the_scan_would_find_one(loop: str) -> None:
    """The same scan finds the copy that a careless handler keeps."""
    with serving(loop, "careless") as (pid, path):
        at_once(path)
        assert hits(pid, SECRET) > 0


def test_running_out_of_descriptors_passes(loop: str) -> None:
    """Without a free descriptor the server neither spins nor gives up: it serves again once there is one."""
    with serving(loop, files=40) as (pid, path):
        crowd = [connect(path) for _ in range(60)]
        spent = cpu_seconds(pid)
        started = time.monotonic()
        for sock in crowd:
            sock.close()
        answer = b""
        while not answer:
            assert time.monotonic() - started < 10
            with suppress(OSError), connect(path) as sock:
                sock.sendall(b'{"method":"io.d7agent.GetStatus"}\0')
                answer = sock.recv(4096)
        assert cpu_seconds(pid) - spent < 0.5


def cpu_seconds(pid: int) -> float:
    """Processor time the process has used (proc(5), stat, fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
