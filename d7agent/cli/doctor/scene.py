"""What all checks look at: who asks, whom he reaches, and what the configuration says. Gathered once."""

import os
import subprocess
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from d7agent.client.blocking import Agent, AgentError
from d7agent.core.config import Config
from d7agent.core.errors import ConfigError
from d7agent.core.paths import SYSTEM_SOCKET, Paths, system_paths, user_paths
from d7agent.core.trust import ROOT

AGENT_LIMIT: Final = 5.0  # seconds for the agent's answer
COMMAND_LIMIT: Final = 5.0  # seconds for one question to systemd
SYSTEM_RUN: Final = os.path.dirname(SYSTEM_SOCKET)
CREDENTIALS: Final = "/run/credentials/d7agent.service"  # stands for %d, which only the agent's own unit knows


class Scene(Struct, frozen=True):
    """`named`: the socket of --socket. `used`: the one that answered, with its `status`; else `failure` says why not.

    `system`: the host's agent is the one that counts here. `paths` and `config` are of that flavour; None where they
    cannot be known, which `problems` then explains, a line for each. `proc`: where the kernel tells of processes.
    """

    env: Mapping[str, str]
    uid: int
    named: str | None
    used: str | None
    status: dict[str, Any] | None
    failure: AgentError | None
    system: bool
    paths: Paths | None
    config: Config | None
    problems: tuple[str, ...]
    proc: str = "/proc"

    @property
    def agent(self) -> dict[str, Any]:
        """AgentStatus; empty where no agent answers."""
        return dict((self.status or {}).get("agent") or {})

    @property
    def profiles(self) -> list[dict[str, Any]]:
        """The ProfileStatus of each profile."""
        return [one for one in (self.status or {}).get("profiles") or [] if isinstance(one, dict)]


def gather(env: Mapping[str, str], uid: int, named: str | None) -> Scene:
    """Look around. Asks the agent and starts none; systemd may start one behind its own socket, as for any client."""
    used, status, failure = _ask(named)
    system = used == SYSTEM_SOCKET or (used is None and not named and os.path.isdir(SYSTEM_RUN))
    paths, config, problems = _configuration(env, uid, system=system)
    return Scene(env, uid, named, used, status, failure, system, paths, config, problems)


def _ask(named: str | None) -> tuple[str | None, dict[str, Any] | None, AgentError | None]:
    used = None
    try:
        with Agent(named, AGENT_LIMIT) as agent:
            used = agent.connect()
            return used, agent.status(), None
    except AgentError as error:
        return used, None, error


def _configuration(
    env: Mapping[str, str], uid: int, *, system: bool
) -> tuple[Paths | None, Config | None, tuple[str, ...]]:
    from d7agent.agent import files

    told = {"CREDENTIALS_DIRECTORY": CREDENTIALS, **env}
    try:
        paths = system_paths(told) if system else user_paths(told, uid, files.is_ours)
    except ConfigError as error:
        return None, None, (str(error),)
    try:
        return paths, files.load(paths, owner(uid, system=system)), ()
    except ConfigError as error:
        return paths, None, tuple(str(error).splitlines())


def owner(uid: int, *, system: bool) -> int:
    """Whose agent counts: the host's is its own user's, where there is one."""
    import pwd

    try:
        return pwd.getpwnam("d7agent").pw_uid if system else uid
    except KeyError:
        return ROOT


def asked(argv: list[str], env: Mapping[str, str]) -> str | None:
    """What a command of the system prints; None where it is missing, fails, or takes too long."""
    try:
        done = subprocess.run(
            argv,
            env={**env, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=COMMAND_LIMIT,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
