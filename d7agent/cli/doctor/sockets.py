"""The sockets a client tries: their paths, their modes, and who listens."""

import os
import socket
import stat
from collections.abc import Iterator
from typing import Final

from d7agent.cli.doctor.finding import Finding, error, ok, warn
from d7agent.cli.doctor.scene import Scene
from d7agent.client.blocking import PermissionDenied, candidates, check_peer
from d7agent.core.paths import MAX_SOCKET_PATH, SYSTEM_SOCKET

CONNECT_LIMIT: Final = 2.0  # seconds; an agent with a full backlog takes less


def check(scene: Scene) -> Iterator[Finding]:
    """The runtime folder, each socket, and the agent that a command would use."""
    yield from _runtime(scene)
    for path in candidates(scene.named):
        yield from _socket(scene, path)
    yield from _agent(scene)


def _runtime(scene: Scene) -> Iterator[Finding]:
    """XDG_RUNTIME_DIR: without it, or with another user's, client and agent look in different places."""
    told, usual = scene.env.get("XDG_RUNTIME_DIR", ""), f"/run/user/{scene.uid}"
    if scene.system or scene.named:
        return
    if not told:
        if os.path.isdir(usual):
            yield warn(
                "runtime-folder",
                f"XDG_RUNTIME_DIR is not set, and {usual} is there",
                f"log in by ssh or on the console rather than by su, or: export XDG_RUNTIME_DIR={usual}",
            )
        return
    try:
        found = os.stat(told)
    except OSError as missing:
        yield error("runtime-folder", f"XDG_RUNTIME_DIR names {told}: {missing.strerror}", f"set it to {usual}")
        return
    if found.st_uid != scene.uid:
        yield error("runtime-folder", f"XDG_RUNTIME_DIR names {told}, another user's (uid {found.st_uid})",
                    f"log in as yourself rather than by su, or: export XDG_RUNTIME_DIR={usual}")  # fmt: skip
    elif found.st_mode & 0o077:
        yield error("runtime-folder", f"{told} is open to others (mode {_mode(found)})", f"chmod 700 {told}")
    else:
        yield ok("runtime-folder", f"{told} is yours alone")


def _socket(scene: Scene, path: str) -> Iterator[Finding]:
    chosen = path in (scene.named, scene.env.get("D7AGENT_SOCK"))
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        text = f"{path} is too long for a socket ({len(os.fsencode(path))} bytes, at most {MAX_SOCKET_PATH})"
        yield error("socket-length", text, "choose a shorter path with D7AGENT_SOCK, for the agent and for its clients")
        return
    try:
        found = os.stat(path)
    except PermissionError:
        yield error("socket", f"you may not look at {path}", "unset D7AGENT_SOCK, or run this as the user it is for")
        return
    except OSError as missing:
        if chosen:
            text = f"{path}, which you named, is not there: {missing.strerror}"
            yield error("socket", text, "unset D7AGENT_SOCK, or start the agent there: d7agent start")
        return
    if not stat.S_ISSOCK(found.st_mode):
        yield error("socket", f"{path} is no socket", f"move {path} away and restart the agent")
        return
    yield from _listener(scene, path, found)
    yield from _modes(scene, path, found)


def _listener(scene: Scene, path: str, found: os.stat_result) -> Iterator[Finding]:
    """Who accepts connections there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(CONNECT_LIMIT))
        try:
            sock.connect(path)
            check_peer(sock, path)
        except ConnectionRefusedError:
            text = f"nobody listens at {path}; an agent that was killed left it"
            yield warn("socket", text, "start the agent; it takes the socket's place")
        except PermissionDenied as stranger:
            yield error("socket", stranger.message, stranger.hint)
        except BlockingIOError:
            yield error("socket", f"the agent at {path} accepts no connection", "its log tells more; restart it")
        except OSError as fault:
            yield error("socket", f"{path} cannot be connected to: {fault.strerror}", "see its owner and its mode")
        else:
            uid, pid = _credentials(sock)
            use = "in use" if path == scene.used else "not in use"
            text = f"{path}: pid {pid}, uid {uid} listens ({use}); owner {found.st_uid}, mode {_mode(found)}"
            if path in (scene.used, SYSTEM_SOCKET):
                yield ok("socket", text)
            else:
                yield warn("socket", text, "stop the one you do not want: d7agent stop --socket PATH")


def _credentials(sock: socket.socket) -> tuple[int, int]:
    from d7agent.agent.peers import credentials

    uid, _, pid = credentials(sock)
    return uid, pid


def _timeval(seconds: float) -> bytes:
    import struct

    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))


def _modes(scene: Scene, path: str, found: os.stat_result) -> Iterator[Finding]:
    folder = os.path.dirname(path) or "."
    around = os.stat(folder)
    if around.st_uid not in (scene.uid, 0, found.st_uid) or (around.st_mode & 0o022 and not around.st_mode & 0o1000):
        text = f"{folder} can be changed by others (owner {around.st_uid}, mode {_mode(around)})"
        yield error("socket-mode", text, f"chown it to the agent's user and chmod 700 {folder}")
    elif path == SYSTEM_SOCKET:
        if found.st_mode & 0o666 != 0o666:
            text = f"{path} has mode {_mode(found)}: users under [access] cannot connect"
            yield warn("socket-mode", text, "SocketMode=0666 in d7agent.socket, then: systemctl restart d7agent.socket")
    elif found.st_mode & 0o077:
        text = f"{path} is open to others (mode {_mode(found)}); the agent still refuses them"
        yield warn("socket-mode", text, f"chmod 600 {path}, and SocketMode=0600 in the unit")


def _agent(scene: Scene) -> Iterator[Finding]:
    if scene.failure is None:
        agent = scene.agent
        yield ok("agent", f"agent {agent.get('version', '?')}, pid {agent.get('pid', '?')}, answers at {scene.used}")
        return
    from d7agent.cli.autostart import obstacle

    remedy = scene.failure.hint
    if scene.used is None and not scene.failure.fields.get("busy") and not isinstance(scene.failure, PermissionDenied):
        remedy = obstacle(scene.env, scene.uid, scene.named) or "d7agent start, or: d7agent service install"
    yield error("agent", scene.failure.message, remedy)


def _mode(found: os.stat_result) -> str:
    return f"{stat.S_IMODE(found.st_mode):04o}"
