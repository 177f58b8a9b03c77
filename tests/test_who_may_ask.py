"""Who may ask, with real other users: refused, let in, refused again while connected; look-alikes and pests."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from d7agent.agent.callers import KNOWN_FOR, MOST_REFUSED
from d7agent.agent.seldom import MOST as MOST_LINES
from d7agent.client.blocking import fingerprint
from d7agent.sandbox import Sandbox, Settings
from tests.support import d7client
from tests.support.heir import Leaver, Visits, namesake
from tests.support.peer import SYSTEM_PYTHON, Peer, move_to_cgroup, remove_cgroups
from tests.support.system_agent import USERS, SystemAgent

SOCKET = "/run/d7agent/agent.sock"
DENIED = "org.varlink.service.PermissionDenied"
PEER_LOGINS = 3  # an hour that a uid which may only ask can cause

pytestmark = pytest.mark.system


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(Settings(lifetime=600)) as sandbox:
        yield sandbox


@pytest.fixture
def host(box: Sandbox) -> Iterator[SystemAgent]:
    """The host's agent with a token; nobody but root may ask."""
    with SystemAgent() as system:
        system.start()
        done = system.d7agent(
            *("login", "--stdin", "--base-url", box.url, "--store", "directory:/var/lib/d7agent/credential"),
            text="sandbox-id\nsandbox-secret\n",
        )
        assert done.returncode == 0, done.stderr
        yield system


def admit(host: SystemAgent, access: str) -> None:
    host.configure(f"[access]\n{access}\n")
    done = host.d7agent("reload")
    assert done.returncode == 0, done.stderr


def peer(host: SystemAgent, user: str) -> Peer:
    """A client of this user."""
    uid = str(USERS[user])
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"]
    return Peer(SOCKET, host._argv(become))


def test_access_comes_and_goes_while_connected(host: SystemAgent, box: Sandbox) -> None:
    """On one connection: refused, let in, and by the next reload out again, open streams included; others stay in."""
    with peer(host, "nagios") as nagios, peer(host, "nagios") as watching, peer(host, "zabbix") as zabbix:
        refused = nagios.call("GetToken")
        assert refused["error"] == DENIED
        assert "[access]" in refused["parameters"]["hint"]
        admit(host, 'users = ["nagios", "zabbix"]')
        token = nagios.call("GetToken")["parameters"]["token"]["access_token"]
        assert d7client.balance(box, token).status == 200
        assert watching.call("GetToken", more=True)["continues"]
        assert zabbix.call("GetStatus", more=True)["continues"]
        admit(host, 'users = ["zabbix"]')
        assert watching.next()["error"] == DENIED
        assert nagios.call("GetToken")["error"] == DENIED
        assert watching.call("GetToken")["error"] == DENIED
        assert zabbix.next()["continues"]
    assert box.stats.logins == 1


@pytest.mark.parametrize(
    "method", ["RenewToken", "StoreCredential", "ForgetCredential", "Lock", "Unlock", "Reload", "Shutdown", "Nonsense"]
)
def test_an_allowed_peer_may_only_ask(host: SystemAgent, method: str) -> None:
    """What is the owner's stays the owner's: refused to a peer that is let in, and nothing happens."""
    admit(host, 'users = ["nagios"]')
    with peer(host, "nagios") as nagios:
        given = {"profile": "default", "passphrase": "x", "client_id": "x", "client_secret": "x"}
        refused = nagios.call(method, given)
        assert refused["error"] == (DENIED if method != "Nonsense" else "org.varlink.service.MethodNotFound")
        assert "token" in nagios.call("GetToken")["parameters"]


