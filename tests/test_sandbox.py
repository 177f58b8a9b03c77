import http.client
import json
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import direct7
import pytest
from direct7.errors import AuthenticationError

from d7agent.sandbox import DEFAULT_ID, Sandbox, Settings
from d7agent.sandbox.tokens import READY_TOKEN, claims_of
from tests.support.d7client import (
    BALANCE,
    BOUNDARY,
    FORM,
    LOGIN,
    ask,
    balance,
    connect,
    login,
    multipart,
    read_for,
)


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """A healthy sandbox."""
    with Sandbox() as sandbox:
        yield sandbox


# D7's own answers


def test_login_urlencoded(box: Sandbox) -> None:
    """A form as D7's Python sample sends it gets a bearer token that works."""
    reply = login(box)
    assert reply.status == 200
    assert reply.json["token_type"] == "bearer"
    assert balance(box, reply.token).json == {"balance": 99.99}


def test_login_multipart(box: Sandbox) -> None:
    """A form as D7's curl, Node, Go and PHP samples send it is understood, in one piece or in chunks."""
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    body = multipart(FORM)
    assert ask(box, "POST", LOGIN, body, kind).status == 200
    assert ask(box, "POST", LOGIN, iter([body[:20], body[20:]]), kind).status == 200
    assert box.stats.content_types == ["multipart/form-data"]


def test_login_json_is_refused(box: Sandbox) -> None:
    """JSON is never a login: 422 with FastAPI's list."""
    reply = ask(box, "POST", LOGIN, json.dumps(FORM), {"Content-Type": "application/json"})
    assert reply.status == 422
    assert [entry["loc"] for entry in json.loads(reply.body)["detail"]] == [
        ["body", "client_id"],
        ["body", "client_secret"],
    ]


@pytest.mark.parametrize("wrong", [{"client_id": "nobody"}, {"client_secret": "guess"}])
def test_login_wrong_credentials(box: Sandbox, wrong: dict[str, str]) -> None:
    """A wrong id and a wrong secret get the same 404 that D7 sends."""
    reply = login(box, FORM | wrong)
    assert (reply.status, reply.json) == (
        404,
        {"detail": {"code": "APPLICATION_NOT_EXISTS", "message": "Application not exists"}},
    )
    assert (box.stats.logins, box.stats.logins_ok, box.stats.logins_failed) == (1, 0, 1)


def test_other_paths_and_methods(box: Sandbox) -> None:
    """What D7 does not have is 404, a wrong method 405, both with a plain string as detail."""
    assert ask(box, "GET", "/nowhere").json == {"detail": "Not Found"}
    assert ask(box, "GET", LOGIN).json == {"detail": "Method Not Allowed"}
    assert ask(box, "POST", BALANCE).status == 405


@pytest.mark.parametrize(
    ("settings", "claims"),
    [
        (Settings(), {"aud", "sub", "iat", "exp", "jti"}),
        (Settings(no_iat=True), {"aud", "sub", "exp", "jti"}),
        (Settings(no_exp=True), {"aud", "sub", "iat", "jti"}),
        (Settings(no_exp=True, no_iat=True, same_token=True), {"aud", "sub"}),
        (Settings(token_form="two-part"), {"aud", "sub", "iat", "exp", "jti"}),
        (Settings(token_form="opaque"), set()),
    ],
)
def test_token_forms(settings: Settings, claims: set[str]) -> None:
    """Each form of token carries its claims and is let in."""
    with Sandbox(settings) as box:
        token = login(box).token
        assert set(claims_of(token)) == claims
        assert token.count(".") == {"jwt": 2, "two-part": 1, "opaque": 0}[settings.token_form]
        assert balance(box, token).status == 200


def test_lifetime_is_in_the_claims() -> None:
    """`exp` lies a lifetime after `iat`, a fraction of a second included."""
    with Sandbox(Settings(lifetime=3)) as box:
        claims = claims_of(login(box).token)
        assert (claims["aud"], claims["sub"], type(claims["exp"])) == ("auth-backend:app", DEFAULT_ID, int)
        assert float(str(claims["exp"])) - float(str(claims["iat"])) == 3
        box.configure(lifetime=2.5)
        claims = claims_of(login(box).token)
        assert float(str(claims["exp"])) - float(str(claims["iat"])) == pytest.approx(2.5)


def test_short_tokens_expire() -> None:
    """A token whose life is over is refused as expired, in D7's words."""
    with Sandbox(Settings(lifetime=0.05)) as box:
        token, deadline = login(box).token, time.monotonic() + 10
        while (reply := balance(box, token)).status == 200:
            assert time.monotonic() < deadline
        assert (reply.status, reply.code) == (401, "ACCESS_TOKEN_EXPIRED")


