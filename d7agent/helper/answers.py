"""Sorting D7's answers into token, transient and permanent. Pure: bytes and numbers in, a verdict out."""

import json
from collections.abc import Mapping
from typing import Any, Final, Literal, NoReturn

from msgspec import Struct

from d7agent.core.jobs import Failed, Proved
from d7agent.core.model import Reason, Secret
from d7agent.core.schedule import RETRY_AFTER_CAP
from d7agent.helper.clean import is_token
from d7agent.helper.faults import plain

TRANSIENT: Final = frozenset({408, 425})  # and all of 5xx; 429 has a reason of its own
PERMANENT: Final = frozenset({400, 403, 404, 422})  # with D7's JSON detail; without it, a proxy speaks
REFUSED_CODES: Final = "ACCESS_TOKEN_"  # what D7's codes for a token that is bad, revoked or expired begin with
EARLIEST: Final = 1577836800.0  # 2020-01-01; a Date header before it comes from a clock that was never set
LATEST: Final = 4102444800.0  # 2100-01-01
BODY_SHOWN: Final = 200  # characters of the balance, for `check --live`

CREDENTIAL_HINT: Final = "check client id and secret in D7's control panel, then run: d7agent login"
PROXY_HINT: Final = "a proxy or a login page stands in the way; check base_url, HTTPS_PROXY and NO_PROXY"
LATER_HINT: Final = "nothing to do: it is tried again by itself"


class Answer(Struct, frozen=True):
    """One HTTP answer. `headers` with lower-case names; `body` decompressed and whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"<Answer {self.status}, {len(self.body)} bytes>"


class Issued(Struct, frozen=True):
    """A token D7 issued. `date`: the answer's Date header as unix seconds, None if absent or absurd."""

    access_token: Secret
    date: float | None = None


class Detail(Struct, frozen=True):
    """D7's JSON `detail`: its code (object form only) and its words."""

    text: str
    code: str | None = None


class Unreadable(ValueError):
    """A body that is not the JSON it should be; the text says why, in words of ours."""


def sort_login(answer: Answer, now: float, *secrets: str) -> Issued | Failed:
    """What a login's answer means. `now`: unix seconds, for a Retry-After date; `secrets` are cut out of D7's words."""
    if answer.status == 200:
        return _issued(answer)
    detail = _detail(answer, secrets)
    if detail and answer.status in PERMANENT:
        return _refused(answer.status, detail, permanent=True)
    if detail and answer.status == 401:
        return _refused(answer.status, detail, permanent=False)
    return _transient(answer, detail, now, secrets)


def sort_balance(answer: Answer, now: float, *secrets: str) -> Proved | Failed:
    """What the balance endpoint's answer says about the token; `now` and `secrets` as in sort_login."""
    if answer.status == 200:
        try:
            _json(answer.body)
        except Unreadable as why:
            return _bad_reply(f"D7's balance {why}", 200)
        body = plain(answer.body.decode("utf-8"), *secrets)[:BODY_SHOWN]
        return Proved(works=True, refused=False, status=200, body=body)
    detail = _detail(answer, secrets)
    if detail and answer.status in PERMANENT | {401}:
        refused = answer.status == 401 and (detail.code or "").startswith(REFUSED_CODES)
        return Proved(works=False, refused=refused, status=answer.status, code=detail.code)
    return _transient(answer, detail, now, secrets)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait by the Retry-After header (RFC 9110, 10.2.3), from 0 to an hour; None if unusable."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), RETRY_AFTER_CAP)
    at = _seconds(text)
    if at is None:
        return None
    since = date(headers)
    return min(max(0.0, at - (now if since is None else since)), RETRY_AFTER_CAP)


def date(headers: Mapping[str, str]) -> float | None:
    """The Date header as unix seconds; None if absent, unreadable or absurd."""
    return _seconds(headers.get("date", ""))


def _seconds(text: str) -> float | None:
    from email.utils import parsedate_to_datetime  # http.client has loaded it wherever there is an answer

    try:
        stamp = parsedate_to_datetime(text).timestamp() if text else 0.0
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None
    return stamp if EARLIEST <= stamp < LATEST else None


