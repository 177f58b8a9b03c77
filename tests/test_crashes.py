"""Crashes that are forced, and processes that are looked into: no secret comes out either way."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from d7agent.sandbox import DEFAULT_SECRET, Sandbox
from tests.support import tracer
from tests.support.another_user import UID, as_another
from tests.support.live import COMMAND, Live
from tests.support.scene import Scene, failed_once, is_fresh
from tests.support.staging import OwnPython, Staged

MARK = "s3cret-in-an-exception"
CRASH = """
MARK = {mark!r}

def crash(*arguments, **named):
    secret = arguments, named
    raise RuntimeError(MARK, secret)

async def crash_later(*arguments, **named):
    crash(*arguments, **named)

{patch}
from d7agent.__main__ import main
main()
"""
IN_THE_AGENT = {
    "in a call": "from d7agent.agent import service; service._METHODS['GetToken'] = crash",
    "in a check": "from d7agent.agent import service; service.Service.admit = crash",
    "in a job": "from d7agent.agent import helpers; helpers.Helpers._reply = crash_later",
    "in a reply": "from d7agent.agent import replies; replies._encoded = crash",
    "in a change": "from d7agent.agent import credentials; credentials.store = crash_later",
    "at the start": "from d7agent.core import lifecycle; lifecycle.step = crash",
}


@pytest.mark.parametrize("place", IN_THE_AGENT)
def test_crash_in_the_agent(place: str) -> None:
    """An exception that nobody foresaw, anywhere: no text of it, no traceback and no value reach journal or caller.

    Whoever asked is told of a failure, or the connection is closed; nobody is left waiting.
    """
    program = CRASH.format(mark=MARK, patch=IN_THE_AGENT[place])
    with Staged(command=[sys.executable, "-P", "-c", program]) as live, Sandbox() as box:
        (live.root / "cred").mkdir(mode=0o700)
        live.start(ready=place != "at the start", D7AGENT_DEBUG="1")
        said = asked(live, box) if place != "at the start" else []
        if not said:
            assert live.process is not None
            assert live.process.wait(20) == 1
        text = "".join(done.stdout + done.stderr for done in said) + live.journal()
        assert "RuntimeError" in text, "nothing crashed"
        assert [hidden for hidden in (MARK, DEFAULT_SECRET, "Traceback") if hidden in text] == [], text


def asked(live: Live, box: Sandbox) -> "list[subprocess.CompletedProcess[str]]":
    """What clients are told, one of whom at least meets the crash."""
    store = ("--base-url", box.url, "--store", f"directory:{live.root}/cred")
    said = [live.run("login", "--stdin", *store, text=f"sandbox-id\n{DEFAULT_SECRET}\n")]
    said += [live.run("token", "--no-start", "--max-wait", "0"), live.run("status")]
    assert any(done.returncode for done in said)
    return said


IN_THE_HELPER = {
    "at D7's answer": "from d7agent.helper import issuer; issuer.sort_login = crash",
    "at the login": "from d7agent.helper import runner; runner.granted = crash",
    "at the door": "from d7agent.helper import door; door.perform = crash",
    "in a thread": "from d7agent.helper import http; http._answer = crash",
}
HELPER = CRASH.replace("from d7agent.__main__ import main", "from d7agent.helper.door import main")


@pytest.mark.parametrize("place", IN_THE_HELPER)
def test_crash_in_the_helper(place: str, tmp_path: Path) -> None:
    """The same in a helper, where the client secret is at hand: the caller hears of a failure, and nobody of values."""
    python = OwnPython(tmp_path / "double")
    with Staged(command=python.command) as live, Sandbox() as box:
        live.start()
        scene = Scene(live)
        program = tmp_path / "program.py"
        program.write_text(HELPER.format(mark=MARK, patch=IN_THE_HELPER[place]))
        python.wrap(f"exec {sys.executable} -P {program}")
        scene.add("default", box.url)
        scene.wait("default", failed_once)
        done = scene.ask("default")
        assert done.returncode == 6
        text = done.stdout + done.stderr + live.journal()
        assert "RuntimeError" in text, "nothing crashed"
        assert [hidden for hidden in (MARK, DEFAULT_SECRET, "Traceback") if hidden in text] == [], text
        python.restore()
        scene.wait("default", is_fresh)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGQUIT])
def test_a_crash_leaves_no_core(number: signal.Signals) -> None:
    """An agent that dies of a signal which dumps core (CLD_DUMPED) leaves none."""
    with Live() as live:
        live.start()
        os.kill(live.pid, number)
        ended = os.waitid(os.P_PID, live.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        assert (ended.si_status, ended.si_code) == (number, os.CLD_KILLED)


@pytest.fixture
def others_home() -> Iterator[Path]:
    """A home of another user, at a short path."""
    with tempfile.TemporaryDirectory(prefix="d7u-") as folder:
        os.chown(folder, UID, UID) if os.geteuid() == 0 else None
        yield Path(folder)


def test_processes_of_the_same_user_cannot_look_in(others_home: Path) -> None:
    """Same user, even the parent: memory, environment, descriptors and ptrace are closed; a plain process is open."""
    with Sandbox() as box:
        box.faults.add("hang")
        argv = as_another(sys.executable, "-P", tracer.__file__, box.url, str(others_home), COMMAND)
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=40, cwd="/")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["plain"] == dict.fromkeys(tracer.TRIES, "done"), "the test itself cannot look into anything"
    assert found["agent"] == dict.fromkeys(tracer.TRIES, "PermissionError")
    assert found["helper"] == dict.fromkeys(tracer.TRIES, "PermissionError")
    assert found["cores"] == ["Max core file size 0 0 bytes"] * 2
