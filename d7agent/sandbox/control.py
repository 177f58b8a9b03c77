"""The sandbox's own endpoints under /sandbox/: faults, stats, revocation and settings while it runs."""

import json
from typing import Final, Protocol

from d7agent.sandbox import answers
from d7agent.sandbox.answers import Answer
from d7agent.sandbox.faults import FAULTS, Faults
from d7agent.sandbox.ledger import Ledger
from d7agent.sandbox.requests import Request
from d7agent.sandbox.settings import SandboxError, Settings
from d7agent.sandbox.stats import Recorder

PREFIX: Final = "/sandbox/"
ELSEWHERE: Final = "/sandbox/elsewhere"


class Controlled(Protocol):
    """What a request can read and change of its sandbox."""

    faults: Faults
    ledger: Ledger
    recorder: Recorder
    settings: Settings

    def configure(self, **changes: object) -> None:
        """Changes settings."""


def control(box: Controlled, request: Request) -> Answer:
    """Answers a request under /sandbox/: 200 with JSON, or 400 with `message` and `hint`."""
    if request.path == ELSEWHERE:
        return _elsewhere(box)
    try:
        return _act(box, f"{request.method} {request.path}", request.body)
    except SandboxError as error:
        return answers.json_answer(400, {"message": error.message, "hint": error.hint})


def _act(box: Controlled, call: str, body: bytes) -> Answer:
    match call:
        case "GET /sandbox/stats":
            return answers.json_answer(200, box.recorder.snapshot().as_dict())
        case "DELETE /sandbox/stats":
            box.recorder.reset()
        case "GET /sandbox/faults":
            active = [fault.as_dict() for fault in box.faults.active()]
            return answers.json_answer(200, {"active": active, "known": {k.name: k.about for k in FAULTS.values()}})
        case "POST /sandbox/faults":
            _add_fault(box, _json(body))
        case "DELETE /sandbox/faults":
            box.faults.clear()
        case "POST /sandbox/revoke":
            _revoke(box, _json(body or b"{}"))
        case "POST /sandbox/config":
            box.configure(**_json(body))
        case _:
            return answers.plain_detail(404)
    return answers.json_answer(200, {"ok": True})


def _add_fault(box: Controlled, given: dict[str, object]) -> None:
    spec = given.pop("spec", None) or given.pop("name", "")
    box.faults.add(str(spec), **given)


def _revoke(box: Controlled, given: dict[str, object]) -> None:
    token = given.get("token")
    if isinstance(token, str):
        box.ledger.revoke(token)
    elif given:
        raise SandboxError("sandbox: cannot revoke that", 'send {"token": "…"} for one, nothing for all')
    else:
        box.ledger.revoke_all()


def _elsewhere(box: Controlled) -> Answer:
    """Where the fault `redirect` leads: whoever comes here followed it."""
    with box.recorder.change() as stats:
        stats.redirects_followed += 1
    return answers.token_answer("followed-a-redirect")


def _json(body: bytes) -> dict[str, object]:
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise SandboxError("sandbox: the body is no JSON object", "send one, with Content-Type: application/json")
    return given
