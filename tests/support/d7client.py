"""A plain HTTP client for the sandbox, with nothing of d7agent in it but the sandbox's own names."""

import http.client
import json
import socket
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from d7agent.sandbox import DEFAULT_ID, DEFAULT_SECRET, Sandbox

LOGIN = "/auth/v1/login/application"
BALANCE = "/messages/v1/balance"
FORM = {"client_id": DEFAULT_ID, "client_secret": DEFAULT_SECRET}
URLENCODED = "application/x-www-form-urlencoded"
BOUNDARY = "----fence"
BODY = urlencode(FORM)
RAW_LOGIN = f"POST {LOGIN} HTTP/1.1\r\nContent-Type: {URLENCODED}\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}".encode()


class Reply(NamedTuple):
    """One reply, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        """The body, a JSON object."""
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found

    @property
    def code(self) -> object:
        """D7's error code."""
        detail = self.json["detail"]
        assert isinstance(detail, dict)
        return detail["code"]

    @property
    def token(self) -> str:
        """The access token of a good login."""
        return str(self.json["access_token"])


def ask(
    box: Sandbox,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    limit: float = 10.0,
) -> Reply:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(box.url).netloc, timeout=limit)
    try:
        connection.request(method, path, body, dict(headers or {}))  # type: ignore[arg-type]
        response = connection.getresponse()
        return Reply(response.status, dict(response.headers), response.read())
    finally:
        connection.close()


def login(box: Sandbox, form: Mapping[str, str] = FORM, limit: float = 10.0) -> Reply:
    """A login as D7's Python sample sends it."""
    return ask(box, "POST", LOGIN, urlencode(form), {"Content-Type": URLENCODED}, limit)


def balance(box: Sandbox, token: str) -> Reply:
    """The cheapest call with a token."""
    return ask(box, "GET", BALANCE, headers={"Authorization": f"Bearer {token}"})


def multipart(form: Mapping[str, str]) -> bytes:
    """A form as multipart/form-data with BOUNDARY."""
    parts = (f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in form.items())
    return ("".join(parts) + f"--{BOUNDARY}--\r\n").encode()


def connect(box: Sandbox) -> socket.socket:
    """A bare TCP connection."""
    return socket.create_connection(("127.0.0.1", urlsplit(box.url).port or 0), timeout=10)


def raw_login(box: Sandbox) -> socket.socket:
    """A connection on which a login has been asked for and nothing read."""
    sock = connect(box)
    sock.sendall(RAW_LOGIN)
    return sock


def read_for(sock: socket.socket, seconds: float) -> bytes:
    """What has arrived once nothing more comes for so long (or the other side has closed)."""
    sock.settimeout(seconds)
    got = b""
    try:
        while more := sock.recv(65536):
            got += more
    except TimeoutError:
        pass
    return got