def _issued(answer: Answer) -> Issued | Failed:
    try:
        reply = _json(answer.body)
    except Unreadable as why:
        return _bad_reply(f"D7's answer to the login {why}", 200)
    if not isinstance(reply, dict):
        return _bad_reply("D7's answer to the login is no JSON object", 200)
    token, kind = reply.get("access_token"), reply.get("token_type", "bearer")
    if not isinstance(token, str):
        return _bad_reply("D7's answer to the login has no access_token", 200)
    if not is_token(token):
        return _bad_reply("D7's access_token is empty, too large or has characters that fit no header line", 200)
    if not isinstance(kind, str) or kind.lower() != "bearer":
        return _bad_reply("D7's token_type is not bearer", 200)
    return Issued(access_token=Secret(token), date=date(answer.headers))


def _refused(status: int, detail: Detail, *, permanent: bool) -> Failed:
    said = f"{detail.code}: {detail.text}" if detail.code else detail.text
    message = f"D7 refused the login (HTTP {status}): {said}"
    return Failed(
        "refused",
        message,
        CREDENTIAL_HINT,
        permanent=permanent,
        unauthorized=status == 401,
        status=status,
        code=detail.code,
    )


def _transient(answer: Answer, detail: Detail | None, now: float, secrets: tuple[str, ...]) -> Failed:
    status = answer.status
    reason: Reason = "rate_limited" if status == 429 else "http_status"
    d7_speaks = status == 429 or status in TRANSIENT or status >= 500
    said = f": {detail.text}" if detail else ""
    if status == 429:
        message = f"D7 says that there are too many requests (HTTP 429){said}"
    elif 300 <= status < 400:
        message = f"a redirect came back (HTTP {status}), which is not followed: it must not receive the secret"
    else:
        message = f"the answer was HTTP {status}{said}" + ("" if detail else _kind(answer.headers, secrets))
    return Failed(
        reason,
        message,
        LATER_HINT if d7_speaks else PROXY_HINT,
        status=status,
        code=detail.code if detail else None,
        retry_after=retry_after(answer.headers, now) if d7_speaks else None,
    )


def _kind(headers: Mapping[str, str], secrets: tuple[str, ...]) -> str:
    kind = plain(headers.get("content-type", ""), *secrets).partition(";")[0][:40]
    return f" with {kind} where D7 sends JSON" if kind and "json" not in kind else ""


def _bad_reply(message: str, status: int) -> Failed:
    return Failed("bad_reply", message, PROXY_HINT, status=status)


def _detail(answer: Answer, secrets: tuple[str, ...]) -> Detail | None:
    """D7's detail in any of its three forms: an object with a code, FastAPI's list of faults, a plain string."""
    try:
        reply = _json(answer.body)
    except Unreadable:
        return None
    detail = reply.get("detail") if isinstance(reply, dict) else None
    if isinstance(detail, str) and detail:
        return Detail(plain(detail, *secrets))
    if isinstance(detail, list) and detail:
        return Detail(plain("; ".join(_fault(part) for part in detail[:5]), *secrets))
    if isinstance(detail, dict) and isinstance(code := detail.get("code"), str) and code:
        words = detail.get("message")
        return Detail(plain(words if isinstance(words, str) else "", *secrets) or "no message", plain(code, *secrets))
    return None


def _fault(part: Any) -> str:
    """One entry of FastAPI's list. Its `input` and `ctx` are left out: they repeat what was sent."""
    if not isinstance(part, dict):
        return "a fault without words"
    place = part.get("loc")
    where = ".".join(str(step) for step in place if isinstance(step, str | int)) if isinstance(place, list) else ""
    words = part.get("msg")
    return f"{where}: {words if isinstance(words, str) else 'not accepted'}"


def _json(body: bytes) -> Any:
    """The value of strict JSON (RFC 8259) without doubled keys. Raises Unreadable."""
    why: Literal["is empty", "is not UTF-8", "is no JSON", "is nested too deeply"] = "is no JSON"
    if not body.strip():
        raise Unreadable("is empty")
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except Unreadable:
        raise
    except UnicodeDecodeError:
        why = "is not UTF-8"
    except ValueError:
        why = "is no JSON"
    except RecursionError:
        why = "is nested too deeply"
    raise Unreadable(why)  # outside the handlers: no context, which would hold the body


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Unreadable("names a key twice")
    return made


def _no_constant(_: str) -> NoReturn:
    raise Unreadable("holds a number that JSON does not know")