def test_a_pest_cannot_bring_the_token_down(host: SystemAgent, box: Sandbox) -> None:
    """A peer that rejects and asks in a loop causes three logins at most; token and budget of the others stay good."""
    admit(host, 'users = ["nagios", "zabbix"]')
    with peer(host, "nagios") as pest, peer(host, "zabbix") as other:
        tokens = set()
        for _ in range(150):
            token = other.call("GetToken")["parameters"]["token"]
            tokens.add(token["access_token"])
            pest.call("RejectToken", {"fingerprint": fingerprint(token["access_token"]), "max_wait": 0})
            pest.call("RejectToken", {"fingerprint": "0" * 64, "max_wait": 0})
            pest.call("GetToken", {"min_validity": 599, "max_wait": 0})
            pest.call("GetToken", {"min_validity": 31_000_000, "max_wait": 0})
        last = other.call("GetToken")["parameters"]["token"]
        status = other.call("GetStatus")["parameters"]["profiles"][0]
    assert last["state"] == "fresh"
    assert d7client.balance(box, last["access_token"]).status == 200
    assert box.stats.logins <= 1 + PEER_LOGINS
    assert box.stats.balances <= 3  # the proofs: one a minute, and the one of this test
    assert status["budget_left"] >= 30 - 1 - PEER_LOGINS
    done = host.d7agent("login", "--stdin", text="sandbox-id\nsandbox-secret\n")
    assert done.returncode == 0, done.stderr


CGROUPS = Path("/sys/fs/cgroup/unified") if Path("/sys/fs/cgroup/unified").is_dir() else Path("/sys/fs/cgroup")


def test_a_unit_is_believed_below_system_slice_alone(host: SystemAgent) -> None:
    """A service of the same name below user.slice, or nested, is refused; the one that only root can make is served."""
    if not (CGROUPS / "cgroup.procs").exists():
        pytest.skip(f"NOT TESTED: units by cgroup; there is no cgroup2 at {CGROUPS}")
    unit = f"d7agent-test-{os.getpid()}.service"
    admit(host, f'units = ["{unit}"]')
    places = {
        f"system.slice/{unit}": True,
        f"user.slice/user-{USERS['nagios']}.slice/{unit}": False,
        f"user.slice/system.slice/{unit}": False,
        f"system.slice/other-{unit}/{unit}": False,
        f"system.slice/{unit}/payload": False,
        unit: False,
    }
    with ExitStack() as stack:
        stack.callback(remove_cgroups, *(CGROUPS / place for place in places))
        found = {}
        for place in places:
            with peer(host, "nagios") as nagios:
                move_to_cgroup(nagios.pid, CGROUPS / place)
                found[place] = "error" not in nagios.call("GetToken")
    assert found == places


@pytest.fixture
def unit(host: SystemAgent) -> Iterator[Path]:
    """The cgroup of a service in system.slice that may ask."""
    if not (CGROUPS / "cgroup.procs").exists():
        pytest.skip(f"NOT TESTED: units by cgroup; there is no cgroup2 at {CGROUPS}")
    place = CGROUPS / "system.slice" / f"d7agent-test-{os.getpid()}.service"
    place.mkdir(parents=True)
    admit(host, f'units = ["{place.name}"]')
    yield place
    remove_cgroups(place)


@contextmanager
def looking_away(host: SystemAgent) -> Iterator[None]:
    """While within, the agent looks at nothing: what happens now has happened before it checks a peer."""
    assert host._agent is not None
    host._agent.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        host._agent.send_signal(signal.SIGCONT)


def leaver(host: SystemAgent, user: str, place: Path | None = None) -> Leaver:
    return Leaver(SOCKET, host._argv([]), uid=USERS[user], place=place)


def test_who_is_gone_is_in_no_unit(host: SystemAgent, unit: Path) -> None:
    """A process of the unit that ended between connect and check cannot be proved to be one: refused, at no cost."""
    with peer(host, "nagios") as nagios:
        move_to_cgroup(nagios.pid, unit)
        assert "token" in nagios.call("GetToken")["parameters"]
        before = open_files(host)
        for _ in range(10):
            with looking_away(host):
                gone = leaver(host, "nagios", unit)
            assert gone.reply()["error"] == DENIED
        assert "token" in nagios.call("GetToken")["parameters"]
        assert open_files(host) <= before
    assert "Traceback" not in host.log.read_text()


def test_who_is_gone_is_still_of_his_uid(host: SystemAgent) -> None:
    """SO_PEERCRED is of the moment of connecting: a listed user's process that has ended is answered, another's not."""
    admit(host, 'users = ["nagios"]')
    for user, served in (("nagios", True), ("zabbix", False)):
        with looking_away(host):
            gone = leaver(host, user)
        assert ("error" not in gone.reply()) is served


