"""D7 itself: the login that issues a token, and the balance that proves one."""

from typing import Final

from d7agent.core.clock import SystemClock
from d7agent.core.jobs import LOGIN_LIMIT, Failed, Proved
from d7agent.core.model import Secret
from d7agent.helper.address import base_url
from d7agent.helper.answers import Issued, sort_balance, sort_login
from d7agent.helper.faults import JobFault
from d7agent.helper.stores import Application

LOGIN: Final = "/auth/v1/login/application"
BALANCE: Final = "/messages/v1/balance"


def login(url: str, application: Application, limit: float = LOGIN_LIMIT) -> Issued:
    """Log in once with multipart/form-data, as D7's samples do. Raises JobFault, Invalid (base_url) among them."""
    base = base_url(url)
    from d7agent.helper.http import Request, exchange

    secret = application.client_secret
    fields = {"client_id": Secret(application.client_id), "client_secret": secret}
    answer = exchange(base, Request("POST", LOGIN, fields=fields), limit)
    verdict = sort_login(answer, SystemClock().now().wall, secret.reveal())
    if isinstance(verdict, Failed):
        raise JobFault(verdict)
    return verdict


def prove(url: str, token: Secret, limit: float = LOGIN_LIMIT) -> Proved:
    """Ask for the balance once with this token. Raises JobFault, Invalid (base_url) among them."""
    base = base_url(url)
    from d7agent.helper.http import Request, exchange

    answer = exchange(base, Request("GET", BALANCE, token=token), limit)
    verdict = sort_balance(answer, SystemClock().now().wall, token.reveal())
    if isinstance(verdict, Failed):
        raise JobFault(verdict)
    return verdict
