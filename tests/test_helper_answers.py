import json
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d7agent.core.jobs import Failed, Proved
from d7agent.helper.answers import Answer, Issued, date, retry_after, sort_balance, sort_login
from tests.support.helper import shown

NOW = 1_800_000_000.0
JSON = {"content-type": "application/json"}
HTML = {"content-type": "text/html; charset=utf-8"}
NOT_EXISTS = {"detail": {"code": "APPLICATION_NOT_EXISTS", "message": "Application not exists"}}
EXPIRED = {"detail": {"code": "ACCESS_TOKEN_EXPIRED", "message": "Access token signature has expired"}}
UNVERIFIED = {"detail": {"code": "ACCESS_TOKEN_SIGNATURE_VERIFICATION_FAILED", "message": "no"}}
FASTAPI = {"detail": [{"loc": ["body", "client_id"], "msg": "field required", "type": "missing", "input": "hush-hush"}]}


def answer(status: int, body: Any = b"", **headers: str) -> Answer:
    """An answer with this body: bytes as they are, anything else as JSON."""
    is_bytes = isinstance(body, bytes)
    kind = HTML if is_bytes else JSON
    return Answer(status, {**kind, **headers}, body if is_bytes else json.dumps(body).encode())


def failed(got: object) -> Failed:
    """The same, known to be a failure."""
    assert isinstance(got, Failed)
    return got


def test_a_token_is_taken() -> None:
    """200 with an access_token is a token, with the Date header beside it."""
    got = sort_login(answer(200, {"access_token": "a.b.c", "token_type": "bearer"}, date=formatdate(NOW)), NOW)
    assert isinstance(got, Issued)
    assert shown(got.access_token) == "a.b.c"
    assert got.date == NOW


@pytest.mark.parametrize("extra", [{}, {"token_type": "Bearer"}, {"token_type": "BEARER", "more": [1, {"x": None}]}])
def test_the_token_type_is_bearer_however_it_is_written(extra: dict[str, Any]) -> None:
    """A missing token_type is bearer; its case does not matter; unknown fields are ignored."""
    assert isinstance(sort_login(answer(200, {"access_token": "x" * 16384} | extra), NOW), Issued)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b"<html>login</html>",
        b'{"access_token": "abc"',
        b'{"access_token": "abc"} x',
        b'{"access_token": "abc", "access_token": "abd"}',
        b'{"access_token": "abc", "x": {"y": 1, "y": 2}}',
        b'{"access_token": "abc", "x": NaN}',
        b'{"access_token": "abc", "x": -Infinity}',
        b'{"access_token": "abc", "x": ' + b"9" * 5000 + b"}",
        b'{"access_token": "\xff\xfe"}',
        b"[" * 100_000 + b"]" * 100_000,
        b'{"access_token": ' + b"[" * 200_000,
        [],
        ["abc"],
        "abc",
        None,
        {},
        {"access_token": None},
        {"access_token": 12},
        {"access_token": ["abc"]},
        {"access_token": ""},
        {"access_token": "a b"},
        {"access_token": "abc\r\nX-Evil: 1"},
        {"access_token": "abc\x00"},
        {"access_token": "abc\x7f"},
        {"access_token": "tökén"},
        {"access_token": "\ud800"},
        {"access_token": "x" * 16385},
        {"access_token": "abc", "token_type": "mac"},
        {"access_token": "abc", "token_type": None},
        {"access_token": "abc", "token_type": 1},
    ],
)
def test_anything_else_with_200_is_a_bad_reply(body: Any) -> None:
    """What is not clearly a token is none, and is tried again later."""
    got = failed(sort_login(answer(200, body), NOW))
    assert (got.reason, got.permanent, got.status) == ("bad_reply", False, 200)
    assert "abc" not in got.message


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (404, NOT_EXISTS, "APPLICATION_NOT_EXISTS", "Application not exists"),
        (400, {"detail": "There was an error parsing the body"}, None, "There was an error parsing the body"),
        (422, FASTAPI, None, "body.client_id: field required"),
        (403, {"detail": {"code": "ACCESS_DENIED", "message": "no"}}, "ACCESS_DENIED", "no"),
        (403, {"detail": {"code": "ACCESS_DENIED"}}, "ACCESS_DENIED", "no message"),
    ],
)
def test_a_refused_credential_is_permanent(status: int, body: Any, code: str | None, words: str) -> None:
    """400, 403, 404 and 422 with D7's detail: the credential is refused, D7's code and words are kept."""
    got = failed(sort_login(answer(status, body), NOW))
    assert (got.reason, got.permanent, got.unauthorized) == ("refused", True, False)
    assert (got.status, got.code) == (status, code)
    assert words in got.message
    assert "login" in got.hint
    assert "hush-hush" not in got.message  # FastAPI repeats what was sent


def test_401_is_counted_by_the_machine() -> None:
    """401 with D7's detail is no verdict yet: it says `unauthorized`, and three make one."""
    got = failed(sort_login(answer(401, EXPIRED), NOW))
    assert (got.reason, got.permanent, got.unauthorized) == ("refused", False, True)
    assert got.code == "ACCESS_TOKEN_EXPIRED"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
