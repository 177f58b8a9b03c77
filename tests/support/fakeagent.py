"""A Varlink agent in a thread whose every answer the test scripts; as a module, one that runs under another uid."""

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final, Self

ACCESS_TOKEN: Final = "eyJhbGciOiJIUzI1NiJ9.eyJhdWQiOiJhdXRoLWJhY2tlbmQ6YXBwIn0.c2lnbmF0dXJl-_"
SECOND_TOKEN: Final = "eyJhbGciOiJIUzI1NiJ9.eyJhdWQiOiJhdXRoLWJhY2tlbmQ6YXBwIn0.b3RoZXI"

CLOSE: Final = b""  # an answer: hang up
SILENCE: Final = None  # an answer: none, ever

Answer = dict[str, Any] | bytes | None
Answers = Answer | Iterable[Answer]
Script = Answers | Callable[[dict[str, Any]], Answers]


def token(access_token: str = ACCESS_TOKEN, **more: Any) -> dict[str, Any]:
    """The reply of GetToken, its fields in the order in which the agent sends them."""
    fields = {
        "profile": "default",
        "access_token": access_token,
        "token_type": "bearer",
        "header": f"Bearer {access_token}",
        "serial": 1,
        "state": "fresh",
        "valid_for": 3540,
    }
    return {"parameters": {"token": fields | more}}


def profile(**more: Any) -> dict[str, Any]:
    """A ProfileStatus."""
    return {
        "profile": "default",
        "base_url": "https://api.d7networks.com",
        "store": "keyring:keyring.backends.SecretService.Keyring",
        "state": "fresh",
        "serial": 3,
        "failures": 0,
        "logins_hour": 1,
        "budget_left": 29,
        "remembered": True,
        "unchanged": False,
        "subscribers": 0,
        "sinks": [],
    } | more


def about(**more: Any) -> dict[str, Any]:
    """An AgentStatus. No process has its pid, so nobody waits for that to end."""
    return {
        "version": "0.1.0",
        "protocol": 1,
        "pid": 2**22 + 1,
        "started_at": 1_790_000_000,
        "locked": False,
        "config_problems": [],
        "connections": 1,
        "callers": [],
        "memory": "locked in memory",
        "systemd": False,
        "default_profile": "default",
        "hooks": [],
    } | more


def status(*profiles: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The reply of GetStatus: the profiles, or one that is well; `more` is of the agent."""
    return {"parameters": {"agent": about(**more), "profiles": list(profiles) or [profile()]}}


def error(name: str, message: str = "it went wrong", hint: str = "do better", **fields: Any) -> dict[str, Any]:
    """An error reply; a bare name is one of io.d7agent's."""
    full = name if "." in name else f"io.d7agent.{name}"
    return {"error": full, "parameters": {"message": message, "hint": hint} | fields}


DEFAULTS: Final[dict[str, Script]] = {
    "GetToken": token(),
    "RejectToken": token(SECOND_TOKEN, serial=2),
    "RenewToken": token(SECOND_TOKEN, serial=2),
    "GetStatus": status(),
    "StoreCredential": {"parameters": {"profile": profile(valid_for=3540)}},
    "ForgetCredential": {"parameters": {"kept": []}},
    "Lock": {},
    "Unlock": {},
    "Reload": {"parameters": {"problems": []}},
    "Shutdown": {},
}


class FakeAgent:
    """Answers each method with what its script says: a reply, raw bytes, CLOSE, SILENCE, or several of them.

    `requests` are the calls as they came, `connections` their number. Use it with `with`.
    """

    def __init__(self, path: str | os.PathLike[str], **scripts: Script) -> None:
        self.path = os.fspath(path)
        self.scripts = {**DEFAULTS, **scripts}
        self.requests: list[dict[str, Any]] = []
        self.received = bytearray()
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._threads: list[threading.Thread] = []
        self._called = threading.Condition()

    def __enter__(self) -> Self:
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        self._listener.bind(self.path)
        self._listener.listen(128)
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def hang_up(self) -> None:
        """Close every connection, as an agent that ends does."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def asked(self, method: str) -> list[dict[str, Any]]:
        """The parameters of every call of this method."""
        return [call.get("parameters", {}) for call in self.requests if call["method"] == f"io.d7agent.{method}"]

    def wait_for_calls(self, count: int) -> None:
        """Wait until so many calls have come."""
        with self._called:
            assert self._called.wait_for(lambda: len(self.requests) >= count, 30), f"{len(self.requests)} calls came"

    def _run(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(connection)
            self._run(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        waiting = b""
        with connection, contextlib.suppress(OSError):
            while piece := connection.recv(65536):
                self.received += piece
                *whole, waiting = (waiting + piece).split(b"\0")
                for request in whole:
                    call = json.loads(request)
                    with self._called:
                        self.requests.append(call)
                        self._called.notify_all()
                    if not self._answer(connection, call):
                        self._open.discard(connection)
                        return
        self._open.discard(connection)

    def _answer(self, connection: socket.socket, call: dict[str, Any]) -> bool:
        script = self.scripts.get(call["method"].rpartition(".")[2])
        if callable(script):
            script = script(call.get("parameters", {}))
        for answer in script if isinstance(script, Iterable) and not isinstance(script, bytes | dict) else [script]:
            if answer == CLOSE:
                return False
            if answer is not SILENCE:
                data = answer if isinstance(answer, bytes) else encode(answer)
                connection.sendall(data)
        return True


def encode(reply: dict[str, Any]) -> bytes:
    """The bytes of a reply as the agent's encoder makes them: no blanks, nothing escaped that need not be."""
    return json.dumps(reply, separators=(",", ":"), ensure_ascii=False).encode() + b"\0"


def main() -> None:
    """Be an agent of this uid at this path: `python -m tests.support.fakeagent PATH UID RECORD`; ends with its stdin.

    Prints a line when it listens. RECORD gets the bytes that were sent to it.
    """
    path, uid, record = sys.argv[1:]
    agent = FakeAgent(path)
    with open(record, "wb") as received:
        agent._listener.bind(path)
        os.chmod(path, 0o777)
        os.setresuid(int(uid), int(uid), int(uid))  # SO_PEERCRED tells who called listen(2)
        agent._listener.listen(8)
        agent._run(agent._accept)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.read()
        received.write(agent.received)


if __name__ == "__main__":
    main()
