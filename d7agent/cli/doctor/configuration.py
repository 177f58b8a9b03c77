"""The configuration files: whether they are sound, whether others can change them, and what has no effect."""

import os
import stat
from collections.abc import Iterator
from typing import Final

from d7agent.cli.doctor.finding import Finding, error, ok, warn
from d7agent.cli.doctor.scene import Scene, owner
from d7agent.core.config import Config
from d7agent.core.paths import Paths
from d7agent.core.trust import REFUSED, Distrusted, Rule

MOUNTS: Final = ("/run/credentials/", "/run/secrets/")  # whose modes are for whoever mounted them to choose
PARTS: Final = ("client_id", "client_secret", "access_token")


def check(scene: Scene) -> Iterator[Finding]:
    """Faults, modes and owners, and [access]."""
    yield from _faults(scene)
    if scene.paths is not None:
        yield from _modes(scene, scene.paths)
    if scene.config is not None:
        yield from _access(scene, scene.config)
        yield from _stores(scene, scene.config)


def _faults(scene: Scene) -> Iterator[Finding]:
    reload = "d7agent reload" + (" as root" if scene.system else "")
    for problem in scene.problems:
        if REFUSED in problem:
            text, _, remedy = problem.rpartition(": ")
            yield error("file-mode", text, f"{remedy}; then: {reload}")
        else:
            yield error("config", problem, f"mend the file, then: {reload}")
    told = [str(problem) for problem in scene.agent.get("config_problems") or []]
    for problem in told:
        if problem not in scene.problems:
            yield warn("config", f"the agent still runs with an older configuration: {problem}", reload)
    if not scene.problems and not told and scene.config is not None:
        count = len(scene.config.profiles)
        yield ok("config", f"the configuration is sound ({count} profile{'s' * (count != 1)})")


def _modes(scene: Scene, paths: Paths) -> Iterator[Finding]:
    """Remembered tokens and budgets; what others can change of the configuration is among its problems."""
    private = [path for path in _state_files(paths) if _others(path) & 0o077]
    for path in private:
        yield warn("file-mode", f"{path} can be read by others", f"chmod go= {path}")
    if not private and not any(REFUSED in problem for problem in scene.problems):
        yield ok("file-mode", f"nobody else can change what is in {paths.config_dir}")


def _state_files(paths: Paths) -> Iterator[str]:
    yield from (paths.state_dir, paths.state_file)
    yield from _listed(paths.state_dir, ".token")


def _listed(folder: str, ending: str) -> list[str]:
    try:
        return [f"{folder}/{name}" for name in sorted(os.listdir(folder)) if name.endswith(ending)]
    except OSError:
        return []


def _others(path: str) -> int:
    """The mode of what is there; 0 for nothing."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return 0


def _access(scene: Scene, config: Config) -> Iterator[Finding]:
    from d7agent.agent.access import resolve
    from d7agent.agent.peers import pidfd_supported

    access = config.access
    if not (access.users or access.groups or access.units):
        return
    if not scene.system:
        text = "[access] has no effect on a user's own agent: it serves its owner and root"
        yield warn("access", text, "remove the section, or set up the host's agent: d7agent service install --system")
        return
    problems = resolve(access)[1]
    for problem in problems:
        yield error("access", problem, "mend the name in /etc/d7agent/config.toml, or make the user")
    if access.units and not pidfd_supported():
        text = "units under [access] admits nobody: this kernel has no SO_PEERPIDFD (6.5 and later have it)"
        yield error("access", text, "name the units' users under users instead")
    elif not problems:
        yield ok("access", f"[access] lets in {', '.join((*access.users, *access.groups, *access.units))}")


def _stores(scene: Scene, config: Config) -> Iterator[Finding]:
    """The files of `directory` stores: the agent refuses those that others can read."""
    for profile in config.profiles.values():
        kind, _, folder = profile.store.partition(":")
        if kind == "environment":
            yield ok("store", f"{profile.name}: the secret stays in the agent's own environment, where you put it")
        hidden = not os.access(folder, os.R_OK | os.X_OK) and (scene.system or os.path.isdir(folder))
        if kind != "directory" or f"{folder}/".startswith(MOUNTS) or hidden:
            continue
        parts = [f"{folder}/{part}" for part in PARTS if os.path.exists(f"{folder}/{part}")]
        yield from _ways(scene, profile.name, parts)
        for path in parts:
            if _others(path) & 0o077:
                text = f"{profile.name}: {path} can be read by others, so the agent refuses it"
                yield error("store", text, f"chmod 600 {path}")
        if not parts:
            yield error("store", f"{profile.name}: {folder} holds no credential", f"d7agent login {profile.name}")


def _ways(scene: Scene, profile: str, paths: list[str]) -> Iterator[Finding]:
    """Who else could swap these files, from a folder above: the agent reads none of them then."""
    rule = Rule(owner(scene.uid, system=scene.system), os.lstat("/").st_uid)
    found: dict[str, str] = {}
    for path in paths:
        try:
            rule.walk(path, os)
        except Distrusted as distrusted:
            found[distrusted.message] = distrusted.hint
        except OSError:
            continue  # what cannot be reached is told by others
    for message, hint in found.items():
        yield error("store", f"{profile}: {message}, so the agent refuses the credential", hint)
