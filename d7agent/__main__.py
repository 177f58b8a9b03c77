"""The door: `token` and `header` take the short way, everything else the click application.

The bare interpreter takes 10 ms; click, json and socket would more than double that. So `d7agent token` and `header`,
with or without `-p NAME`, are answered here: `_socket` in place of `socket`, a search for the token's bytes in place of
a JSON decoder, no tidying up before the exit. Only a reply in which no byte can be misread is taken; any other goes to
the long way as it came, so that nobody waits twice for one answer.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import os
import sys

LIMIT = 25  # seconds: the 20 that the command line lets the agent wait, and the way there and back
PIECES = 5  # a reply comes in one or two; the limit of each after the first is a second
NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")
MARKS = (b'"access_token":"', b'"header":"')


def main() -> None:
    """Run the command that sys.argv names and exit with its status."""
    try:
        command, profile = _plain(sys.argv[1:])
        reply = _patiently(profile) if command else None
        if reply and _write(_line(command, reply)):
            os._exit(0)  # nothing is left to flush or close; the interpreter's farewell takes 2 ms
        from d7agent.cli.app import main as long_way

        long_way(reply)
    except KeyboardInterrupt:
        os._exit(130)  # as the shell counts an end by SIGINT


def _patiently(profile: str) -> bytes | None:
    """Ask, while Ctrl-C simply ends the process: Python would hear it too late if the wait begins just then."""
    handler = _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    try:
        return _ask(profile)
    finally:
        _signal.signal(_signal.SIGINT, handler)


def _plain(args: list[str]) -> tuple[str, str]:
    """Command and profile ("": the default one) of a line that is answered here; no command for any other line."""
    match args:
        case ["token" | "header" as command]:
            profile = ""
        case ["token" | "header" as command, "-p" | "--profile", profile] if _is_name(profile):
            pass
        case _:
            return "", ""
    # Without a stdout the socket would get its number; on a terminal a hint is due, and that is the long way's.
    fit = sys.stdout is not None and not (command == "token" and os.isatty(1))
    return (command, profile) if fit else ("", "")


def _is_name(text: str) -> bool:
    return 0 < len(text) <= 64 and text[0] not in "_-" and NAME.issuperset(text)


def _ask(profile: str) -> bytes | None:
    """The agent's reply, b"" when it did not come in time; None when no agent can be asked from here."""
    chosen = f'"profile":"{profile}",' if profile else ""
    try:
        sock = _connect()
        if sock is None:
            return None
        sock.settimeout(LIMIT)
        sock.send(f'{{"method":"io.d7agent.GetToken","parameters":{{{chosen}"max_wait":20}}}}\0'.encode())
        return _receive(sock)
    except TimeoutError:
        return b""
    except OSError:
        return None


def _connect() -> _socket.socket | None:
    """A connection to the first agent that accepts one; None when there is none, or that one is not to be trusted."""
    for path in _candidates():
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        # The kernel's limit (struct timeval), since a socket with Python's is turned away while the backlog is full.
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, LIMIT.to_bytes(8, sys.byteorder) + bytes(8))
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            continue
        credentials = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        return sock if _trusted(int.from_bytes(credentials[4:8], sys.byteorder)) else None
    return None


def _candidates() -> list[str]:
    """The sockets to try, as `client.blocking.candidates` gives them; a test holds the two together."""
    env = os.environ.get
    runtime, home = env("XDG_RUNTIME_DIR", "").rstrip("/"), env("HOME", "").rstrip("/")
    folders = [f"{runtime}/d7agent"]
    if not runtime.startswith("/"):
        folders = [f"/run/user/{os.geteuid()}/d7agent", home and f"{home}/.local/state/d7agent/run"]
    places = [f"{folder}/agent.sock" for folder in [*folders, "/run/d7agent"] if folder.startswith("/")]
    named = env("D7AGENT_SOCK")
    return [named, *places] if named else places


def _trusted(uid: int) -> bool:
    if uid == 65534:  # stands for everybody whom a user namespace does not map
        return False
    if uid in (os.geteuid(), 0):
        return True
    import pwd

    try:
        return uid == pwd.getpwnam("d7agent").pw_uid
    except KeyError:
        return False


def _receive(sock: _socket.socket) -> bytes | None:
    reply = b""
    for _ in range(PIECES):
        piece = sock.recv(65536)
        reply += piece
        if not piece or reply.endswith(b"\0"):
            break
        sock.settimeout(1)
    return reply[:-1] if reply.endswith(b"\0") else None


def _line(command: str, reply: bytes) -> bytes:
    """What the command prints; b"" where the reply is not plainly one token: an error, an escape, a second match."""
    if b"\\" in reply or b'"error"' in reply or not reply.isascii():
        return b""
    token, header = (reply.partition(mark)[2].partition(b'"')[0] if reply.count(mark) == 1 else b"" for mark in MARKS)
    if not token or not header or not (token + header).decode().isprintable():
        return b""
    return token + b"\n" if command == "token" else b"Authorization: " + header + b"\n"


def _write(line: bytes) -> bool:
    """Write all of it to stdout; whether that was possible. An empty line is not."""
    try:
        written = os.write(1, line) if line else -1
        while 0 <= written < len(line):
            line = line[written:]
            written = os.write(1, line)
    except OSError:
        return False
    return bool(line)


if __name__ == "__main__":
    main()
