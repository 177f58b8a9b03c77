"""What only a helper process may find out: the keyring here, and the way to D7. All asked at once."""

import asyncio
from collections.abc import Iterator
from typing import Final

from d7agent.cli.advice import SKEW
from d7agent.cli.doctor.finding import Finding, error, ok, warn
from d7agent.cli.doctor.scene import Scene
from d7agent.cli.spans import span
from d7agent.core.jobs import Failed, Look, Reach, Reached, Reply, Seen

LIMIT: Final = 20.0  # seconds for each; a login has 15
PLAIN: Final = ("keyrings.alt", "keyring.backends.null", "keyring.backends.fail", "keyring.backends.chainer")
Asked = Look | Reach


def check(scene: Scene) -> Iterator[Finding]:
    """The keyrings that profiles name, and the base URLs."""
    jobs = [*_looks(scene), *_reaches(scene)]
    for job, reply in zip(jobs, asyncio.run(_run(scene, jobs)), strict=True):
        yield from keyring(job, reply) if isinstance(job, Look) else way(job, reply)
    if any(isinstance(job, Look) for job in jobs):
        yield from _choices(scene)


def _looks(scene: Scene) -> list[Asked]:
    """One for each backend. The host's agent has no desktop; what its profiles suffer from is in its status."""
    if scene.system or scene.config is None:
        return []
    stores = [profile.store.partition(":") for profile in scene.config.profiles.values()]
    return [Look(backend) for backend in sorted({backend for kind, _, backend in stores if kind == "keyring"})]


def _reaches(scene: Scene) -> list[Asked]:
    urls = {str(profile["base_url"]) for profile in scene.profiles if profile.get("base_url")}
    if scene.config is not None:
        urls |= {profile.base_url for profile in scene.config.profiles.values()}
    return [Reach(url) for url in sorted(urls)]


async def _run(scene: Scene, jobs: list[Asked]) -> list[Reply]:
    from d7agent.agent.helpers import Helpers

    helpers = Helpers(scene.env, limit=LIMIT)
    return list(await asyncio.gather(*(helpers.run(job) for job in jobs)))


def keyring(job: Look, reply: Reply) -> Iterator[Finding]:
    """What a look at a keyring tells."""
    if isinstance(reply, Failed):
        yield error("keyring", reply.message, reply.hint)
        return
    if not isinstance(reply, Seen):
        return
    if reply.locked:
        yield error("keyring", f"{reply.backend} is locked", "unlock the keyring; the agent then goes on by itself")
    elif reply.backend.startswith(PLAIN):
        text = f"a profile names {reply.backend}, which keeps nothing safe"
        yield warn("keyring", text, "d7agent login --store keyring, or --store directory:PATH")
    else:
        yield ok("keyring", f"{reply.backend} works here{'' if job.backend else ' (the best there is)'}")
    if reply.plain_files:
        text = "keyrings.alt is installed: other programs may fall back to plain files with it; d7agent does not"
        yield ok("keyrings-alt", text)


def _choices(scene: Scene) -> Iterator[Finding]:
    """Where people choose a backend for keyring's other users; they should know that it is not heeded here."""
    import os

    home = scene.env.get("XDG_CONFIG_HOME") or f"{scene.env.get('HOME', '')}/.config"
    files = [f"{home}/python_keyring/keyringrc.cfg"]
    names = [f"{name} ({scene.env[name]})" for name in ("PYTHON_KEYRING_BACKEND",) if scene.env.get(name)]
    for name in [*names, *(path for path in files if os.path.exists(path))]:
        text = f'{name} is not heeded by d7agent; a backend is named in the profile: store = "keyring:MODULE.Class"'
        yield ok("keyring-choice", text)
    bus, usual = scene.env.get("DBUS_SESSION_BUS_ADDRESS"), f"{scene.env.get('XDG_RUNTIME_DIR')}/bus"
    if bus and f"path={usual}" not in bus and os.path.exists(usual) and scene.agent.get("systemd"):
        text = f"this shell is on the bus {bus}, the agent of systemd on {usual}: they may see different keyrings"
        yield warn("keyring-bus", text, "log in again, or unset DBUS_SESSION_BUS_ADDRESS")


def way(job: Reach, reply: Reply) -> Iterator[Finding]:
    """What a call without a token to the base URL tells."""
    if isinstance(reply, Failed):
        yield error("network", f"{job.base_url}: {reply.message}", reply.hint)
    elif isinstance(reply, Reached):
        proxy = f" through the proxy {reply.proxy}" if reply.proxy else ""
        if reply.d7:
            yield ok("network", f"D7 answers at {job.base_url}{proxy}")
        else:
            text = f"what answers at {job.base_url}{proxy} is not D7 (HTTP {reply.status} to a call without a token)"
            yield warn("network", text, "check base_url, HTTPS_PROXY and NO_PROXY")
        yield from _clock(reply)


def _clock(reply: Reached) -> Iterator[Finding]:
    if reply.skew is None:
        return
    if abs(reply.skew) >= SKEW:
        side = "behind" if reply.skew > 0 else "ahead of"
        text = f"this machine's clock is {span(abs(reply.skew))} {side} D7's"
        yield warn("clock", text, "have it set by NTP: timedatectl set-ntp true")
    else:
        yield ok("clock", "this machine's clock agrees with D7's")
