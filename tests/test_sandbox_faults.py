import http.client
import json
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import urlencode

import pytest

from d7agent.sandbox import FAULTS, Sandbox, SandboxError, Settings, table
from d7agent.sandbox.tokens import READY_TOKEN, claims_of
from tests.support.d7client import (
    FORM,
    LOGIN,
    Reply,
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


def is_status(status: int, text: str = "") -> Callable[[Reply], bool]:
    """The reply has this status, and this text in its body."""
    return lambda reply: reply.status == status and text in reply.body.decode()


def claim(check: Callable[[object], bool]) -> Callable[[Reply], bool]:
    """The token's `exp` passes the check."""
    return lambda reply: check(claims_of(reply.token)["exp"])


def date_offset(reply: Reply) -> float:
    """Seconds that the Date header lies ahead of now."""
    return parsedate_to_datetime(reply.headers["Date"]).timestamp() - time.time()


ANSWERS: list[tuple[str, Callable[[Reply], bool]]] = [
    ("status:status=418,body=tea", is_status(418, "tea")),
    ('{"name": "status", "status": 409, "code": "A,B"}', lambda r: r.status == 409 and r.code == "A,B"),
    ("unauthorized", lambda r: r.status == 401 and r.code == "ACCESS_TOKEN_SIGNATURE_VERIFICATION_FAILED"),
    ("expired", lambda r: r.status == 401 and r.code == "ACCESS_TOKEN_EXPIRED"),
    ("not-found", lambda r: r.status == 404 and r.code == "APPLICATION_NOT_EXISTS"),
    ("not-found-html", is_status(404, "<html>")),
    ("forbidden", lambda r: r.status == 403 and r.code == "ACCESS_DENIED"),
    ("forbidden-html", is_status(403, "<html>")),
    ("bad-request", lambda r: r.status == 400 and r.code == "BAD_REQUEST"),
    ("invalid", lambda r: r.status == 422 and isinstance(r.json["detail"], list)),
    ("string-detail", lambda r: r.status == 400 and isinstance(r.json["detail"], str)),
    ("rate-limited:after=7", lambda r: r.status == 429 and r.headers["Retry-After"] == "7"),
    ("rate-limited:form=none", lambda r: r.status == 429 and "Retry-After" not in r.headers),
    ("server-error", is_status(500, "<html>")),
    ("unavailable", lambda r: r.status == 503 and "Retry-After" not in r.headers),
    ("unavailable:after=3", lambda r: r.status == 503 and r.headers["Retry-After"] == "3"),
    (
        "redirect:to=http://other.example/",
        lambda r: r.status == 307 and r.headers["Location"] == "http://other.example/",
    ),
    ("not-json", is_status(200, "<html>")),
    ("empty", lambda r: r.status == 200 and r.body == b""),
    ("not-utf8", lambda r: r.status == 200 and b"\xff" in r.body),
    ("json-nested:depth=9", lambda r: r.body == b"[" * 9 + b"]" * 9),
    ("json-list", lambda r: isinstance(json.loads(r.body), list)),
    ("token-missing", lambda r: r.json == {"token_type": "bearer"}),
    ("token-empty", lambda r: r.json["access_token"] == ""),
    ("token-null", lambda r: r.json["access_token"] is None),
    ("token-number", lambda r: isinstance(r.json["access_token"], int)),
    ("token-type", lambda r: r.json["token_type"] == "mac" and bool(claims_of(r.token))),
    ("duplicate-keys", lambda r: r.body.count(b'"access_token"') == 2),
    ("token-control", lambda r: "\r\n" in r.token),
    ("token-too-large", lambda r: 1 << 20 <= len(r.token) < 1.1 * (1 << 20)),
    ("exp-past:ago=5", claim(lambda exp: isinstance(exp, int) and exp < time.time())),
    ("exp-string", claim(lambda exp: isinstance(exp, str))),
    ("exp-float", claim(lambda exp: isinstance(exp, float))),
    ("exp-negative", claim(lambda exp: isinstance(exp, int) and exp < 0)),
    ("exp-year-9999", claim(lambda exp: time.gmtime(float(str(exp))).tm_year == 9999)),
    ("exp-huge", claim(lambda exp: len(str(exp)) == 401)),
    ("iat-future", lambda r: float(str(claims_of(r.token)["iat"])) > time.time() + 3000),
    ("too-large:size=300000", lambda r: len(r.body) == 300_000 and len(r.token) > 299_000),
    (
        "too-large:size=300000,announce=yes",
        lambda r: r.headers["Content-Length"] == "300000" and len(r.body) == 300_000,
    ),
    ("gzip-bomb:size=9000000", lambda r: len(r.body) < 90_000 and len(zlib.decompress(r.body, 31)) == 9_000_000),
    ("date-absurd", lambda r: r.status == 200 and "Foo" in r.headers["Date"]),
    ("date-missing", lambda r: r.status == 200 and "Date" not in r.headers),
    ("date-skew:seconds=-7200", lambda r: r.status == 200 and -7210 < date_offset(r) < -7190),
]
# Played by tests of their own below.
MIB = 1 << 20
CUT_OR_SLOW = {"slow", "hang", "drip", "truncated", "close", "reset"}


@pytest.mark.parametrize(("spec", "as_described"), ANSWERS, ids=[spec for spec, _ in ANSWERS])
def test_fault_answers(box: Sandbox, spec: str, as_described: Callable[[Reply], bool]) -> None:
    """Each fault that answers says what its line in the table promises, once, and then all is well."""
    fault = box.faults.add(spec, times=1)
    reply = login(box)
    assert as_described(reply), reply
    assert (fault.played, box.stats.faults) == (1, {fault.kind.name: 1})
    assert balance(box, login(box).token).status == 200


def test_every_fault_is_tested_and_listed() -> None:
    """No fault is without a test or without its line in the help."""
    tested = {json.loads(spec)["name"] if spec.startswith("{") else spec.partition(":")[0] for spec, _ in ANSWERS}
    assert tested | CUT_OR_SLOW == set(FAULTS)
    assert [line.split()[0] for line in table().splitlines() if not line.startswith(" ")] == list(FAULTS)


def test_rate_limited_with_a_date(box: Sandbox) -> None:
    """Retry-After can be an HTTP date that lies as far ahead as asked."""
    box.faults.add("rate-limited", form="date", after=60)
    at = parsedate_to_datetime(login(box).headers["Retry-After"]).timestamp()
    assert 50 < at - time.time() <= 60


def test_token_faults_leave_failed_logins_alone(box: Sandbox) -> None:
    """A wrong secret is a 404 even where tokens are to be spoilt."""
    box.faults.add("exp-past")
    assert login(box, FORM | {"client_secret": "guess"}).status == 404


def test_expired_from_birth_is_refused(box: Sandbox) -> None:
    """A token with `exp` in the past is signed well and refused as expired."""
    box.faults.add("exp-past")
    assert balance(box, login(box).token).code == "ACCESS_TOKEN_EXPIRED"


@pytest.mark.parametrize("where", ["before", "headers", "body"])
def test_hang(box: Sandbox, where: str) -> None:
    """A hang sends all up to its place and then nothing; the sandbox notices when the client gives up."""
    box.faults.add("hang", where=where)
    with raw_login(box) as sock:
        box.wait_for(lambda stats: stats.open_logins == 1)
        got = read_for(sock, 0.1)
    assert (b"HTTP/1.1 200" in got, b"\r\n\r\n" in got) == (where != "before", where == "body")
    assert b"access_token" not in got
    stats = box.wait_for(lambda stats: stats.open_logins == 0)
    assert (stats.logins_ok, stats.logins_failed) == (0, 1)


@pytest.mark.parametrize("where", ["before", "headers", "body"])
def test_slow(box: Sandbox, where: str) -> None:
    """A slow reply is whole and comes no earlier than asked."""
    box.faults.add("slow", where=where, delay=0.1)
    start = time.monotonic()
    assert login(box).status == 200
    assert time.monotonic() - start >= 0.1


def test_drip(box: Sandbox) -> None:
    """A dripping reply is whole and takes its bytes' time; a byte a second by default."""
    box.faults.add("drip:rate=2000,times=1")
    start = time.monotonic()
    reply = login(box)
    assert balance(box, reply.token).status == 200
    assert time.monotonic() - start >= len(reply.body) / 2000
    box.faults.add("drip")
    with raw_login(box) as sock:
        assert read_for(sock, 0.2) == b"H"


def test_truncated(box: Sandbox) -> None:
    """The body ends before its announced length."""
    box.faults.add("truncated:keep=5")
    with pytest.raises(http.client.IncompleteRead) as caught:
        login(box)
    assert caught.value.partial == b'{"acc'
    assert box.stats.logins_failed == 1


def test_close_and_reset(box: Sandbox) -> None:
    """The connection can be closed or reset once the request was read."""
    box.faults.add("close:times=1")
    box.faults.add("reset:times=1")
    with pytest.raises(http.client.RemoteDisconnected):
        login(box)
    with pytest.raises(ConnectionResetError), raw_login(box) as sock:
        sock.recv(1)
    assert box.stats.logins == 2


def test_redirect_trap(box: Sandbox) -> None:
    """Who follows the default redirect is counted."""
    box.faults.add("redirect:status=302")
    with urllib.request.urlopen(box.url + LOGIN, urlencode(FORM).encode(), timeout=10) as response:
        assert response.status == 200
    assert box.stats.redirects_followed == 1


def test_too_large_is_made_while_sent(box: Sandbox) -> None:
    """A reply of 1 GiB starts at once, and others are served while it is read."""
    box.faults.add("too-large", times=1)
    with raw_login(box) as sock:
        assert sum(len(sock.recv(65536)) for _ in range(40)) > 40
        assert login(box).status == 200
    box.wait_for(lambda stats: stats.open_logins == 0)


def test_a_whole_gibibyte(box: Sandbox) -> None:
    """Who wants all of it gets all of it."""
    box.faults.add("too-large", times=1)
    count = 0
    with raw_login(box) as sock:
        piece = memoryview(bytearray(MIB))
        while got := sock.recv_into(piece):
            count += got
    assert 1024 * MIB < count < 1025 * MIB
    assert box.wait_for(lambda stats: stats.bytes_sent > 0).bytes_sent == count


def test_faults_queue_by_target(box: Sandbox) -> None:
    """Faults are played in the order they were set, each on its own requests and as often as asked."""
    box.faults.add("server-error:times=1")
    box.faults.add("unavailable", on="both", times=2)
    box.faults.add("expired:on=api")
    assert [login(box).status for _ in range(2)] == [500, 503]
    assert [balance(box, READY_TOKEN).status for _ in range(2)] == [503, 401]
    assert login(box).status == 200
    assert [fault.kind.name for fault in box.faults.active()] == ["expired"]
    box.clear()
    assert balance(box, READY_TOKEN).status == 200


def test_refused_sends_are_not_recorded(box: Sandbox) -> None:
    """A message answered by a fault's error was not taken."""
    box.faults.add("unavailable:on=api")
    body, bearer = json.dumps({"messages": [{"content": "x"}]}), {"Authorization": f"Bearer {READY_TOKEN}"}
    assert ask(box, "POST", "/messages/v1/send", body, bearer).status == 503
    assert box.messages == []


@pytest.mark.parametrize(
    "spec",
    [
        "nothing",
        "slow:pace=1",
        "slow:delay=long",
        "hang:where=nowhere",
        "status:times=0",
        "exp-past:on=api",
        "slow:on=x",
        "slow:delay",
        "slow:delay=inf",
        "{",
        "{}",
    ],
)
def test_senseless_faults_are_refused(box: Sandbox, spec: str) -> None:
    """A SPEC that makes no sense is refused with a hint, at start and later."""
    with pytest.raises(SandboxError) as caught:
        box.faults.add(spec)
    assert caught.value.hint
    with pytest.raises(SandboxError):
        Sandbox(Settings(faults=(spec,)))
