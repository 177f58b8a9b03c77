"""The helper as a process: closed to others, silent when it crashes, gone with its agent."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from d7agent.core.jobs import READY, Failed, Hashed, HashPassphrase, Login, Recall, Reply, decode_reply, encode
from tests.support.another_user import as_another
from tests.support.helper import NOW, USUAL, environment, target


def failed(reply: Reply) -> Failed:
    assert isinstance(reply, Failed)
    return reply


def python(code: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """A fresh interpreter that runs this."""
    argv = [sys.executable, "-P", "-c", code]
    return subprocess.run(argv, input=data, env=environment(None), capture_output=True, check=False, timeout=20)


def test_a_crash_shows_no_secret(tmp_path: Path) -> None:
    """An exception with a secret in it becomes a reply with its type and place; so does one in a thread."""
    code = (
        "import d7agent.helper.door as door\n"
        "def crash(*_):\n"
        "    raise LookupError('tr0ub4dor')\n"
        "door.perform = crash\n"
        "door.main()"
    )
    done = python(code, encode(Recall(target(f"directory:{tmp_path}"), NOW)) + b"\0")
    reply = failed(decode_reply(done.stdout))
    assert reply.reason == "helper_failed"
    assert "LookupError in <string>:3" in reply.message
    assert b"tr0ub4dor" not in done.stdout + done.stderr


def test_an_exception_that_nobody_catches_shows_no_secret() -> None:
    """Python's own report of it is replaced by its type and place."""
    code = "import d7agent.helper.door as door\ndoor._set_apart()\nraise LookupError('tr0ub4dor')"
    done = python(code)
    assert b"LookupError in <string>:3" in done.stderr
    assert b"tr0ub4dor" not in done.stderr


def test_the_helper_is_hardened() -> None:
    """Not dumpable, so that its own user has no ptrace and no /proc/PID/mem; no core file; dies with the agent."""
    code = (
        "import ctypes, resource\nfrom d7agent.helper.prctl import *\nclose_to_others()\ndie_with_parent()\n"
        "prctl, signal = ctypes.CDLL(None).prctl, ctypes.c_int()\nprctl(2, ctypes.byref(signal), 0, 0, 0)\n"
        "print(prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE), signal.value)"
    )
    assert python(code).stdout.split() == [b"0", b"0", b"0", b"9"]


def traced(argv: list[str]) -> bytes:
    """What a helper says that strace has begun to trace before it could close itself."""
    command = ["strace", "-f", "-qq", "-o", "/dev/null", *USUAL]
    done = subprocess.run(
        [*argv, *command],
        input=encode(HashPassphrase()) + b'\0{"passphrase":"p"}',
        capture_output=True,
        check=True,
        cwd="/",
    )
    return done.stdout


def test_a_traced_helper_takes_no_secret() -> None:
    """One whom another process of its user traces says so in place of READY; root may trace whom it likes."""
    answer = traced(as_another())
    assert not answer.startswith(READY)
    assert "traces the agent's helper" in failed(decode_reply(answer)).message
    if os.geteuid() == 0:
        assert isinstance(decode_reply(traced([]).removeprefix(READY)), Hashed)


def test_the_helper_dies_with_its_agent(tmp_path: Path) -> None:
    """When the agent is killed, a helper that waits for a slow command goes too, and so does the command."""
    mark = tmp_path / "started"
    os.mkfifo(mark)
    job = encode(Login(target(f"command:sh -c 'echo $$ > {mark}; exec sleep 60'", client_id="i"), NOW)) + b"\0"
    code = f"import subprocess, sys\nsubprocess.run({USUAL!r}, input={job!r})"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment(None)) as agent:
        command = os.pidfd_open(int(mark.read_text()))
        agent.send_signal(signal.SIGKILL)
        assert agent.stdout
        assert agent.stdout.read() == READY  # the end comes when the helper, which shares it, is gone
    assert select.select([command], [], [], 5)[0]
    os.close(command)