def test_a_pid_used_again_proves_nothing(host: SystemAgent, unit: Path) -> None:
    """A stranger connects and ends; a process of the unit gets his pid: neither unit nor grant goes to the stranger."""
    with looking_away(host):
        gone = leaver(host, "nagios")
        with namesake(gone.pid, unit):
            # The agent wakes up to a pid that is in the unit by all that /proc says.
            assert host._agent is not None
            host._agent.send_signal(signal.SIGCONT)
            assert gone.reply()["error"] == DENIED
            callers = status(host)["callers"]
    (stranger,) = (caller for caller in callers if caller["uid"] == USERS["nagios"])
    assert (stranger["grants"], stranger["denied"]) == (0, 1)
    assert "unit" not in stranger
    assert "exe" not in stranger


def test_grants_of_a_pid_used_again_are_its_own(host: SystemAgent, unit: Path) -> None:
    """A process that comes again and again ends, and one of the unit gets its pid: each has its own line in status."""
    admit(host, 'users = ["nagios"]')
    visits = Visits(SOCKET, host._argv([]), USERS["nagios"], 5)
    former = visits.make()
    time.sleep(2 * KNOWN_FOR)  # real time: the kernel takes longer to come round to a pid again
    with namesake(former, unit, visits):
        callers = status(host)["callers"]
    found = {caller.get("unit"): caller["grants"] for caller in callers if caller["uid"] == USERS["nagios"]}
    assert found == {None: 5, unit.name: 5}


def test_nobody_may_ask_even_where_listed(host: SystemAgent) -> None:
    """Uid 65534 may be anybody: refused though the configuration names it, with what to do in the hint."""
    admit(host, 'users = ["65534"]')
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
    with Peer(SOCKET, host._argv(become)) as nobody:
        refused = nobody.call("GetToken")
    assert refused["error"] == DENIED
    assert "ask from outside it" in refused["parameters"]["hint"]


def test_a_group_lets_in_who_is_in_it(host: SystemAgent) -> None:
    """By a supplementary group as by the first one; a user of another group stays out."""
    gid = USERS["zabbix"]
    admit(host, 'groups = ["zabbix"]')
    uid = USERS["nagios"]
    plain = ["setpriv", f"--reuid={uid}", f"--regid={uid}"]
    found = {}
    for groups in ("--clear-groups", f"--groups={gid}"):
        with Peer(SOCKET, host._argv([*plain, groups])) as nagios:
            found[groups] = "error" not in nagios.call("GetToken")
    assert found == {"--clear-groups": False, f"--groups={gid}": True}


def test_refused_uids_push_nobody_out_of_status(host: SystemAgent) -> None:
    """Hundreds of uids that may not ask: whoever asked before is in status as he was, and the journal stays short."""
    admit(host, 'users = ["nagios"]')
    with peer(host, "nagios") as nagios:
        assert "token" in nagios.call("GetToken")["parameters"]
        done = host.run(SYSTEM_PYTHON, "-I", "-c", CROWD, SOCKET, str(CROWD_SIZE))
        assert done.stdout == f"{CROWD_SIZE} refused\n", done.stderr
        assert "token" in nagios.call("GetToken")["parameters"]
    callers = status(host)["callers"]
    assert [caller["grants"] for caller in callers if caller["uid"] == USERS["nagios"]] == [2]
    assert len(callers) <= MOST_REFUSED + 2  # nagios and root
    assert host.log.read_text().count("denied: ") <= MOST_LINES


CROWD_SIZE = 400
CROWD = r"""
import os, socket, sys
refused = 0
for uid in range(200_000, 200_000 + int(sys.argv[2])):
    os.seteuid(uid)  # what SO_PEERCRED tells
    with socket.socket(socket.AF_UNIX) as agent:
        agent.settimeout(10)
        agent.connect(sys.argv[1])
        agent.sendall(b'{"method":"io.d7agent.GetToken"}\0')
        refused += b"PermissionDenied" in agent.recv(65536)
    os.seteuid(0)
print(refused, "refused")
"""


def open_files(host: SystemAgent) -> int:
    """How many descriptors the agent has."""
    assert host._agent is not None
    return len(os.listdir(f"/proc/{host._agent.pid}/fd"))


def status(host: SystemAgent) -> dict[str, Any]:
    """The agent's status as root sees it."""
    done = host.d7agent("status", "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["agent"])
