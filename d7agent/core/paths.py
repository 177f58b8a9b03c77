"""Where things are: pure functions of the environment and the uid (XDG Base Directory Specification 0.8)."""

import os
import re
from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from d7agent.core.errors import ConfigError

MAX_SOCKET_PATH: Final = 107  # bytes; sun_path holds 108 with its NUL (unix(7))
SYSTEM_CONFIG: Final = "/etc/d7agent"
SYSTEM_STATE: Final = "/var/lib/d7agent"
SYSTEM_SOCKET: Final = "/run/d7agent/agent.sock"

_SPECIFIER: Final = re.compile(r"%(.?)", re.DOTALL)
_MEANING: Final = {"h": "home folder", "t": "runtime folder", "S": "state folder", "d": "credentials folder"}


class Paths(Struct, frozen=True):
    """The agent's places, all absolute.

    `profile_dirs` in the order they are read: the first file of a name wins. `written_dir`: where `login` writes.
    `folders`: what the specifiers %h, %t, %S, %d stand for; one that is not there stands for nothing.
    """

    config_dir: str
    profile_dirs: tuple[str, ...]
    written_dir: str
    state_dir: str
    socket: str
    folders: dict[str, str]
    system: bool = False

    @property
    def config_file(self) -> str:
        """config.toml."""
        return f"{self.config_dir}/config.toml"

    @property
    def state_file(self) -> str:
        """Budgets and backoffs over a restart; no secrets."""
        return f"{self.state_dir}/state.json"

    @property
    def spare_state_dir(self) -> str:
        """Where budgets go while the state folder cannot be written: beside the socket."""
        return f"{os.path.dirname(self.socket)}/state"

    def expand(self, text: str) -> str:
        """The text with %h, %t, %S, %d, %% and a leading ~ put in. Raises ValueError where there is no such folder."""
        if text == "~" or text.startswith("~/"):
            text = "%h" + text[1:]
        elif text.startswith("~"):
            raise ValueError("must not begin with ~USER: only your own ~ is known")
        return _SPECIFIER.sub(lambda found: self._folder(found[1]), text)

    def _folder(self, letter: str) -> str:
        if letter == "%":
            return "%"
        if letter not in _MEANING:
            raise ValueError(f"must not hold %{letter}: known are %h, %t, %S, %d and %%")
        if letter not in self.folders:
            raise ValueError(f"holds %{letter}, but there is no {_MEANING[letter]} here")
        return self.folders[letter]


def user_paths(env: Mapping[str, str], uid: int, ours: Callable[[str], bool]) -> Paths:
    """The places of a user's own agent.

    `ours` tells whether a path is an existing folder of this user alone (`agent.files.is_ours`). Relative values of XDG
    variables are ignored, as the specification says. Raises ConfigError if HOME is not an absolute path.
    """
    home = _home(env)
    config = f"{_absolute(env, 'XDG_CONFIG_HOME') or home + '/.config'}/d7agent"
    state_home = _absolute(env, "XDG_STATE_HOME") or f"{home}/.local/state"
    runtime = _absolute(env, "XDG_RUNTIME_DIR")
    if runtime is None and ours(f"/run/user/{uid}"):
        runtime = f"/run/user/{uid}"
    return Paths(
        config_dir=config,
        profile_dirs=(f"{config}/profiles",),
        written_dir=f"{config}/profiles",
        state_dir=f"{state_home}/d7agent",
        socket=_in_runtime(runtime) if runtime else _in_home(home),
        folders=_folders(env, h=home, t=runtime, S=state_home),
    )


def system_paths(env: Mapping[str, str]) -> Paths:
    """The places of the host's agent. Specifiers mean what they mean in a system unit; there is no home."""
    return Paths(
        config_dir=SYSTEM_CONFIG,
        profile_dirs=(f"{SYSTEM_CONFIG}/profiles", f"{SYSTEM_STATE}/profiles"),
        written_dir=f"{SYSTEM_STATE}/profiles",
        state_dir=SYSTEM_STATE,
        socket=SYSTEM_SOCKET,
        folders=_folders(env, t="/run", S="/var/lib"),
        system=True,
    )


def client_sockets(explicit: str | None, env: Mapping[str, str], uid: int) -> list[str]:
    """Where a client looks for an agent, in order: the first that accepts a connection is the one.

    `explicit` (--socket) stands alone. Both of the user's possible places are named where XDG_RUNTIME_DIR is not set:
    a client checks the server's uid, so looking at the wrong one does no harm.
    """
    if explicit:
        return [checked_socket(explicit)]
    places = [checked_socket(env["D7AGENT_SOCK"])] if env.get("D7AGENT_SOCK") else []
    runtime = _absolute(env, "XDG_RUNTIME_DIR")
    if runtime:
        places.append(_in_runtime(runtime))
    else:
        places.append(_in_runtime(f"/run/user/{uid}"))
        home = _absolute(env, "HOME")
        if home:
            places.append(_in_home(home))
    places.append(SYSTEM_SOCKET)
    return [place for place in dict.fromkeys(places) if _fits(place)]


def checked_socket(path: str) -> str:
    """The path, if a Unix socket can have it. Raises ConfigError (empty, NUL, longer than 107 bytes)."""
    if not path or "\0" in path:
        raise ConfigError(f"{path!r} is no path for a socket")
    if not _fits(path):
        raise ConfigError(
            f"{path}: too long for a socket ({len(os.fsencode(path))} bytes, at most {MAX_SOCKET_PATH}): "
            "choose a shorter path with --socket or D7AGENT_SOCK"
        )
    return path


def _fits(path: str) -> bool:
    return len(os.fsencode(path)) <= MAX_SOCKET_PATH


def _in_runtime(runtime: str) -> str:
    return f"{runtime}/d7agent/agent.sock"


def _in_home(home: str) -> str:
    # Not below XDG_STATE_HOME: agent and clients must agree on it, whatever each one's environment says.
    return f"{home}/.local/state/d7agent/run/agent.sock"


def _home(env: Mapping[str, str]) -> str:
    home = _absolute(env, "HOME")
    if home is None:
        raise ConfigError("HOME is not set to an absolute path: set it to your home folder")
    return home


def _absolute(env: Mapping[str, str], name: str) -> str | None:
    value = env.get(name, "")
    return (value.rstrip("/") or None) if value.startswith("/") else None


def _folders(env: Mapping[str, str], **known: str | None) -> dict[str, str]:
    every = {**known, "d": _absolute(env, "CREDENTIALS_DIRECTORY")}
    return {letter: folder for letter, folder in every.items() if folder}
