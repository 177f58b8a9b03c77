"""What an attack on the whole agent found once, and finds no more."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from d7agent.sandbox import Sandbox, Settings
from tests.support.live import Live


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(Settings(lifetime=600)) as sandbox:
        yield sandbox


@pytest.fixture
def live(box: Sandbox) -> Iterator[Live]:
    with Live() as home:
        (home.root / "cred").mkdir(mode=0o700)
        home.start()
        yield home


def connect(live: Live) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(str(live.socket))
    return sock


def reply(sock: socket.socket) -> dict[str, Any]:
    data = b""
    while not data.endswith(b"\0"):
        piece = sock.recv(65536)
        assert piece, "the connection was closed"
        data += piece
    return dict(json.loads(data[:-1]))


@pytest.mark.parametrize("rubbish", [b"rubbish", b',"more":3}', b',"upgrade":true,"parameters":[]}'])
def test_rubbish_of_one_peer_does_not_reach_the_call_of_another(live: Live, box: Sandbox, rubbish: bytes) -> None:
    """Bytes that never became a call are nobody else's: the next peer gets its token, however it spells its request."""
    live.login(box.url, "--store", f"directory:{live.root}/cred")
    with connect(live) as attacker, connect(live) as honest:
        attacker.sendall(b'{"method":"io.d7agent.GetToken"' + rubbish + b"\0")
        attacker.recv(65536)
        honest.sendall(b'{ "method": "io.d7agent.GetToken" }\0')
        assert reply(honest)["parameters"]["token"]["profile"] == "default"


def test_wrong_logins_spend_the_budget_of_a_name_that_is_new(live: Live, box: Sandbox) -> None:
    """A loop of failing logins for a profile that does not exist yet ends at the budget (exit 6), not at D7."""
    line = ("login", "new", "--stdin", "--base-url", box.url, "--store", f"directory:{live.root}/cred")
    statuses = [live.run(*line, text="sandbox-id\nwrong\n").returncode for _ in range(23)]
    assert set(statuses[:15]) == {5}
    assert statuses[-1] == 6
    assert box.stats.logins < 23


def test_ever_new_names_spend_one_budget(live: Live, box: Sandbox) -> None:
    """A loop of logins over new names ends at the budget that they share (exit 6), over a restart as well."""
    live.kill()
    live.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    (live.state / "_new.state").write_text(json.dumps({"level": 3.0, "wall": time.time()}))
    live.start()

    def login(name: str) -> int:
        where = ("--base-url", box.url, "--store", f"directory:{live.root}/cred-{name}")
        return live.run("login", name, "--stdin", *where, text="sandbox-id\nwrong\n").returncode

    statuses = [login("a"), login("b")]
    live.kill()
    live.start()
    statuses += [login(name) for name in "cde"]
    assert statuses == [5, 5, 5, 6, 6]
    assert box.stats.logins == 3


def test_status_does_not_show_what_a_command_is_given(live: Live) -> None:
    """The words behind a `command:` store's program may be secrets; nobody is shown them."""
    (live.config / "profiles").mkdir(parents=True)
    (live.config / "profiles" / "default.toml").write_text('store = "command:/bin/false --token s3cret"\n')
    live.run("reload", check=True)
    assert live.status()["profiles"][0]["store"] == "command:/bin/false …"


def test_a_caller_whose_path_is_not_utf8_breaks_no_status(live: Live, box: Sandbox) -> None:
    """An executable of any name may ask, and `status` still answers."""
    live.login(box.url, "--store", f"directory:{live.root}/cred")
    python = live.root / os.fsdecode(b"caf\xe9")
    shutil.copy(os.path.realpath(sys.executable), python)
    ask = "import socket,sys;s=socket.socket(1);s.connect(sys.argv[1]);s.send(sys.argv[2].encode()+bytes(1));s.recv(99)"
    call = '{"method":"io.d7agent.GetToken","parameters":{"max_wait":0}}'
    libraries = {"LD_LIBRARY_PATH": f"{sys.base_prefix}/lib", "PYTHONHOME": sys.base_prefix}
    subprocess.run([python, "-c", ask, str(live.socket), call], env=libraries, check=True)
    callers = live.status()["agent"]["callers"]
    assert any(str(caller.get("exe")).endswith("caf\\xe9") for caller in callers)