@pytest.mark.parametrize("body", [b"", b"<html>denied</html>", {"error": "denied"}, {"detail": {"message": "no code"}}])
def test_a_proxy_in_the_way_is_transient(status: int, body: Any) -> None:
    """The same statuses without D7's detail come from someone else on the way."""
    got = failed(sort_login(answer(status, body), NOW))
    assert (got.reason, got.permanent, got.unauthorized) == ("http_status", False, False)
    assert "proxy" in got.hint


@pytest.mark.parametrize("status", [201, 204, 301, 302, 307, 308, 405, 407, 418])
def test_redirects_and_strange_statuses_are_transient(status: int) -> None:
    """A redirect is not followed and, like any unknown status, says that something stands in the way."""
    got = failed(sort_login(answer(status, b"", location="https://evil.example/"), NOW))
    assert (got.reason, got.permanent, got.status) == ("http_status", False, status)
    assert "evil" not in got.message + got.hint


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
@pytest.mark.parametrize("body", [b"<html>oops</html>", {"detail": "busy"}])
def test_d7_in_trouble_is_transient(status: int, body: Any) -> None:
    """408, 425, 429 and 5xx are tried again, after what Retry-After says."""
    got = failed(sort_login(answer(status, body, **{"retry-after": "7"}), NOW))
    assert got.reason == ("rate_limited" if status == 429 else "http_status")
    assert (got.permanent, got.status, got.retry_after) == (False, status, 7.0)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": " 12 "}, 12.0),
        ({"retry-after": "7200"}, 3600.0),
        ({"retry-after": "9" * 400}, 3600.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "1.5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "\u0663"}, None),
        ({"retry-after": formatdate(NOW + 30, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(NOW - 30, usegmt=True)}, 0.0),
        ({"retry-after": formatdate(NOW + 30, usegmt=True), "date": formatdate(NOW + 20, usegmt=True)}, 10.0),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds or an HTTP date, by D7's own clock where it tells it; from 0 to an hour; rubbish is none."""
    assert retry_after(headers, NOW) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "now", "0", "Thu, 99 Foo 9999 99:99:99 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"],
)
def test_an_absurd_date_is_none(text: str) -> None:
    """A Date header that is no date, or lies before this program or after the century, tells nothing."""
    assert date({"date": text}) is None


def test_secrets_are_cut_out_of_a_header() -> None:
    """Nor does a proxy that repeats it in the type of its page."""
    got = failed(sort_login(Answer(403, {"content-type": "text/s3cr3t-value; x"}, b"<html>"), NOW, "s3cr3t-value"))
    assert "s3cr3t" not in got.message
    assert "with text/…" in got.message


def test_secrets_are_cut_out_of_d7s_words() -> None:
    """A server that repeats the secret does not get it into a message."""
    got = failed(sort_login(answer(400, {"detail": "bad secret s3cr3t-value"}), NOW, "s3cr3t-value"))
    assert "s3cr3t-value" not in got.message
    assert "bad secret" in got.message


def test_d7s_words_are_made_harmless() -> None:
    """Control characters and endless texts do not reach a terminal or a log line."""
    got = failed(sort_login(answer(400, {"detail": "a\x1b[31m\nb" + "x" * 5000}), NOW))
    assert got.message.isprintable()
    assert len(got.message) < 400


@pytest.mark.parametrize("body", [EXPIRED, UNVERIFIED])
def test_balance_401_with_a_token_code_refuses_the_token(body: Any) -> None:
    """Only D7's own token codes speak against the token."""
    got = sort_balance(answer(401, body), NOW)
    assert got == Proved(works=False, refused=True, status=401, code=body["detail"]["code"])


def test_balance_200_proves_the_token() -> None:
    """200 with JSON works; the balance is shown, cut short."""
    got = sort_balance(answer(200, {"balance": "12.5", "x": "y" * 500}), NOW)
    assert isinstance(got, Proved)
    assert (got.works, got.refused) == (True, False)
    assert got.body is not None
    assert "12.5" in got.body
    assert len(got.body) <= 200


def test_balance_with_another_detail_proves_nothing() -> None:
    """Any other refusal speaks neither for nor against the token."""
    got = sort_balance(answer(403, {"detail": {"code": "NO_CREDIT", "message": "pay"}}), NOW)
    assert got == Proved(works=False, refused=False, status=403, code="NO_CREDIT")


@pytest.mark.parametrize("got", [(401, b"<html>"), (500, b""), (302, b""), (200, b"<html>welcome</html>")])
def test_balance_from_someone_else_is_a_failure(got: tuple[int, bytes]) -> None:
    """What D7 did not say proves nothing, a captive portal's 200 included."""
    assert isinstance(sort_balance(answer(*got), NOW), Failed)


@given(
    status=st.integers(200, 599),
    body=st.binary(max_size=200),
    headers=st.dictionaries(st.just("retry-after"), st.text()),
)
def test_no_answer_is_too_strange(status: int, body: bytes, headers: dict[str, str]) -> None:
    """Whatever comes is sorted, and only JSON with a detail is ever permanent."""
    got = sort_login(Answer(status, headers, body), NOW)
    assert isinstance(got, Issued | Failed)
    if isinstance(got, Failed) and got.permanent:
        assert b"detail" in body
