"""Ask the d7agent for a token, from any Python program. One file, standard library only: copy it beside a script.

    import blocking as d7agent        # or, with the package installed: import d7agent

    requests.get(url, headers=d7agent.header())

Every call has a time limit, and the server's uid (SO_PEERCRED) is checked before a byte is sent: own, root or d7agent.
"""

import hashlib
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
MAX_WAIT = 30  # seconds the agent waits for a token when the caller does not say
MARGIN = 5.0  # seconds beyond max_wait: the way there and back on a loaded machine
MAX_REPLY = 8 * 1024 * 1024  # bytes; the status of 1,000 profiles with their sinks is 1 MB


class AgentError(Exception):
    """No answer, or an error for one. `message` says what happened, `hint` what to do next.

    `exit_code` is what the d7agent command exits with; `fields` holds further parameters of the wire error.
    """

    exit_code = 1
    advice = "`d7agent status` shows how the agent does"

    def __init__(self, message: str, hint: str = "", fields: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.advice
        self.fields = dict(fields or {})


class NoAgent(AgentError):
    """Nobody answers on the socket, not in time, or not to the end. Field: `busy`, if somebody listens all the same."""

    exit_code = 3
    advice = "start one with `d7agent start`, or with systemd: `systemctl --user start d7agent.socket`"


class NoSuchProfile(AgentError):
    """The agent has no profile of that name."""

    exit_code = 4
    advice = "`d7agent status` lists the profiles, `d7agent login NAME` makes one"


class NoCredential(AgentError):
    """The profile's store holds no credential."""

    exit_code = 4
    advice = "store one with `d7agent login`"


class CredentialRejected(AgentError):
    """D7 refuses the credential or the token for good. Field: `code`, D7's own."""

    exit_code = 5
    advice = "store a valid credential with `d7agent login`"


class TokenUnavailable(AgentError):
    """No token for now. Fields: `reason`, `retry_after` (seconds)."""

    exit_code = 6
    advice = "try again later; `d7agent status` shows the cause"


class BudgetSpent(AgentError):
    """The profile's login budget is used up. Field: `retry_after` (seconds)."""

    exit_code = 6
    advice = "try again later; `d7agent status` shows the logins of the last hour"


class Locked(AgentError):
    """The agent is locked by a passphrase."""

    exit_code = 7
    advice = "unlock it with `d7agent unlock`"


class PermissionDenied(AgentError):
    """The agent does not serve this user, or its socket belongs to someone we do not trust."""

    exit_code = 8
    advice = "a system agent serves the users named in [access] of /etc/d7agent/config.toml"


class StoreUnavailable(AgentError):
    """The store cannot be read or written now. Field: `reason`."""

    exit_code = 9
    advice = "unlock the keyring or mend the store, then try again"


class InvalidParameter(AgentError):
    """The agent refuses a parameter. Field: `parameter`, its name."""

    exit_code = 2
    advice = "`d7agent --help` shows what is allowed"


def token(
    profile: str | None = None, *, min_validity: int | None = None, max_wait: int | None = None, socket: str = ""
) -> str:
    """An access token good for at least `min_validity` seconds, waited for up to `max_wait` (30). Raises AgentError."""
    with Agent(socket) as agent:
        return agent.token(profile, min_validity=min_validity, max_wait=max_wait)


def header(
    profile: str | None = None, *, min_validity: int | None = None, max_wait: int | None = None, socket: str = ""
) -> dict[str, str]:
    """The header of an API call, `{"Authorization": "Bearer …"}`; parameters and errors as in `token`."""
    with Agent(socket) as agent:
        return {"Authorization": agent.get(profile, min_validity=min_validity, max_wait=max_wait)["header"]}


def fingerprint(access_token: str) -> str:
    """SHA-256 of the token, 64 hex digits: names it without giving it away."""
    return hashlib.sha256(access_token.encode()).hexdigest()


class Agent:
    """The agent behind `path`, or else the first that accepts a connection: $D7AGENT_SOCK, the user's, the system's.

    The connection is kept from call to call, made anew after a fork and when the agent was restarted. Thread-safe.
    `timeout` is the limit of one call in seconds; `max_wait` of a call replaces it. Use it with `with`, or `close()` it.
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

    def token(self, profile: str | None = None, *, min_validity: int | None = None, max_wait: int | None = None) -> str:
        """The access token alone; see `get`."""
        return str(self.get(profile, min_validity=min_validity, max_wait=max_wait)["access_token"])

    def get(
        self, profile: str | None = None, *, min_validity: int | None = None, max_wait: int | None = None
    ) -> dict[str, Any]:
        """GetToken: the whole Token (access_token, header, valid_for, serial, state, …). Raises AgentError."""
        params = {"profile": profile, "min_validity": min_validity, "max_wait": max_wait}
        return token_of(self.call("GetToken", params, timeout=self._limit(max_wait)))

    def reject(self, access_token: str, profile: str | None = None, *, max_wait: int | None = None) -> str:
        """Tell that D7 refused this token (only its fingerprint is sent); a better token. Raises AgentError."""
        params = {"fingerprint": fingerprint(access_token), "profile": profile, "max_wait": max_wait}
        return str(token_of(self.call("RejectToken", params, timeout=self._limit(max_wait)))["access_token"])

    def status(self, profile: str | None = None) -> dict[str, Any]:
        """GetStatus: `agent` and `profiles`. Raises AgentError."""
        found: dict[str, Any] = self.call("GetStatus", {"profile": profile})
        return found

    def stream(self, profile: str | None = None) -> Iterator[dict[str, Any]]:
        """The Token now, then every newer one. Ends only by an AgentError; NoAgent when the agent goes."""
        return map(token_of, self.call("GetToken", {"profile": profile}, more=True))

    def call(
        self, method: str, params: Mapping[str, Any] | None = None, more: bool = False, timeout: float | None = None
    ) -> Any:
        """Call a method of io.d7agent (or any other, by its full name): the reply's parameters. Raises AgentError.

        Parameters that are None are left out. With `more`: an iterator over the replies, on a connection of its own;
        the first comes within the limit, the later ones whenever they come.
        """
        request = _encode(method, params or {}, more)
        limit = self.timeout if timeout is None else timeout
        if more:
            return _stream(self.path, request, limit)
        if self._pid != os.getpid():
            self._start_anew()
        with self._lock:
            return parse_reply(self._exchange(request, limit))

    def connect(self) -> str:
        """Connect now unless connected: the path of the socket in use. Raises NoAgent or PermissionDenied."""
        if self._link is not None and not self._link.idle():
            self.close()
        if self._link is None:
            self._link = _Link(self.path, self.timeout)
        return self._link.path

    def close(self) -> None:
        """Close the connection; the next call opens one again."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _start_anew(self) -> None:
        self._link = None
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def _limit(self, max_wait: int | None) -> float:
        return self.timeout if max_wait is None else max_wait + MARGIN

    def _exchange(self, request: bytes, limit: float) -> bytes:
        try:
            self.connect()
            assert self._link is not None  # noqa: S101  connect() has seen to it
            self._link.allow(limit)
            self._link.send(request)
            return self._link.receive()
        except BaseException:
            self.close()  # whatever comes on this connection now belongs to a call that was given up
            raise


class Token:
    """A live token: `str()` of it asks the agent, so an SDK that formats it into each request always has a valid one.

    client = direct7.Client(api_token=d7agent.Token())
    """

    def __init__(self, profile: str | None = None, *, max_wait: int | None = None, socket: str | None = None) -> None:
        self._profile = profile
        self._max_wait = max_wait
        self._agent = Agent(socket)

    def __str__(self) -> str:
        return self._agent.token(self._profile, max_wait=self._max_wait)

    def __repr__(self) -> str:
        return f"<d7agent.Token of profile {self._profile or 'by default'}>"


def candidates(path: str | None = None) -> list[str]:
    """The sockets to try, best first. One that is named is the only one."""
    if path:
        return [path]
    runtime, home = (os.environ.get(name, "") for name in ("XDG_RUNTIME_DIR", "HOME"))
    places = [os.environ.get("D7AGENT_SOCK", "")]
    if runtime.startswith("/") and runtime.strip("/"):
        places.append(f"{runtime.rstrip('/')}/d7agent/agent.sock")
    else:
        places.append(f"/run/user/{os.geteuid()}/d7agent/agent.sock")
        if home.startswith("/") and home.strip("/"):
            places.append(f"{home.rstrip('/')}/.local/state/d7agent/run/agent.sock")
    return [place for place in dict.fromkeys([*places, SYSTEM_SOCKET]) if place]


def parse_reply(reply: bytes) -> dict[str, Any]:
    """The parameters of one reply (without its NUL). Raises the AgentError that it carries."""
    try:
        message = json.loads(reply)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise AgentError("the agent's answer is no Varlink message", "check that D7AGENT_SOCK names a d7agent")
    params = message.get("parameters")
    params = params if isinstance(params, dict) else {}
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
    raise AgentError(
        "the agent's answer holds no usable token", "restart the agent: its version may be older than this"
    )


def _wire_error(name: str, params: dict[str, Any]) -> AgentError:
    kind = _WIRE_ERRORS.get(name.rpartition(".")[2])
    message, hint = str(params.pop("message", "") or ""), str(params.pop("hint", "") or "")
    if kind is None:
        what = ", ".join(str(value) for value in params.values())
        message = message or f"the agent answered {name}" + (f" ({what})" if what else "")
        hint = hint or "agent and client differ in version: restart the agent"
        return AgentError(message, hint, params)
    if not message:
        message = f"the agent refuses the parameter {params.get('parameter')}" if kind is InvalidParameter else name
    return kind(message, hint, params)


def _encode(method: str, params: Mapping[str, Any], more: bool) -> bytes:
    full = method if "." in method else f"{INTERFACE}.{method}"
    message: dict[str, Any] = {"method": full, "parameters": {k: v for k, v in params.items() if v is not None}}
    if more:
        message["more"] = True
    return json.dumps(message, separators=(",", ":")).encode() + b"\0"


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
            self._check_peer()
        except BaseException:
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
        except BlockingIOError:
            return not self._data
        except OSError:
            return False
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
        if not isinstance(error, TimeoutError):
            return NoAgent(f"the agent at {self.path} is gone: {error.strerror}")
        hint = "it may be stopped or overloaded: `d7agent status` asks it again, `d7agent stop` ends it"
        return NoAgent(f"the agent at {self.path} did not answer within {self._limit:g} s", hint, {"busy": True})

    def _connect(self, paths: list[str]) -> tuple[sockets.socket, str]:
        failures: dict[str, OSError] = {}
        for path in paths:
            sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
            try:
                # A socket with Python's timeout is turned away while the backlog is full; the kernel's own waits.
                left = self._left() or 0
                limit = struct.pack("@ll", int(left), int(left % 1 * 1e6))
                sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDTIMEO, limit)
                sock.connect(path)
            except BaseException as error:
                sock.close()
                if not isinstance(error, OSError):
                    raise
                failures[path] = error
            else:
                return sock, path
        raise _not_connected(failures)

    def _check_peer(self) -> None:
        credentials = self._sock.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, struct.calcsize("3i"))
        uid = struct.unpack("3i", credentials)[1]
        names = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()} if uid not in (os.geteuid(), 0) else {}
