"""Processes that are not what their pid says: a client whose process is gone, and another process with its pid.

The client asks, hands its connection on to a child and ends; whoever looks at its pid later finds nobody, or whoever
has the pid by then.
"""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from tests.support.peer import SYSTEM_PYTHON

LEAVER: Final = r"""
import os, socket, sys
if sys.argv[2]:
    open(sys.argv[2], "w").write("0")
if sys.argv[3]:
    uid = int(sys.argv[3])
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
agent = socket.socket(socket.AF_UNIX)
agent.connect(sys.argv[1])
agent.sendall(b'{"method":"io.d7agent.GetToken"}\0')
if os.fork():
    os._exit(0)
reply = b""
while not reply.endswith(b"\0"):
    piece = agent.recv(65536)
    if not piece:
        break
    reply += piece
os.write(1, reply)
"""
VISITOR: Final = r"""
import os, socket
def visit(path, procs, uid, times):
    if procs:
        open(procs, "w").write("0")
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    for _ in range(times):
        with socket.socket(socket.AF_UNIX) as agent:
            agent.connect(path)
            agent.sendall(b'{"method":"io.d7agent.GetToken"}\0')
            while not agent.recv(65536).endswith(b"\0"):
                pass
    os.write(1, b"%d\n" % os.getpid())
"""
# clone3(2) with `set_tid`: exactly this pid, or EEXIST. Its number is the same on every architecture.
NAMESAKE: Final = r"""
import ctypes, os, sys
pid = (ctypes.c_int * 1)(int(sys.argv[1]))
fields = dict(flags=0, pidfd=0, child_tid=0, parent_tid=0, exit_signal=17, stack=0, stack_size=0, tls=0)
values = [*fields.values(), ctypes.addressof(pid), 1]
arguments = (ctypes.c_uint64 * len(values))(*values)
syscall = ctypes.CDLL(None, use_errno=True).syscall
child = syscall(435, ctypes.byref(arguments), ctypes.sizeof(arguments))
if child < 0:
    sys.exit(os.strerror(ctypes.get_errno()))
if child == 0:
    visit(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    sys.stdin.read()
    os._exit(0)
os.waitpid(child, 0)
"""


class Leaver:
    """A process of `uid` in the cgroup `place` (where given) that has asked and is gone when the constructor returns.

    `enter` is what comes before the Python: how the agent's mount namespace is entered.
    """

    def __init__(self, path: str, enter: Sequence[str], *, uid: int | None = None, place: Path | None = None) -> None:
        procs = str(place / "cgroup.procs") if place else ""
        argv = [*enter, SYSTEM_PYTHON, "-I", "-c", LEAVER, path, procs, str(uid or "")]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd="/")
        self.pid = self._process.pid
        assert self._process.wait(10) == 0  # reaped: the pid is free

    def reply(self) -> dict[str, Any]:
        """What the agent answered to its child; {} when it hung up."""
        assert self._process.stdout is not None
        with self._process.stdout as replies:
            return dict(msgspec.json.decode(replies.read()[:-1] or b"{}"))


@contextmanager
def namesake(pid: int, place: Path, visits: "Visits | None" = None) -> Iterator[None]:
    """While within, a process with exactly this pid in this cgroup: root's, or one that has made these visits."""
    made = visits or Visits("", (), 0, 0)
    argv = [*made.enter, SYSTEM_PYTHON, "-I", "-c", VISITOR + NAMESAKE, str(pid), *made.words(place)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = process.stdout.readline()
        assert said == f"{pid}\n", f"no process of pid {pid}: {process.stderr.read()}"
        yield


class Visits(NamedTuple):
    """So many connections to `path` by one process of `uid`, with one call for a token each."""

    path: str
    enter: Sequence[str]
    uid: int
    times: int

    def words(self, place: Path | None) -> list[str]:
        """The arguments of `visit`."""
        return [self.path, str(place / "cgroup.procs") if place else "", str(self.uid), str(self.times)]

    def make(self) -> int:
        """Make them, by a process in no unit; its pid, which is free again."""
        program = f"{VISITOR}\nimport sys\nvisit(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))"
        argv = [*self.enter, SYSTEM_PYTHON, "-I", "-c", program, *self.words(None)]
        return int(subprocess.run(argv, stdout=subprocess.PIPE, check=True, cwd="/", timeout=30).stdout)
