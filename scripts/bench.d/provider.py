"""An OpenID provider, as much of it as oidc-agent asks for: discovery, and a token endpoint that can hang."""

import base64
import itertools
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Self

LIFETIME: Final = 3600  # seconds
ENDPOINTS: Final = ("authorization", "token", "userinfo", "revocation", "registration", "device_authorization")


def _part(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


class Provider:
    """Serves on a loopback port from `with` to its end. Without `going_on` set the token endpoint answers nobody."""

    def __init__(self) -> None:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._reply(provider.discovery() if "well-known" in self.path else {})

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                provider.going_on.wait()
                self._reply(provider.token() if self.path == "/token" else {})

            def _reply(self, content: object) -> None:
                body = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url: Final = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.going_on = threading.Event()
        self.going_on.set()
        self._serial = itertools.count()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.going_on.set()
        self._server.shutdown()
        self._server.server_close()

    def discovery(self) -> dict[str, object]:
        """/.well-known/openid-configuration."""
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/jwks",
            "scopes_supported": ["openid", "profile", "offline_access"],
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            **{f"{name}_endpoint": f"{self.url}/{name}" for name in ENDPOINTS},
        }

    def token(self) -> dict[str, object]:
        """A token nobody has had yet. The refresh token stays: a new one would cost oidc-agent 250 ms."""
        now = int(time.time())
        claims = {"iss": self.url, "sub": "u", "n": next(self._serial), "iat": now, "exp": now + LIFETIME}
        token = f"{_part({'alg': 'none'})}.{_part(claims)}.sig"
        named = {"access_token": token, "id_token": token, "refresh_token": "rt-0"}  # made up  # nosec B105
        named |= {"token_type": "Bearer"}  # the type's name, no secret  # nosec B105
        return {**named, "expires_in": LIFETIME, "scope": "openid profile offline_access"}
