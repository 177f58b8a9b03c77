import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from urllib.parse import urlencode, urlsplit

import pytest

from d7agent.sandbox import DEFAULT_ID, DEFAULT_SECRET, Sandbox, table
from d7agent.sandbox.tokens import claims_of
from tests.support.d7client import (
    BALANCE,
    LOGIN,
    login,
)

SCRIPT = "import sys; from d7agent.cli.app import run; sys.exit(run(['sandbox', *sys.argv[1:]]))"
COMMAND = [sys.executable, "-c", SCRIPT]


def test_command_end_to_end() -> None:
    """The command prints its URL first, plays its options, logs logins without secrets and ends with 0 on SIGTERM."""
    options = ["--lifetime", "2.5", "--no-iat", "--tls", "--fault", "unavailable:times=1"]
    with start(*options) as process:
        url, hints = read_hints(process)
        context = ssl.create_default_context(cafile=hints["SSL_CERT_FILE"])
        statuses = [command_login(url, hints, context) for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (0, "")
    assert statuses == [503, 200]
    assert err.splitlines() == [
        f"login 1: 503 client_id={DEFAULT_ID} fault=unavailable",
        f"login 2: 200 client_id={DEFAULT_ID}",
    ]


def test_command_ends_on_interrupt_while_requests_hang() -> None:
    """Ctrl-C ends it with 0, even where it is ignored at start as shells do for background jobs."""
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = start("--fault", "hang:on=api")
    finally:
        signal.signal(signal.SIGINT, ignored)
    with process:
        url, _ = read_hints(process)
        with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=10) as sock:
            sock.sendall(f"GET {BALANCE} HTTP/1.1\r\n\r\n".encode())
            wait_until_open(url)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=10) == 0


def test_unknown_ids_are_not_logged() -> None:
    """An id nobody knows may be a secret in the wrong field: it is not logged."""
    lines: list[str] = []
    with Sandbox(log=lines.append) as box:
        login(box, {"client_id": DEFAULT_SECRET, "client_secret": DEFAULT_ID})
    assert lines == ["login 1: 404 client_id=unknown"]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--fault", "nothing"], 2, ["d7agent: error: there is no fault 'nothing'", "d7agent: hint: "]),
        (["--lifetime", "0"], 2, ["d7agent: error: ", "lifetime", "d7agent: hint: "]),
        (["--certificate", "expired"], 2, ["d7agent: error: ", "need --tls", "d7agent: hint: "]),
    ],
)
def test_command_errors(options: list[str], code: int, words: list[str]) -> None:
    """What cannot be done is said in two lines, what was mistyped as usage."""
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert all(word in done.stderr for word in words)
    assert "Traceback" not in done.stderr


def test_command_lists_faults() -> None:
    """`--list-faults` shows the table and leaves; `--help` points to it."""
    done = subprocess.run([*COMMAND, "--list-faults"], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.strip() == table()
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=20, check=True)
    assert "--list-faults" in done.stdout


def start(*options: str) -> "subprocess.Popen[str]":
    """The command as a process."""
    pipe = subprocess.PIPE
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    return subprocess.Popen([*COMMAND, *options], stdout=pipe, stderr=pipe, text=True, env=environment)


def read_hints(process: "subprocess.Popen[str]") -> tuple[str, dict[str, str]]:
    """The URL and the `name=value` lines that the command prints."""
    assert process.stdout is not None
    url, hints = process.stdout.readline().strip(), {}
    last = "SSL_CERT_FILE" if url.startswith("https") else "ready_token"
    while last not in hints:
        name, _, value = process.stdout.readline().strip().partition("=")
        hints[name] = value
    return url, hints


def command_login(url: str, hints: dict[str, str], context: ssl.SSLContext) -> int:
    """The status of a login with the printed credential."""
    form = urlencode({name: hints[name] for name in ("client_id", "client_secret")}).encode()
    try:
        with urllib.request.urlopen(url + LOGIN, form, timeout=10, context=context) as response:
            claims = claims_of(json.load(response)["access_token"])
            assert "exp" in claims
            assert "iat" not in claims
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def wait_until_open(url: str) -> None:
    """Returns when the command has a request under way."""
    deadline = time.monotonic() + 10
    stats: dict[str, object] = {}
    while stats.get("open_requests") != 1:
        assert time.monotonic() < deadline
        with urllib.request.urlopen(url + "/sandbox/stats", timeout=10) as response:
            stats = json.load(response)
