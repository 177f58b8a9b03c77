"""What the sandbox says, before it is known how: status, headers, body, and how fast and how far it is sent."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal

JSON_TYPE: Final = "application/json"
HTML_TYPE: Final = "text/html; charset=utf-8"
NOW: Final = "now"

Body = bytes | Callable[[], Iterator[bytes]]
Cut = Literal["", "close", "reset"]


@dataclass(frozen=True)
class Answer:
    """One reply. `delays` are seconds (inf: for ever) before the status line, within the headers and before the body.

    `body` is bytes, or makes the pieces when it is sent; `length` announces its size where it is not bytes. `rate`
    limits bytes per second, head included. `keep` sends only so many bytes of the body and closes. `cut` closes (or
    resets) without a byte. `date` is the Date header: "now", another text, or None for no such header.
    """

    status: int
    body: Body = b""
    content_type: str = JSON_TYPE
    headers: tuple[tuple[str, str], ...] = ()
    length: int | None = None
    delays: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rate: float | None = None
    keep: int | None = None
    cut: Cut = ""
    date: str | None = NOW


def json_answer(status: int, value: object, *headers: tuple[str, str]) -> Answer:
    """A JSON reply."""
    return Answer(status, json.dumps(value).encode(), headers=headers)


def d7_error(status: int, code: str, message: str) -> Answer:
    """An error in D7's usual shape: `detail` with `code` and `message`."""
    return json_answer(status, {"detail": {"code": code, "message": message}})


def html(status: int, text: str, *headers: tuple[str, str]) -> Answer:
    """A page as proxies and load balancers send it."""
    title = f"{status} {reason(status)}"
    page = f"<html><head><title>{title}</title></head><body><h1>{title}</h1><p>{text}</p></body></html>\n"
    return Answer(status, page.encode(), HTML_TYPE, headers)


def invalid(*fields: str, where: str = "body", status: int = 422) -> Answer:
    """FastAPI's list, with its own status or another: these fields are missing."""
    entries = [{"loc": [where, name], "msg": "field required", "type": "value_error.missing"} for name in fields]
    return json_answer(status, {"detail": entries})


def plain_detail(status: int, text: str = "") -> Answer:
    """An error whose `detail` is a plain string, as FastAPI's own errors have it."""
    return json_answer(status, {"detail": text or reason(status)})


def token_answer(token: object) -> Answer:
    """The reply to a good login."""
    return json_answer(200, {"access_token": token, "token_type": "bearer"})  # the type's name, no secret  # nosec B105


def reason(status: int) -> str:
    """The standard phrase of a status, or "Unknown"."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
