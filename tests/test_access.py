"""Who may ask: the policy as a table, and what the kernel says about real peers."""

import logging
import os
import pwd
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import Struct

from d7agent.agent import peers, seldom
from d7agent.agent.access import OVERFLOW_UID, Allowed, Denials, Policy, resolve
from d7agent.agent.peers import (
    SO_PEERGROUPS,
    SO_PEERPIDFD,
    Peer,
    Process,
    credentials,
    has_hung_up,
    local_name,
    pidfd_supported,
)
from d7agent.core.config import Access
from d7agent.core.errors import PermissionDenied
from tests.support.wire import HandClock

OWNER, GUEST, GROUP = 1000, 1001, 50


class Somebody(Struct, frozen=True):
    """A peer as the policy sees it."""

    uid: int
    groups: frozenset[int] = frozenset()
    process: Process = Process()


def in_unit(path: str, *, proved: bool = True) -> Process:
    """A process in a cgroup."""
    return Process(cgroup=path, exe="/bin/true", proved=proved)


LISTED = Allowed(uids=frozenset({GUEST}), gids=frozenset({GROUP}), units=frozenset({"backup.service"}))
SYSTEM = Policy(990, system=True, allowed=LISTED)
USER = Policy(OWNER, system=False, allowed=LISTED)
BACKUP = in_unit("/system.slice/backup.service")


@pytest.mark.parametrize(
    ("peer", "system", "user"),
    [
        (Somebody(0), True, True),
        (Somebody(990), True, False),
        (Somebody(OWNER), False, True),
        (Somebody(GUEST), True, False),
        (Somebody(1002), False, False),
        (Somebody(1002, groups=frozenset({1002, GROUP})), True, False),
        (Somebody(1002, groups=frozenset({1002})), False, False),
        (Somebody(1002, process=BACKUP), True, False),
        (Somebody(1002, process=in_unit("/system.slice/backup.service", proved=False)), False, False),
        (Somebody(1002, process=in_unit("/system.slice/backup.service/sub")), False, False),
        (Somebody(1002, process=in_unit("/system.slice/x.slice/backup.service")), False, False),
        (Somebody(1002, process=in_unit("/system.slice/other.service")), False, False),
        (Somebody(1002, process=in_unit("/system.slice/")), False, False),
        (Somebody(1002, process=in_unit("/user.slice/user-1002.slice/backup.service")), False, False),
        (
            Somebody(1002, process=in_unit("/user.slice/user-1002.slice/system.slice/backup.service")),
            False,
            False,
        ),
        (Somebody(1002, process=in_unit("/../system.slice/backup.service")), False, False),
        (Somebody(OVERFLOW_UID), False, False),
        (Somebody(OVERFLOW_UID, groups=frozenset({GROUP}), process=BACKUP), False, False),
    ],
)
def test_who_is_admitted(peer: Somebody, system: bool, user: bool) -> None:
    """Owner and root always; on the system agent the listed users, groups and units; nobody else."""
    assert (SYSTEM.admit(peer) is None) is system
    assert (USER.admit(peer) is None) is user


@pytest.mark.parametrize("policy", [SYSTEM, USER])
def test_nobody_never(policy: Policy) -> None:
    """The overflow uid is refused even where it is listed or the owner, for it may be anybody."""
    listed = Policy(OVERFLOW_UID, system=True, allowed=Allowed(uids=frozenset({OVERFLOW_UID})))
    assert listed.admit(Somebody(OVERFLOW_UID)) is not None
    assert not listed.trusts(OVERFLOW_UID)
    assert policy.admit(Somebody(OVERFLOW_UID)) is not None


@pytest.mark.parametrize(
    ("method", "guest"),
    [
        ("io.d7agent.GetToken", True),
        ("io.d7agent.RejectToken", True),
        ("io.d7agent.GetStatus", True),
        ("org.varlink.service.GetInfo", True),
        ("io.d7agent.RenewToken", False),
        ("io.d7agent.StoreCredential", False),
        ("io.d7agent.ForgetCredential", False),
        ("io.d7agent.Lock", False),
        ("io.d7agent.Unlock", False),
        ("io.d7agent.Reload", False),
        ("io.d7agent.Shutdown", False),
        ("io.d7agent.WhateverComesNext", False),
    ],
)
def test_what_guests_may_call(method: str, guest: bool) -> None:
    """Admitted peers may ask; all else is for owner and root, methods yet to come included."""
    assert (SYSTEM.may_call(Somebody(GUEST), method) is None) is guest
    assert SYSTEM.may_call(Somebody(990), method) is None
    assert SYSTEM.may_call(Somebody(0), method) is None


