"""Ask the d7agent for a token, from any Python program. One file, standard library only: copy it beside a script.

    import blocking as d7agent        # or, with the package installed: import d7agent
    requests.get(url, headers=d7agent.header())

Every call has a time limit, and the server's uid (SO_PEERCRED) is checked before a byte is sent: own, root or d7agent.
"""

import json
import os
import pwd
import socket as sockets
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Self

INTERFACE = "io.d7agent"
SYSTEM_SOCKET = "/run/d7agent/agent.sock"
SYSTEM_USER = "d7agent"
ANYBODY = 65534  # stands for every uid that a user namespace does not map: a server's, and our own as well
MAX_WAIT = 30  # seconds the agent waits for a token when the caller does not say
MARGIN = 5.0  # seconds beyond max_wait: the way there and back on a loaded machine
BUSY = "it may be stopped or overloaded: try again, or see what its log says"
Name = str | None
Seconds = int | None
MAX_REPLY = 8 * 1024 * 1024  # bytes; the status of 1,000 profiles with their sinks is 1 MB


class AgentError(Exception):
    """No answer, or an error for one. `message` says what happened, `hint` what to do next.

    `exit_code` is what the d7agent command exits with; `fields` holds further parameters of the wire error.
    """

    exit_code, advice = 1, "`d7agent status` shows how the agent does"

    def __init__(self, message: str, hint: str = "", fields: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.advice
        self.fields = dict(fields or {})


class NoAgent(AgentError):
    """Nobody answers on the socket, not in time, or not to the end. Field: `busy`, if somebody listens all the same."""

    exit_code, advice = 3, "start one with `d7agent start`, or with systemd: `systemctl --user start d7agent.socket`"


class NoSuchProfile(AgentError):
    """The agent has no profile of that name."""

    exit_code, advice = 4, "`d7agent status` lists the profiles, `d7agent login NAME` makes one"


class NoCredential(AgentError):
    """The profile's store holds no credential."""

    exit_code, advice = 4, "store one with `d7agent login`"


class CredentialRejected(AgentError):
    """D7 refuses the credential or the token for good. Field: `code`, D7's own."""

    exit_code, advice = 5, "store a valid credential with `d7agent login`"


class TokenUnavailable(AgentError):
    """No token for now. Fields: `reason`, `retry_after` (seconds)."""

    exit_code, advice = 6, "try again later; `d7agent status` shows the cause"


class BudgetSpent(AgentError):
    """The profile's login budget is used up. Field: `retry_after` (seconds)."""

    exit_code, advice = 6, "try again later; `d7agent status` shows the logins of the last hour"


class Locked(AgentError):
    """The agent is locked by a passphrase."""

    exit_code, advice = 7, "unlock it with `d7agent unlock`"


class PermissionDenied(AgentError):
    """The agent does not serve this user, or its socket belongs to someone we do not trust."""

    exit_code, advice = 8, "a system agent serves the users named in [access] of /etc/d7agent/config.toml"


class StoreUnavailable(AgentError):
    """The store cannot be read or written now. Field: `reason`."""

    exit_code, advice = 9, "unlock the keyring or mend the store, then try again"


class InvalidParameter(AgentError):
    """The agent refuses a parameter. Field: `parameter`, its name."""

    exit_code, advice = 2, "`d7agent --help` shows what is allowed"


def token(profile: Name = None, *, min_validity: Seconds = None, max_wait: Seconds = None, socket: Name = None) -> str:
    """An access token good for `min_validity` seconds or more, waited for up to `max_wait` (30). Raises AgentError."""
    with Agent(socket) as agent:
        return agent.token(profile, min_validity=min_validity, max_wait=max_wait)


def header(
    profile: Name = None, *, min_validity: Seconds = None, max_wait: Seconds = None, socket: Name = None
) -> dict[str, str]:
    """The header of an API call, `{"Authorization": "Bearer …"}`; parameters and errors as in `token`."""
    with Agent(socket) as agent:
        return {"Authorization": agent.get(profile, min_validity=min_validity, max_wait=max_wait)["header"]}


def fingerprint(access_token: str) -> str:
    """SHA-256 of the token, 64 hex digits: names it without giving it away."""
    import hashlib  # OpenSSL takes longer to load than all the rest

    return hashlib.sha256(access_token.encode()).hexdigest()


class Agent:
    """The agent behind `path`, else the first that accepts a connection: $D7AGENT_SOCK, the user's, the system's.

    The connection is kept from call to call, made anew after a fork and when the agent was restarted. Thread-safe.
    `timeout` is the limit of a call in seconds, unless it has a `max_wait`. Use it with `with`, or `close()` it.
    """

    _link: "_Link | None"

    def __init__(self, path: str | None = None, timeout: float = MAX_WAIT + MARGIN) -> None:
        self.path = path
        self.timeout = timeout
        self._start_anew()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def token(self, profile: Name = None, *, min_validity: Seconds = None, max_wait: Seconds = None) -> str:
        """The access token alone; see `get`."""
        return str(self.get(profile, min_validity=min_validity, max_wait=max_wait)["access_token"])

    def get(self, profile: Name = None, *, min_validity: Seconds = None, max_wait: Seconds = None) -> dict[str, Any]:
        """GetToken: the whole Token (access_token, header, valid_for, serial, state, …). Raises AgentError."""
        params = {"profile": profile, "min_validity": min_validity, "max_wait": max_wait}
        return token_of(self.call("GetToken", params))

    def reject(self, access_token: str, profile: Name = None, *, max_wait: Seconds = None) -> str:
        """Tell that D7 refused this token (only its fingerprint is sent); a better token. Raises AgentError."""
        params = {"fingerprint": fingerprint(access_token), "profile": profile, "max_wait": max_wait}
        return str(token_of(self.call("RejectToken", params))["access_token"])

    def status(self, profile: Name = None) -> dict[str, Any]:
        """GetStatus: `agent` and `profiles`. Raises AgentError."""
        return dict(self.call("GetStatus", {"profile": profile}))

    def stream(self, profile: Name = None) -> Iterator[dict[str, Any]]:
        """The Token now, then every newer one. Ends only by an AgentError; NoAgent when the agent goes."""
        return map(token_of, self.call("GetToken", {"profile": profile}, more=True))

    def call(
        self, method: str, params: Mapping[str, Any] | None = None, more: bool = False, timeout: float | None = None
    ) -> Any:
        """Call a method of io.d7agent (or any other, by its full name): the reply's parameters. Raises AgentError.

        Parameters that are None are left out. With `more`: an iterator over the replies, on a connection of its own;
        the first comes within the limit, the later ones whenever they come. `timeout` in seconds.
        """
        given = {name: value for name, value in (params or {}).items() if value is not None}
        full = method if "." in method else f"{INTERFACE}.{method}"
        message = {"method": full, "parameters": given} | ({"more": True} if more else {})
        request = json.dumps(message, separators=(",", ":")).encode() + b"\0"
        limit = timeout or (given["max_wait"] + MARGIN if "max_wait" in given else self.timeout)
        if more:
            return _stream(self.path, request, limit)
        if self._pid != os.getpid():
            self._start_anew()
        with self._lock:
            try:
                link = self._connected()
                link.allow(limit)
                link.send(request)
                reply = link.receive()
            except BaseException:
                self.close()  # whatever comes on this connection now belongs to a call that was given up
                raise
        return parse_reply(reply)

    def connect(self) -> str:
        """Connect now unless connected: the path of the socket in use. Raises NoAgent or PermissionDenied."""
        return self._connected().path

    def _connected(self) -> "_Link":
        if self._link is not None and not self._link.idle():
            self.close()
        if self._link is None:
            self._link = _Link(self.path, self.timeout)
        return self._link

    def close(self) -> None:
        """Close the connection; the next call opens one again."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _start_anew(self) -> None:
        self._link = None
        self._lock = threading.Lock()
        self._pid = os.getpid()


def candidates(path: str | None = None) -> list[str]:
    """The sockets to try, best first. One that is named is the only one."""
    if path:
        return [path]
    runtime, home = (os.environ.get(name, "").rstrip("/") for name in ("XDG_RUNTIME_DIR", "HOME"))
    folders = [f"{runtime}/d7agent"]
    if not runtime.startswith("/"):
        folders = [f"/run/user/{os.geteuid()}/d7agent", home and f"{home}/.local/state/d7agent/run"]
    places = [f"{folder}/agent.sock" for folder in folders if folder.startswith("/")]
    return [place for place in dict.fromkeys([os.environ.get("D7AGENT_SOCK"), *places, SYSTEM_SOCKET]) if place]


def parse_reply(reply: bytes) -> dict[str, Any]:
    """The parameters of one reply (without its NUL). Raises the AgentError that it carries."""
    try:
        message = json.loads(reply)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict) or not isinstance(params := message.get("parameters") or {}, dict):
        raise AgentError("the agent's answer is no Varlink message", "check that D7AGENT_SOCK names a d7agent")
    if message.get("error"):
        raise _wire_error(str(message["error"]), params)
    return params


def token_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """The Token of a reply, fit to be put into a header. Raises AgentError on anything else."""
    found = params.get("token")
    if isinstance(found, dict):
        texts = (found.get("access_token"), found.get("header"))
        if all(isinstance(text, str) and text and text.isascii() and text.isprintable() for text in texts):
            return found
    raise AgentError("the agent's answer holds no usable token", "agent and client may differ in version")


def _wire_error(name: str, params: dict[str, Any]) -> AgentError:
    kinds = {kind.__name__: kind for kind in AgentError.__subclasses__()}
    kind = kinds.get(name.rpartition(".")[2], AgentError)
    message, hint = str(params.pop("message", None) or ""), str(params.pop("hint", None) or "")
    if not message:
        what = ", ".join(str(value) for value in params.values())
        message = f"the agent answered {name}" + (f" ({what})" if what else "")
    if not hint and kind is AgentError:
        hint = "agent and client may differ in version: restart the agent"
    return kind(message, hint, params)


def _stream(path: str | None, request: bytes, limit: float) -> Iterator[dict[str, Any]]:
    link = _Link(path, limit)
    try:
        link.send(request)
        yield parse_reply(link.receive())
        link.allow(None)
        while True:
            yield parse_reply(link.receive())
    finally:
        link.close()


class _Link:
    """One connection to a server whose uid is trusted. What is done on it must be done within `limit` seconds."""

    def __init__(self, path: str | None, limit: float) -> None:
        self.allow(limit)
        self._data = bytearray()
        self._sock, self.path = self._connect(candidates(path))
        try:
            check_peer(self._sock, self.path)
        except PermissionDenied:
            self.close()
            raise

    def allow(self, limit: float | None) -> None:
        """Set the limit of what follows, in seconds from now; None: there is none."""
        self._limit = limit
        self._end = None if limit is None else time.monotonic() + limit

    def idle(self) -> bool:
        """Whether the connection stands and nothing came on it that no one asked for."""
        try:
            self._sock.settimeout(0)
            self._sock.recv(1, sockets.MSG_PEEK)
        except OSError as error:
            return isinstance(error, BlockingIOError) and not self._data
        return False

    def send(self, request: bytes) -> None:
        """Send all of it. Raises NoAgent."""
        try:
            self._sock.settimeout(self._left())
            self._sock.sendall(request)
        except OSError as error:
            raise self._gone(error) from None

    def receive(self) -> bytes:
        """The next reply, without its NUL. Raises NoAgent when none comes in time, AgentError when it is too large."""
        while (end := self._data.find(0)) < 0:
            try:
                self._sock.settimeout(self._left())
                piece = self._sock.recv(65536)
            except OSError as error:
                raise self._gone(error) from None
            if not piece:
                raise self._gone(OSError(0, "it closed the connection"))
            self._data += piece
            if len(self._data) > MAX_REPLY:
                raise AgentError(f"the agent's answer is larger than {MAX_REPLY} bytes")
        reply = bytes(self._data[:end])
        del self._data[: end + 1]
        return reply

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def _left(self) -> float | None:
        """Seconds left, None for ever. Raises TimeoutError when there are none."""
        if self._end is None:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _gone(self, error: OSError) -> NoAgent:
        return gone(self.path, self._limit, error)

    def _connect(self, paths: list[str]) -> tuple[sockets.socket, str]:
        failures: dict[str, OSError] = {}
        for path in paths:
            sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
            try:
                # A socket with Python's timeout is turned away while the backlog is full; the kernel's own waits.
                left = max(self._left() or 0, 0.001)
                limit = struct.pack("@ll", int(left), int(left % 1 * 1e6))
                sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDTIMEO, limit)
                sock.connect(path)
                return sock, path
            except OSError as error:
                sock.close()
                failures[path] = error
        raise not_connected(failures)


def check_peer(sock: sockets.socket, path: str) -> None:
    """Raises PermissionDenied unless the server's uid (SO_PEERCRED) is one to be trusted: own, root's or d7agent's."""
    credentials = sock.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, struct.calcsize("3i"))
    uid = struct.unpack("3i", credentials)[1]
    if uid == ANYBODY or (uid not in (os.geteuid(), 0) and uid != _uid_of(SYSTEM_USER)):
        raise PermissionDenied(
            f"the agent at {path} runs as uid {uid}, which is neither you, root nor {SYSTEM_USER}"
            f"{' but may be anybody' if uid == ANYBODY else ''}; nothing was sent to it",
            "unset D7AGENT_SOCK or name your own agent with --socket; to ask that one, run this as its user",
        )


def gone(path: str, limit: float | None, error: OSError) -> NoAgent:
    """What to raise when a call to the agent at `path` failed with `error`, a TimeoutError after `limit` seconds."""
    if isinstance(error, TimeoutError):
        return NoAgent(f"the agent at {path} did not answer within {limit:g} s", BUSY, {"busy": True})
    return NoAgent(f"the agent at {path} is gone: {error.strerror}")


def not_connected(failures: Mapping[str, OSError]) -> AgentError:
    """What to raise when no socket accepted a connection; `failures` by path."""
    for path, error in failures.items():
        if isinstance(error, PermissionError):
            return PermissionDenied(f"you may not connect to the agent at {path}", "run this as the user it is for")
        if isinstance(error, BlockingIOError | TimeoutError):
            return NoAgent(f"the agent at {path} accepts no connection", BUSY, {"busy": True})
    return NoAgent(f"no agent answers at {' and '.join(failures)}")


def _uid_of(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None
