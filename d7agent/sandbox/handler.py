"""From a request to an answer: D7's own, or a fault's where one is set; counted, and logins logged."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from d7agent.sandbox import control
from d7agent.sandbox.answers import Answer
from d7agent.sandbox.d7 import BALANCE, D7, LOGIN, SENDS, is_api
from d7agent.sandbox.faults import Fault, Play
from d7agent.sandbox.requests import Request


class Handler:
    """Answers the requests to one sandbox. `log` gets a line for each login, without secrets."""

    def __init__(self, box: control.Controlled, d7: D7, url: str, log: Callable[[str], None]) -> None:
        self._box = box
        self._d7 = d7
        self._url = url
        self._log = log

    @contextmanager
    def exchange(self, request: Request) -> Iterator[Answer]:
        """What to say; the request counts as open until the block is left."""
        if request.path.startswith(control.PREFIX):
            yield control.control(self._box, request)
            return
        self._arrived(request)
        try:
            yield self._login(request) if request.path == LOGIN else self._api(request)
        finally:
            self._done(request)

    def _login(self, request: Request) -> Answer:
        settings = self._box.settings
        client_id = self._d7.known_id(request, settings)
        answer, fault = self._play("login", client_id, lambda: self._d7.login(request, settings))
        with self._box.recorder.change() as stats:
            stats.logins_ok += _good(answer)
            stats.logins_failed += not _good(answer)
            number = stats.logins
        played = f" fault={fault.kind.name}" if fault else ""
        self._log(f"login {number}: {answer.status} client_id={client_id or 'unknown'}{played}")
        return answer

    def _api(self, request: Request) -> Answer:
        if not is_api(request.path):
            return self._d7.api(request)
        answer, _ = self._play("api", "", lambda: self._d7.api(request))
        with self._box.recorder.change() as stats:
            stats.api_refused += answer.status == 401
        return answer

    def _play(self, target: str, client_id: str, healthy: Callable[[], Answer]) -> tuple[Answer, Fault | None]:
        fault = self._box.faults.take(target)
        if fault is None:
            return healthy(), None
        with self._box.recorder.change() as stats:
            stats.count(stats.faults, fault.kind.name)
        play = Play(healthy, fault.options, partial(self._box.ledger.mint, client_id), self._url, time.time())
        if fault.kind.token and play.answer.status != 200:
            return play.answer, fault
        return fault.kind.play(play), fault

    def _arrived(self, request: Request) -> None:
        with self._box.recorder.change() as stats:
            stats.requests += 1
            stats.open_requests += 1
            stats.count(stats.paths, f"{request.method} {request.path}")
            stats.saw(stats.user_agents, request.headers.get("user-agent", ""))
            stats.saw(stats.content_types, request.content_type)
            stats.balances += request.path == BALANCE
            stats.sends += request.path in SENDS
            if request.path == LOGIN:
                stats.login_came(time.time())

    def _done(self, request: Request) -> None:
        with self._box.recorder.change() as stats:
            stats.open_requests -= 1
            stats.open_logins -= request.path == LOGIN


def _good(answer: Answer) -> bool:
    whole = not answer.cut and answer.keep is None and math.inf not in answer.delays
    return answer.status == 200 and whole
