import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from d7agent.sandbox import DEFAULT_SECRET, FAULTS, Sandbox, SandboxError, Settings, Stats
from d7agent.sandbox.tokens import READY_TOKEN, claims_of
from tests.support.d7client import (
    URLENCODED,
    ask,
    balance,
    login,
    raw_login,
    read_for,
)


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """A healthy sandbox."""
    with Sandbox() as sandbox:
        yield sandbox


# Steering over HTTP


def test_control_endpoints(box: Sandbox) -> None:
    """Faults, settings, revocation and stats can be reached while the sandbox runs."""
    assert (
        ask(box, "POST", "/sandbox/faults", json.dumps({"name": "rate-limited", "after": 9, "times": 1})).status == 200
    )
    assert ask(box, "POST", "/sandbox/faults", json.dumps({"spec": "expired:on=api"})).status == 200
    listed = ask(box, "GET", "/sandbox/faults").json
    assert set(FAULTS) == set(listed["known"])  # type: ignore[call-overload]
    assert login(box).headers["Retry-After"] == "9"
    assert ask(box, "DELETE", "/sandbox/faults").status == 200
    assert ask(box, "POST", "/sandbox/config", json.dumps({"lifetime": 5, "no_iat": True})).status == 200
    token = login(box).token
    assert "iat" not in claims_of(token)
    assert ask(box, "POST", "/sandbox/revoke", json.dumps({"token": token})).status == 200
    assert balance(box, token).status == 401
    assert ask(box, "POST", "/sandbox/revoke").status == 200
    assert balance(box, READY_TOKEN).status == 401
    stats = ask(box, "GET", "/sandbox/stats").json
    assert {name: stats[name] for name in ("logins", "logins_ok", "logins_failed", "balances", "api_refused")} == {
        "logins": 2, "logins_ok": 1, "logins_failed": 1, "balances": 2, "api_refused": 2,
    }  # fmt: skip
    assert stats["content_types"] == [URLENCODED]
    assert ask(box, "DELETE", "/sandbox/stats").status == 200
    assert box.stats.logins == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("faults", '{"name": "nothing"}'),
        ("faults", "[]"),
        ("config", '{"port": 1}'),
        ("config", '{"lifetime": -1}'),
        ("config", '{"lifetime": "long"}'),
        ("config", '{"no_exp": 1}'),
        ("config", '{"applications": ["a"]}'),
        ("config", '{"token_form": []}'),
        ("revoke", '{"token": 1}'),
    ],
)
def test_control_refuses_nonsense(box: Sandbox, path: str, body: str) -> None:
    """A senseless order is a 400 that says what to do, and changes nothing."""
    before = box.settings
    reply = ask(box, "POST", f"/sandbox/{path}", body)
    assert reply.status == 400
    assert reply.json["hint"]
    assert (box.settings, box.faults.active()) == (before, [])
    assert ask(box, "GET", "/sandbox/nothing").status == 404


# Waiting, stopping, starting again


def test_wait_for(box: Sandbox) -> None:
    """Waiting ends when the condition holds, and fails loudly when it never does."""
    thread = threading.Thread(target=lambda: [login(box) for _ in range(2)])
    thread.start()
    assert box.wait_for(lambda stats: stats.logins_ok >= 2).logins == 2
    thread.join()
    with pytest.raises(TimeoutError, match="logins=2"):
        box.wait_for(lambda stats: stats.logins > 2, timeout=0.01)


def test_stop_while_hundreds_hang() -> None:
    """However many requests hang, stopping is a matter of a moment, and all clients see the end."""
    with Sandbox(Settings(faults=("hang",))) as box:
        socks = [raw_login(box) for _ in range(300)]
        assert box.wait_for(lambda stats: stats.open_logins == 300).max_open_logins == 300
        assert ask(box, "GET", "/sandbox/stats").json["open_logins"] == 300
        start = time.monotonic()
        box.stop()
        assert time.monotonic() - start < 2
        for sock in socks:
            with sock:
                assert read_for(sock, 5) == b""


def test_drop_connections(box: Sandbox) -> None:
    """Open connections can be ended without ending the sandbox."""
    box.faults.add("hang:times=1")
    with raw_login(box) as sock:
        box.wait_for(lambda stats: stats.open_logins == 1)
        box.drop_connections()
        assert read_for(sock, 5) == b""
    assert login(box).status == 200


def test_stop_and_start_again(box: Sandbox) -> None:
    """Between stop and start connections are refused; then port, tokens and counts are as before."""
    url, token = box.url, login(box).token
    box.stop()
    with pytest.raises(ConnectionRefusedError):
        login(box)
    box.start()
    assert (box.url, box.stats.logins, balance(box, token).status) == (url, 1, 200)


def test_loopback_only() -> None:
    """The sandbox's secrets are public, so it serves this machine alone."""
    for host in ("0.0.0.0", "192.0.2.1", "example.org", "::", ""):
        with pytest.raises(SandboxError, match="host"):
            Settings(host=host)
    with Sandbox(Settings(host="::1")) as box:
        assert box.url.startswith("http://[::1]:")
        with urllib.request.urlopen(box.url + "/sandbox/stats", timeout=10) as response:
            assert response.status == 200


def test_port_taken(box: Sandbox) -> None:
    """A port in use is named, with what to do."""
    with pytest.raises(SandboxError, match="another port"):
        Sandbox(Settings(port=urlsplit(box.url).port or 0)).start()


def test_repr_keeps_secrets() -> None:
    """Settings can be printed without their secrets."""
    assert DEFAULT_SECRET not in repr(Settings())
    assert READY_TOKEN not in repr(Settings())


def test_stats_are_a_copy(box: Sandbox) -> None:
    """Stats once taken do not change."""
    before = box.stats
    login(box)
    assert (before.logins, before) == (0, Stats())
