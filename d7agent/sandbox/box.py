"""The sandbox as a whole: for tests and demos in this process, and for the command."""

import signal
import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Final, Self

from d7agent.sandbox.d7 import D7
from d7agent.sandbox.faults import Faults
from d7agent.sandbox.handler import Handler
from d7agent.sandbox.ledger import Ledger
from d7agent.sandbox.server import Server
from d7agent.sandbox.settings import SandboxError, Settings
from d7agent.sandbox.stats import Recorder, Stats
from d7agent.sandbox.tls import server_context

BACKLOG: Final = 1_024
ENDING: Final = (signal.SIGINT, signal.SIGTERM)


def _silent(line: str) -> None:
    """The log of those who want none."""


class Sandbox:
    """An embedded D7 on a loopback port, serving from `start` (or `with`) to `stop`.

    It may be started again after a stop: same port, CA, tokens, faults and counts. Leaving the `with` block removes a
    temporary folder of certificates. `faults.add("rate-limited", times=2)`
    sets a fault. `messages` are those that were sent. `log` gets a line for each login, without secrets. Every method
    may be called from any thread.
    """

    def __init__(self, settings: Settings | None = None, log: Callable[[str], None] = _silent) -> None:
        self.settings = settings or Settings()
        self.faults = Faults()
        self.ledger = Ledger(lambda: self.settings)
        self.recorder = Recorder()
        self.ca_file: Path | None = None
        self._d7 = D7(self.ledger)
        self._log = log
        self._port = self.settings.port
        self._server: Server | None = None
        self._temporary = ExitStack()
        for spec in self.settings.faults:
            self.faults.add(spec)

    def start(self) -> Self:
        """Begins to serve. SandboxError if the port is taken or certificates cannot be made."""
        context = self._certificates() if self.settings.tls else None
        listener = self._listen()
        self._port = listener.getsockname()[1]
        self._server = Server(listener, context, Handler(self, self._d7, self.url, self._log), self.recorder)
        self._server.start()
        return self

    def stop(self) -> None:
        """Ends at once, whatever requests hang. From now on connections are refused."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._temporary.close()

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        scheme, host = "https" if self.settings.tls else "http", self.settings.address
        return f"{scheme}://[{host}]:{self._port}" if ":" in host else f"{scheme}://{host}:{self._port}"

    @property
    def stats(self) -> Stats:
        """What was seen so far, as a copy."""
        return self.recorder.snapshot()

    @property
    def messages(self) -> list[dict[str, object]]:
        """The bodies of the last 1,000 accepted sends, each with its `request_id`."""
        return list(self._d7.messages)

    def wait_for(self, condition: Callable[[Stats], bool], timeout: float = 10.0) -> Stats:
        """Waits until `condition` holds; returns the stats as they were then. TimeoutError after `timeout` seconds."""
        return self.recorder.wait_for(condition, timeout)

    def configure(self, **changes: object) -> None:
        """Changes settings for what is asked from now on. SandboxError on a fixed or unknown one or a bad value."""
        self.settings = self.settings.changed(changes)

    def clear(self) -> None:
        """Removes all faults; requests that hang go on hanging."""
        self.faults.clear()

    def reset_stats(self) -> None:
        """All counts to nil."""
        self.recorder.reset()

    def revoke(self, token: str) -> None:
        """From now on this token is refused."""
        self.ledger.revoke(token)

    def revoke_all(self) -> None:
        """From now on every token issued so far is refused, the ready-made one included."""
        self.ledger.revoke_all()

    def drop_connections(self) -> None:
        """Ends every open connection, hanging ones included, and serves on."""
        if self._server is not None:
            self._server.drop()

    def _listen(self) -> socket.socket:
        host = self.settings.address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            return socket.create_server((host, self._port), family=family, backlog=BACKLOG)
        except OSError as error:
            hint = "choose another port, or 0 for any free one"
            raise SandboxError(f"sandbox: cannot listen on {host} port {self._port}: {error.strerror}", hint) from None

    def _certificates(self) -> ssl.SSLContext:
        if self.settings.tls_dir:
            folder = Path(self.settings.tls_dir).absolute()
        elif self.ca_file is not None and self.ca_file.exists():
            folder = self.ca_file.parent
        else:
            folder = Path(self._temporary.enter_context(TemporaryDirectory(prefix="d7agent-sandbox-")))
        context, self.ca_file = server_context(folder, self.settings.certificate)
        return context


def run(settings: Settings, out: Callable[[str], None], log: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM. The first line to `out` is the URL, then come `name=value` lines for clients.

    To be called in the main thread. SandboxError if it cannot start.
    """
    # Blocked before the serving thread starts, so that only sigwait gets them.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    with Sandbox(settings, log) as box:
        out("\n".join(_hints(box)))
        signal.sigwait(ENDING)


def _hints(box: Sandbox) -> list[str]:
    lines = [box.url]
    for client_id, secret in box.settings.applications.items():
        lines += [f"client_id={client_id}", f"client_secret={secret}"]
    if box.settings.ready_token:
        lines.append(f"ready_token={box.settings.ready_token}")
    return [*lines, f"SSL_CERT_FILE={box.ca_file}"] if box.ca_file else lines
