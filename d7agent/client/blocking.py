"""Ask the d7agent for a token, from any Python program. One file, standard library only: copy it beside a script.

    import blocking as d7agent        # or, with the package installed: import d7agent

    requests.get(url, headers=d7agent.header())

Every call has a time limit, and the server's uid (SO_PEERCRED) is checked before a byte is sent: own, root or d7agent.
"""

import contextlib
import hashlib
import json
import os
import pwd
import socket as sockets
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, overload

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

    exit_code: ClassVar[int] = 1
    advice: ClassVar[str] = "`d7agent status` shows how the agent does"

    def __init__(self, message: str, hint: str = "", fields: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.advice
        self.fields = dict(fields or {})


class NoAgent(AgentError):
    """Nobody answers on the socket, not in time, or not to the end."""

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


_WIRE_ERRORS: dict[str, type[AgentError]] = {
    kind.__name__: kind
    for kind in (
        NoSuchProfile,
        NoCredential,
        CredentialRejected,
        TokenUnavailable,
        BudgetSpent,
        Locked,
        PermissionDenied,
        StoreUnavailable,
        InvalidParameter,
    )
}


def token(
    profile: str | None = None, *, min_validity: int | None = None, max_wait: int | None = None, socket: str | None = None
) -> str:
    """An access token good for at least `min_validity` seconds, waited for up to `max_wait` (30). Raises AgentError."""
    with Agent(socket) as agent:
        return agent.token(profile, min_validity=min_validity, max_wait=max_wait)


def header(
    profile: str | None = None, *, min_validity: int | None = None, max_wait: int | None = None, socket: str | None = None
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
    `timeout` is the limit of one call in seconds; `max_wait` of a call extends it. Use it with `with`, or `close()` it.
    """

    def __init__(self, path: str | None = None, timeout: float = MAX_WAIT + MARGIN) -> None:
        self.path = path
        self.timeout = timeout
        self._forget()

    def __enter__(self) -> "Agent":
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
        answer = self.call("RejectToken", params, timeout=self._limit(max_wait))
        return str(token_of(answer)["access_token"])

    def status(self, profile: str | None = None) -> dict[str, Any]:
        """GetStatus: `agent` and `profiles`. Raises AgentError."""
        return self.call("GetStatus", {"profile": profile})

    def stream(self, profile: str | None = None) -> Iterator[dict[str, Any]]:
        """The Token now, then every newer one. Ends only by an AgentError; NoAgent when the agent goes."""
        return map(token_of, self.call("GetToken", {"profile": profile}, more=True))

    @overload
    def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        more: Literal[False] = False,
        timeout: float | None = None,
    ) -> dict[str, Any]: ...

    @overload
    def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        more: Literal[True],
        timeout: float | None = None,
    ) -> Iterator[dict[str, Any]]: ...

    def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        more: bool = False,
        timeout: float | None = None,
    ) -> dict[str, Any] | Iterator[dict[str, Any]]:
        """Call a method of io.d7agent (or any other, by its full name); the reply's parameters. Raises AgentError.

        Parameters that are None are left out. With `more`: an iterator over the replies, on a connection of its own;
        the first comes within the limit, the later ones whenever they come.
        """
        limit = self.timeout if timeout is None else timeout
        request = _encode(method, params or {}, more)
        if more:
            return _replies(self.path, request, limit)
        deadline = _Deadline(limit)
        if self._pid != os.getpid():
            self._forget()
        with self._lock:
            return self._exchange(request, deadline)

    def connect(self) -> str:
        """Connect now unless connected; the path of the socket in use. Raises NoAgent or PermissionDenied."""
        return self._connected(_Deadline(self.timeout)).path

    def close(self) -> None:
        """Close the connection; the next call opens one again."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _forget(self) -> None:
        self._link: _Link | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def _limit(self, max_wait: int | None) -> float:
        return self.timeout if max_wait is None else max_wait + MARGIN

    def _connected(self, deadline: "_Deadline") -> "_Link":
        if self._link is not None and not self._link.idle():
            self.close()
        if self._link is None:
            self._link = _Link(self.path, deadline)
        return self._link

    def _exchange(self, request: bytes, deadline: "_Deadline") -> dict[str, Any]:
        try:
            link = self._connected(deadline)
            link.send(request, deadline)
            reply = link.receive(deadline)
        except BaseException:
            self.close()  # whatever comes on this connection now belongs to a call that was given up
            raise
        return parse_reply(reply)


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

    def __add__(self, text: str) -> str:
        return str(self) + text

    def __radd__(self, text: str) -> str:
        return text + str(self)


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
    raise AgentError("the agent's answer holds no usable token", "restart the agent: its version may be older than this")


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


class _Deadline:
    """The instant by which a call must be over."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left. Raises NoAgent when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.over()
        return left

    def over(self) -> NoAgent:
        """The error of a call that took too long."""
        return NoAgent(
            f"the agent did not answer within {self.seconds:g} s",
            "it may be stopped or overloaded: `d7agent status` asks it again, `d7agent stop` ends it",
        )


class _Link:
    """One connection to a server whose uid is trusted."""

    def __init__(self, path: str | None, deadline: _Deadline) -> None:
        self._sock, self.path = _connect(candidates(path), deadline)
        self._left = bytearray()
        try:
            self._check_peer()
        except BaseException:
            self.close()
            raise

    def idle(self) -> bool:
        """Whether the connection stands and nothing came on it that no one asked for."""
        try:
            self._sock.settimeout(0)
            self._sock.recv(1, sockets.MSG_PEEK)
        except BlockingIOError:
            return not self._left
        except OSError:
            return False
        return False

    def send(self, request: bytes, deadline: _Deadline) -> None:
        """Send all of it. Raises NoAgent."""
        try:
            self._sock.settimeout(deadline.left())
            self._sock.sendall(request)
        except TimeoutError:
            raise deadline.over() from None
        except OSError as error:
            raise self._gone(error.strerror or "error") from None

    def receive(self, deadline: _Deadline | None) -> bytes:
        """The next reply, without its NUL. Raises NoAgent when none comes in time, AgentError when it is too large."""
        while (end := self._left.find(0)) < 0:
            if len(self._left) > MAX_REPLY:
                raise AgentError(f"the agent's answer is larger than {MAX_REPLY} bytes")
            self._left += self._piece(deadline)
        reply = bytes(self._left[:end])
        del self._left[: end + 1]
        return reply

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def _piece(self, deadline: _Deadline | None) -> bytes:
        try:
            self._sock.settimeout(deadline.left() if deadline else None)
            piece = self._sock.recv(65536)
        except TimeoutError:
            raise (deadline or _Deadline(0)).over() from None
        except OSError as error:
            raise self._gone(error.strerror or "error") from None
        if not piece:
            raise self._gone("it closed the connection")
        return piece

    def _gone(self, why: str) -> NoAgent:
        return NoAgent(f"the agent at {self.path} is gone: {why}")

    def _check_peer(self) -> None:
        credentials = self._sock.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, struct.calcsize("3i"))
        uid = struct.unpack("3i", credentials)[1]
        if uid in (os.geteuid(), 0) or uid == _uid_of(SYSTEM_USER):
            return
        raise PermissionDenied(
            f"the agent at {self.path} runs as {_name_of(uid)}, which is neither you, root nor {SYSTEM_USER}; "
            "nothing was sent to it",
            "unset D7AGENT_SOCK or name your own agent with --socket; to ask that one, run this as its user",
        )


def _connect(paths: list[str], deadline: _Deadline) -> tuple[sockets.socket, str]:
    failures: dict[str, OSError] = {}
    for path in paths:
        sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        try:
            # A full backlog answers EAGAIN at once to a socket with a Python timeout; the kernel's own limit waits.
            left = deadline.left()
            sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDTIMEO, struct.pack("@ll", int(left), int(left % 1 * 1e6)))
            sock.connect(path)
        except OSError as error:
            failures[path] = error
            sock.close()
        except BaseException:
            sock.close()
            raise
        else:
            return sock, path
    raise _not_connected(failures)


def _not_connected(failures: Mapping[str, OSError]) -> AgentError:
    for path, error in failures.items():
        if isinstance(error, PermissionError):
            return PermissionDenied(
                f"you may not connect to the agent at {path}", "run this as the user whose agent it is, or unset D7AGENT_SOCK"
            )
        if isinstance(error, BlockingIOError):
            return NoAgent(f"the agent at {path} accepts no connection", "it may be stopped or overloaded: try again", {"busy": True})
    tried = " and ".join(failures)
    return NoAgent(f"no agent answers at {tried}")


def _replies(path: str | None, request: bytes, limit: float) -> Iterator[dict[str, Any]]:
    deadline = _Deadline(limit)
    link = _Link(path, deadline)
    try:
        link.send(request, deadline)
        yield parse_reply(link.receive(deadline))
        while True:
            yield parse_reply(link.receive(None))
    finally:
        link.close()


def _uid_of(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _name_of(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
