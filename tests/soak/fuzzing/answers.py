"""What D7 (or a proxy before it) answers, and what helper, store and agent read: any bytes, sorted, never raising.

An input is text: a first line that says whose it is (an HTTP status, `token`, `reply`, `item`), header lines, an empty
line, the body.
"""

import base64
import math
from collections.abc import Callable
from typing import Final

import msgspec

from d7agent.core import claims, jobs
from d7agent.core.jobs import Failed, Proved, Target
from d7agent.core.model import Grant, Secret, Stamp
from d7agent.core.schedule import RETRY_AFTER_CAP
from d7agent.helper import answers, remember
from d7agent.helper.answers import PERMANENT, Answer, Issued
from d7agent.helper.clean import is_token
from d7agent.helper.stores import Application
from tests.soak.broken import need

NOW: Final = 1_790_000_000.0  # unix seconds
STAMP: Final = Stamp(boot=1000.0, wall=NOW, boot_id="boot")
SECRET: Final = "s3cret-of-the-application"  # the fuzzer's dictionary has it: proxies repeat what they were sent
MOST_HEADERS: Final = 6
LONGEST: Final = 1000  # characters of a message: a line of the journal
TARGET: Final = Target(profile="p", store="directory:/x")
APPLICATION: Final = Application(client_id="id", client_secret=Secret(SECRET))

FIELDS: Final = (
    *('"access_token":"a.b",', '"access_token":"",', '"token_type":"BEARER",', '"token_type":null,', '"detail":"x",'),
    *('"detail":{"code":"ACCESS_TOKEN_X","message":"m"},', '"detail":[{"loc":["a",1],"msg":"m"}],', '"code":"C",'),
    *(
        '"exp":1790000100,',
        '"exp":1e14,',
        '"exp":"1",',
        '"iat":1790000000.5,',
        '"iat":-1e16,',
        '"aud":"auth-backend:app",',
    ),
    *('"reply":"done",', '"reply":"proved",', '"works":true,', '"status":401,', '"reason":"budget",', '"date":1e308,'),
    *(f'"message":"{SECRET}",', '"message":"\\u2028\\ud800",', '"x":[[{}]],', '"kept":["x"],', '"v":1,'),
)
LINES: Final = (
    *("retry-after: 99999999999\n", "retry-after: 1.5\n", "retry-after: Fri, 31 Dec 9999 23:59:59 GMT\n"),
    *("date: Mon, 21 Sep 2026 13:33:20 GMT\n", "date: Mon, 21 Sep 2026 13:33:20 -9999\n", "date: 1 Jan 1 0:0\n"),
    *("content-type: text/html\n", f"content-type: {SECRET}\n", "\n"),
)

Sort = Callable[..., Issued | Failed]


class Answers:
    """The target. `sort_login` can be another, to see that a broken one is found."""

    starts, parts = b"{,\n", tuple(part.encode() for part in (*FIELDS, *LINES))

    def __init__(self, sort_login: Sort = answers.sort_login) -> None:
        self._sort_login = sort_login

    def __call__(self, data: bytes) -> None:
        """One input. Raises Broken, or whatever comes out that should not."""
        head, _, body = data.partition(b"\n\n")
        first, *lines = head.decode("latin-1").split("\n")[: MOST_HEADERS + 1]
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if first == "token":
            _grant(f"e30.{base64.urlsafe_b64encode(body).decode().rstrip('=')}.sig", answers.date(headers))
        elif first == "reply":
            _reply(body)
        elif first == "item":
            _item(body)
        elif first.isascii() and first.isdigit():
            self._answer(Answer(int(first[:3]), headers, body))
        else:
            _grant(data.decode("latin-1"), None)

    def _answer(self, answer: Answer) -> None:
        found = self._sort_login(answer, NOW, SECRET)
        if isinstance(found, Issued):
            need(answer.status == 200, "a token out of a failure")
            need(is_token(found.access_token.reveal()), "a token that fits no header line")
            _grant(found.access_token.reveal(), found.date)
        else:
            _failed(found, answer)
            need(not found.permanent or answer.status in PERMANENT, "a passing failure is taken for a final one")
        proof = answers.sort_balance(answer, NOW, SECRET)
        if isinstance(proof, Proved):
            need(proof.works == (answer.status == 200), "a failure is taken for a proof")
            need(not proof.refused or answer.status == 401, "a token is called dead that was not refused")
            _survives(proof)
        else:
            _failed(proof, answer)


def _failed(found: Failed, answer: Answer) -> None:
    shown = f"{found.message} {found.hint} {found.code}"
    need(shown.isprintable() and len(shown) <= LONGEST, f"no line for a journal: {shown!r}")
    need(SECRET not in shown, "the secret is in a message")
    need(found.status == answer.status, "the status is another")
    wait = found.retry_after
    need(wait is None or 0 <= wait <= RETRY_AFTER_CAP, f"Retry-After of {wait} s")
    _survives(found)


def _survives(reply: jobs.Reply) -> None:
    need(jobs.decode_reply(jobs.encode(reply)) == reply, "the agent reads another reply than the helper wrote")


def _grant(token: str, date: float | None) -> Grant | None:
    told = claims.read_claims(token)
    need(all(time is None or math.isfinite(time) for time in (told.exp, told.iat)), "a claim that is no number")
    try:
        made = claims.grant(Secret(token), STAMP, date=date)
    except claims.ExpiredOnArrival:
        return None
    ends = made.expires
    need((ends is None) == (told.exp is None), "an end out of nothing, or none where one is named")
    need(ends is None or ends <= STAMP.boot + claims.FAR, "a token that lives for ever")
    need(made.lifetime is None or 0 < made.lifetime <= claims.FAR, "a lifetime that is none")
    return made


def _reply(body: bytes) -> None:
    try:
        found = jobs.decode_reply(body)
    except msgspec.DecodeError:
        return
    need(isinstance(found, jobs.Reply), "a reply that is none")


def _item(body: bytes) -> None:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return
    found = remember.recalled(text, TARGET, APPLICATION)
    need(found is None or is_token(found.access_token.reveal()), "a remembered token that fits no header line")


one_input = Answers()
