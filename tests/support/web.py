"""A web server that plays what the test says and notes what it was sent: D7's host with redirects, or a stranger's."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple, Self


class Seen(NamedTuple):
    """One request."""

    method: str
    path: str
    authorization: str | None
    body: bytes


class Page(NamedTuple):
    """One answer."""

    status: int = 200
    body: bytes = b"{}"
    location: str = ""


Play = Callable[[Seen], Page]


def refusal(code: str = "ACCESS_TOKEN_EXPIRED", status: int = 401) -> Page:
    """D7's JSON of an error."""
    return Page(status, json.dumps({"detail": {"code": code, "message": "whatever it says"}}).encode())


REFUSED: Final = refusal()


class Web:
    """Serves on a free loopback port while in `with`. `seen`: the requests in order."""

    def __init__(self, play: Play = lambda _: Page()) -> None:
        self.play = play
        self.seen: list[Seen] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def tokens(self) -> list[str | None]:
        """The Authorization headers, in order."""
        return [seen.authorization for seen in self.seen]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(web: "Web") -> type[BaseHTTPRequestHandler]:  # noqa: N805  `self` is the request below
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                seen = Seen(self.command, self.path, self.headers.get("Authorization"), _body(self))
                web.seen.append(seen)
                page = web.play(seen)
                self.send_response(page.status)
                self.send_header("Content-Length", str(len(page.body)))
                if page.location:
                    self.send_header("Location", page.location)
                self.end_headers()
                self.wfile.write(page.body)

            do_GET = do_POST = answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                """Nothing to stderr."""

        return Handler


def _body(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Transfer-Encoding") != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length", 0)))
    body = b""
    while size := int(request.rfile.readline(), 16):
        body += request.rfile.read(size)
        request.rfile.readline()
    request.rfile.readline()
    return body