def test_a_guests_process_is_not_looked_at_in_vain() -> None:
    """Without units in the policy, or with the uid listed, /proc is not read."""

    class Shy:
        uid, groups = GUEST, frozenset[int]()

        @property
        def process(self) -> Process:
            raise AssertionError("looked")

    assert SYSTEM.admit(Shy()) is None
    assert Policy(990, system=True, allowed=Allowed(gids=frozenset({1}))).admit(Shy()) is not None


def refusal(policy: Policy, peer: Somebody) -> PermissionDenied:
    """The refusal, which there must be."""
    error = policy.admit(peer)
    assert error is not None
    return error


def test_refusals_say_what_to_do() -> None:
    """The hint names the [access] entry to add, on a user agent whose agent to use instead."""
    unknown = refusal(SYSTEM, Somebody(4_000_000))
    assert "uid 4000000" in unknown.message
    assert "[access]" in unknown.hint
    assert "id -nu 4000000" in unknown.hint
    daemon = refusal(SYSTEM, Somebody(pwd.getpwnam("daemon").pw_uid))
    assert "(daemon)" in daemon.message
    assert 'users = ["daemon"]' in daemon.hint
    assert "system agent" in refusal(USER, Somebody(GUEST)).hint
    assert "user namespace" in refusal(SYSTEM, Somebody(OVERFLOW_UID)).hint
    denied = SYSTEM.may_call(Somebody(GUEST), "io.d7agent.Lock")
    assert denied is not None
    assert denied.message.startswith("Lock is for the agent's owner and root")
    assert denied.hint


def test_names_are_resolved() -> None:
    """Users and groups become numbers; digits stand for themselves; units pass."""
    access = Access(users=("root", "daemon", "123456"), groups=("root", "654321"), units=("a.service", "b@1.service"))
    allowed, problems = resolve(access)
    assert problems == ()
    assert allowed.uids == {0, pwd.getpwnam("daemon").pw_uid, 123456}
    assert allowed.gids == {0, 654321}
    assert allowed.units == {"a.service", "b@1.service"}


def test_unknown_names_are_problems() -> None:
    """A name that nobody bears, and a unit that is no service, are told with their keys; the rest still holds."""
    allowed, problems = resolve(Access(users=("no-such-user", "root"), groups=("no-such",), units=("a", "x/b.service")))
    assert allowed.uids == {0}
    assert [problem.partition(":")[0] for problem in problems] == [
        "access.users",
        "access.groups",
        "access.units",
        "access.units",
    ]


def test_denials_are_counted_and_logged_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    """Each refusal counts; one uid is logged once a minute at most, others are logged all the same."""
    clock = HandClock()
    denials = Denials(clock)
    error = PermissionDenied("uid 7 may not", "ask")
    for _ in range(5):
        denials.note(7, error)
    assert len(caplog.records) == 1
    denials.note(8, error)
    assert len(caplog.records) == 2
    clock.seconds += 59
    denials.note(7, error)
    assert len(caplog.records) == 2
    clock.seconds += 1
    denials.note(7, error)
    assert len(caplog.records) == 3
    assert "7 so far" in caplog.records[-1].getMessage()
    assert caplog.records[-1].levelno == logging.WARNING
    assert denials.count(7) == 7
    assert denials.counts == {8: 1, 7: 7}


def test_denials_of_ever_new_uids_take_no_more_room(caplog: pytest.LogCaptureFixture) -> None:
    """Subordinate uids are many: the latest thousand are counted, and all together write so many lines a minute."""
    clock = HandClock()
    denials = Denials(clock)
    for uid in range(100_000, 103_000):
        denials.note(uid, PermissionDenied("no"))
    assert len(denials.counts) == 1_024
    assert denials.count(102_999) == 1
    assert denials.count(100_000) == 0
    assert len(caplog.records) == len(denials._lines._told) == seldom.MOST
    clock.seconds += seldom.EVERY
    denials.note(103_000, PermissionDenied("no"))
    assert len(caplog.records) == seldom.MOST + 1
    assert len(denials._lines._told) == 1


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("/system.slice/cron.service", "cron.service"),
        ("/user.slice/user-1.slice/user@1.service/app.slice/a.service", "user/a.service"),
        ("/user.slice/user-1.slice/session-2.scope", None),
        ("/", None),
        (None, None),
    ],
)
def test_callers_are_named_by_unit(cgroup: str | None, unit: str | None) -> None:
    """A system unit shows by its name, another service so that it cannot be taken for one."""
    assert Process(cgroup=cgroup, proved=True).unit == unit


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets of this process."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_the_kernel_names_this_process(pair: tuple[socket.socket, socket.socket]) -> None:
    """Credentials, groups, executable and cgroup of a peer that is this process."""
    peer = Peer(*credentials(pair[0]), pair[0])
    assert (peer.uid, peer.gid, peer.pid) == (os.getuid(), os.getgid(), os.getpid())
    assert peer.groups == {os.getgid(), *os.getgroups()}
    assert peer.process.proved is pidfd_supported()
    assert peer.process.exe == os.readlink("/proc/self/exe")
    with open("/proc/self/cgroup", encoding="utf-8") as lines:
        assert f"0::{peer.process.cgroup}\n" in lines.read()
    assert repr(peer) == f"Peer(uid={peer.uid}, gid={peer.gid}, pid={peer.pid})"