def test_tokens_differ_unless_told(box: Sandbox) -> None:
    """Every login gets other bytes; with `same_token` the same, even once they are revoked."""
    assert login(box).token != login(box).token
    box.configure(same_token=True)
    token = login(box).token
    box.revoke(token)
    assert login(box).token == token
    assert balance(box, token).status == 401


def test_same_token_is_renewed_when_expired() -> None:
    """With `same_token` an expired token is not handed out again."""
    with Sandbox(Settings(same_token=True, lifetime=0.05)) as box:
        token, deadline = login(box).token, time.monotonic() + 10
        while login(box).token == token:
            assert time.monotonic() < deadline


@pytest.mark.parametrize("token", ["", "rubbish", "a.b.c", READY_TOKEN[:-2] + "xx", "ä.ö.ü"])
def test_bad_bearer(box: Sandbox, token: str) -> None:
    """No token and a token that the sandbox did not sign are refused with D7's other code."""
    header = {"Authorization": f"Bearer {token}".encode().decode("latin-1")} if token else {}
    reply = ask(box, "GET", BALANCE, headers=header)
    assert (reply.status, reply.code) == (401, "ACCESS_TOKEN_SIGNATURE_VERIFICATION_FAILED")
    assert box.stats.api_refused == 1


def test_revocation(box: Sandbox) -> None:
    """One token, or all so far with the ready-made one, can be killed; later ones work."""
    first, second = login(box).token, login(box).token
    box.revoke(first)
    assert (balance(box, first).status, balance(box, second).status) == (401, 200)
    assert balance(box, READY_TOKEN).status == 200
    box.revoke_all()
    assert (balance(box, second).status, balance(box, READY_TOKEN).status) == (401, 401)
    assert balance(box, login(box).token).status == 200


def test_deleted_application(box: Sandbox) -> None:
    """When an application is deleted, its logins and its tokens fail."""
    token = login(box).token
    box.configure(applications={"other": "secret"})
    assert login(box).status == 404
    assert balance(box, token).status == 401
    assert login(box, {"client_id": "other", "client_secret": "secret"}).status == 200


def test_tokens_outlive_a_restart() -> None:
    """A token of one sandbox is let in by the next, as D7's servers know each other's tokens."""
    with Sandbox() as box:
        token = login(box).token
    with Sandbox() as box:
        assert balance(box, token).status == 200


def test_direct7_sdk_sends(box: Sandbox) -> None:
    """D7's published SDK sends a message and reads its status; a revoked token is its AuthenticationError."""
    client = direct7.Client(api_token=login(box).token)
    client.host(box.url)
    message = {"recipients": ["+971501234567"], "content": "hello", "unicode": "false"}
    with client.session:
        sent = client.sms.send_messages(message, originator="SignOTP")
        assert sent["status"] == "accepted"
        assert client.sms.get_status(request_id=sent["request_id"])["request_id"] == sent["request_id"]
        assert json.dumps(box.messages).count("hello") == 1
        assert box.stats.sends == 1
        assert any(agent.startswith("direct7-python-sdk/") for agent in box.stats.user_agents)
        box.revoke_all()
        with pytest.raises(AuthenticationError):
            client.sms.send_messages(message, originator="SignOTP")
    assert len(box.messages) == 1


def test_send_needs_messages(box: Sandbox) -> None:
    """A send without messages is 422, one that is no JSON 400, an unknown request id 404."""
    bearer = {"Authorization": f"Bearer {READY_TOKEN}", "Content-Type": "application/json"}
    assert ask(box, "POST", "/messages/v1/send", "{}", bearer).status == 422
    assert ask(box, "POST", "/messages/v1/send", "{", bearer).status == 400
    assert ask(box, "GET", "/report/v1/message-log/none", headers=bearer).status == 404


# HTTP itself


def test_keep_alive_and_head(box: Sandbox) -> None:
    """One connection carries many requests; a reply to HEAD has no body."""
    connection = http.client.HTTPConnection(urlsplit(box.url).netloc, timeout=10)
    for method in ("GET", "HEAD", "GET"):
        connection.request(method, BALANCE, headers={"Authorization": f"Bearer {READY_TOKEN}"})
        body = connection.getresponse().read()
        assert bool(body) == (method == "GET")
    connection.close()
    assert box.stats.connections == 1


@pytest.mark.parametrize(
    ("rubbish", "status"),
    [
        (b"rubbish\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nContent-Length: many\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"413"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000, b"431"),
    ],
)
def test_rubbish_is_answered_and_closed(box: Sandbox, rubbish: bytes, status: bytes) -> None:
    """What is no request gets a status and a close, and the next client notices nothing."""
    with connect(box) as sock:
        sock.sendall(rubbish)
        assert read_for(sock, 10).split(b" ")[1] == status
    assert login(box).status == 200
