"""What D7 itself answers when all is well: login, balance, send and the message log."""

import json
import time
import uuid
from collections import deque
from datetime import UTC, datetime
from typing import Final

from d7agent.sandbox import answers
from d7agent.sandbox.answers import Answer
from d7agent.sandbox.ledger import Ledger, Verdict
from d7agent.sandbox.requests import Request
from d7agent.sandbox.settings import Settings

LOGIN: Final = "/auth/v1/login/application"
BALANCE: Final = "/messages/v1/balance"
SENDS: Final = ("/messages/v1/send", "/whatsapp/v2/send", "/viber/v1/send")
LOGS: Final = ("/report/v1/message-log/", "/report/v1/viber-log/", "/whatsapp/v2/report/")
KEPT: Final = 1_000  # messages
TEXTS: Final = {
    Verdict.EXPIRED: "Access token signature has expired",
    Verdict.BAD: "Access token signature verification failed",
}


class D7:
    """The service behind the HTTP: knows applications, tokens and the messages it was given (the last 1,000)."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.messages: deque[dict[str, object]] = deque(maxlen=KEPT)

    def known_id(self, request: Request, settings: Settings) -> str:
        """The client id of a login, or "" if nobody knows it: it may be a secret in the wrong field."""
        client_id = request.form.get("client_id", "")
        return client_id if client_id in settings.applications else ""

    def login(self, request: Request, settings: Settings) -> Answer:
        """The answer to a login."""
        if request.method != "POST":
            return answers.plain_detail(405)
        missing = [name for name in ("client_id", "client_secret") if not request.form.get(name)]
        if missing:
            return answers.invalid(*missing)
        client_id = self.known_id(request, settings)
        if not client_id or settings.applications[client_id] != request.form["client_secret"]:
            return answers.d7_error(404, "APPLICATION_NOT_EXISTS", "Application not exists")
        return answers.token_answer(self._ledger.login(client_id))

    def api(self, request: Request) -> Answer:
        """A call with a bearer token."""
        if not is_api(request.path):
            return answers.plain_detail(404)
        if request.method != ("POST" if request.path in SENDS else "GET"):
            return answers.plain_detail(405)
        verdict = self._ledger.judge(request.bearer)
        if verdict is not Verdict.GOOD:
            return answers.d7_error(401, verdict.value, TEXTS[verdict])
        if request.path == BALANCE:
            return answers.json_answer(200, {"balance": 99.99})
        return self._send(request) if request.path in SENDS else self._log(request.path.rpartition("/")[2])

    def _send(self, request: Request) -> Answer:
        try:
            message = json.loads(request.body)
        except (ValueError, RecursionError):
            return answers.plain_detail(400, "There was an error parsing the body")
        if not isinstance(message, dict) or not message.get("messages"):
            return answers.invalid("messages")
        request_id = str(uuid.uuid4())
        self.messages.append({"request_id": request_id, **message})
        created = datetime.fromtimestamp(time.time(), UTC).isoformat().replace("+00:00", "Z")
        return answers.json_answer(200, {"request_id": request_id, "status": "accepted", "created_at": created})

    def _log(self, request_id: str) -> Answer:
        known = any(message["request_id"] == request_id for message in list(self.messages))
        if not known:
            return answers.d7_error(404, "REQUEST_ID_NOT_EXISTS", "Request id not exists")
        return answers.json_answer(200, {"request_id": request_id, "status": "delivered"})


def is_api(path: str) -> bool:
    """Whether D7 has such an endpoint for bearers of a token."""
    return path == BALANCE or path in SENDS or path.startswith(LOGS)