def test_looking_at_a_peer_leaves_no_descriptor(pair: tuple[socket.socket, socket.socket]) -> None:
    """The pidfd that proves the process is closed again."""
    before = set(os.listdir("/proc/self/fd"))
    peer = Peer(*credentials(pair[0]), pair[0])
    assert peer.process.exe
    assert set(os.listdir("/proc/self/fd")) == before


def leaver() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """A connection of which the other end is held by another process."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0d7agent-test-{os.getpid()}-{os.urandom(4).hex()}")
    listener.listen()
    program = (
        "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect('\\0' + sys.argv[1])\nsys.stdin.read()\n"
    )
    name = listener.getsockname()[1:].decode()
    process = subprocess.Popen([sys.executable, "-I", "-c", program, name], stdin=subprocess.PIPE)
    with listener:
        connection, _ = listener.accept()
    return connection, process


def test_a_peer_that_has_left_is_nobody() -> None:
    """Of a process that ended between connect and check, nothing is believed: no unit, no executable."""
    connection, process = leaver()
    with connection, process:
        peer = Peer(*credentials(connection), connection)
        assert peer.pid == process.pid
        process.kill()
        process.wait()
        assert peer.process == Process()
        assert Policy(990, system=True, allowed=LISTED).admit(Somebody(1002, process=peer.process)) is not None


def test_a_stopped_peer_is_still_itself() -> None:
    """A process that is alive but stopped is known by its own executable."""
    connection, process = leaver()
    with connection, process:
        process.send_signal(signal.SIGSTOP)
        peer = Peer(*credentials(connection), connection)
        assert peer.process.exe == os.path.realpath(sys.executable)
        process.kill()


def test_a_pid_used_again_is_not_believed() -> None:
    """A pid that now belongs to another process: the peer's pidfd says that the peer is dead."""
    connection, process = leaver()
    with connection, process:
        process.kill()
        process.wait()
        uid, gid, _ = credentials(connection)
        found = Peer(uid, gid, os.getpid(), connection).process
        assert not found.proved
        assert found.exe is None or not pidfd_supported()


class OldKernel:
    """A socket of a kernel without SO_PEERPIDFD, whose peer is this process."""

    def fileno(self) -> int:
        return -1

    def getsockopt(self, level: int, optname: int, buflen: int = 0, /) -> Any:
        if optname == SO_PEERPIDFD:
            raise OSError(92, "Protocol not available")
        assert optname == SO_PEERGROUPS
        raise OSError(34, "Numerical result out of range")


def test_an_old_kernel_shows_but_proves_nothing() -> None:
    """Without SO_PEERPIDFD the executable is shown, but no unit is ever believed; unreadable groups are none."""
    peer = Peer(1, 2, os.getpid(), OldKernel())
    assert peer.process.exe == os.readlink("/proc/self/exe")
    assert not peer.process.proved
    assert peer.process.system_unit is None
    assert peer.groups == {2}


@pytest.mark.parametrize("pid", [0, -1])
def test_an_invisible_peer_is_nobody(pid: int) -> None:
    """A peer of a pid namespace that cannot be seen from here has no process; one without a socket no groups."""
    peer = Peer(1, 2, pid)
    assert peer.process == Process()
    assert peer.groups == {2}
    assert Peer(1, 2, os.getpid()).process == Process()


def test_hanging_up_is_more_than_to_stop_sending(pair: tuple[socket.socket, socket.socket]) -> None:
    """A shut sending side is not a closed socket."""
    ours, theirs = pair
    assert not has_hung_up(ours.fileno())
    theirs.shutdown(socket.SHUT_WR)
    assert not has_hung_up(ours.fileno())
    theirs.close()
    assert has_hung_up(ours.fileno())
    assert has_hung_up(-1)


def test_names_come_from_the_file() -> None:
    """Names of local users are found without NSS; unknown numbers have none."""
    assert local_name(0) == "root"
    assert local_name(4_000_000) is None


def test_numbers_are_the_kernels() -> None:
    """The two socket options that Python does not name are what this kernel calls them."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        groups = ours.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 1024)
        assert len(groups) == 4 * len(os.getgroups())
        assert peers.MOST_GROUPS * 4 == 1024
