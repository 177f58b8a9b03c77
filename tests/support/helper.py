"""The real helper as a process: a job goes in, a reply comes out."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from msgspec import Struct

from d7agent.core.clock import SystemClock
from d7agent.core.jobs import Job, Reply, Target, decode_reply, encode
from d7agent.core.model import Secret, Stamp
from d7agent.helper.session import Limits

NOW = Stamp(boot=1000.0, wall=1_800_000_000.0, boot_id="this-boot")
PASSED_ON = ("PATH", "LANG", "LC_ALL", "COVERAGE_PROCESS_START")
USUAL = [sys.executable, "-P", "-m", "d7agent.helper"]
HURRIED = "from d7agent.helper.door import main; from d7agent.helper.session import Limits; main(Limits({}, {}, {}))"


class Finished(Struct):
    """How a helper ended. `reply` is what it wrote to stdout."""

    reply: Reply
    stderr: str
    seconds: float


def run_job(job: Job, raw: bytes = b"", env: dict[str, str] | None = None, limits: Limits | None = None) -> Reply:
    """The helper's reply. `env` comes on top of PATH alone; `limits`: shorter ones than the usual."""
    return finish_job(job, raw, env, limits).reply


def finish_job(job: Job, raw: bytes = b"", env: dict[str, str] | None = None, limits: Limits | None = None) -> Finished:
    """The reply, what was written to stderr, and how long it took."""
    before = SystemClock().now().boot
    done = subprocess.run(
        argv(limits),
        input=encode(job) + b"\0" + raw,
        env=environment(env),
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, f"the helper ended with {done.returncode}: {done.stderr.decode()}"
    return Finished(decode_reply(done.stdout), done.stderr.decode(), SystemClock().now().boot - before)


def argv(limits: Limits | None = None) -> list[str]:
    """How the helper is started; with limits of one's own through its `main`."""
    if limits is None:
        return USUAL
    return [sys.executable, "-P", "-c", HURRIED.format(limits.store, limits.prompt, limits.login)]


def environment(env: dict[str, str] | None) -> dict[str, str]:
    """A bare environment, as the agent's whitelist makes it, with `env` on top."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ} | (env or {})


def target(store: str, **others: Any) -> Target:
    """A target of profile `work` with this store."""
    return Target(**{"profile": "work", "store": store, **others})


def folder(path: Path, **files: str) -> Path:
    """A private folder with these files, 0600."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name).write_text(text)
        (path / name).chmod(0o600)
    return path


def shown(secret: Secret | None) -> str | None:
    """The secret's text, for comparing."""
    return None if secret is None else secret.reveal()
