"""What has to hold of a home whose agent was killed: looked at from outside, with no agent running."""

import json
import re
import stat
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from d7agent.agent.profiles import MARKER
from d7agent.core.budget import CAPACITY, HOUR, PER_HOUR, Snapshot
from tests.soak.broken import Broken, need
from tests.support.live import Live

JWT: Final = re.compile(r"[\w-]+\.[\w-]+\.[\w-]{43}")  # a whole one: an HS256 signature has 43 characters
SINKS: Final = {
    "token": re.compile(rf"{JWT.pattern}\n"),
    "env": re.compile(rf"D7_API_TOKEN={JWT.pattern}\nD7_TOKEN_BOOT_ID=[0-9a-f-]{{36}}\nD7_TOKEN_USE_BEFORE=\d+\n"),
    "json": re.compile(r"\{.*\}\n"),
}
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
SLACK: Final = 0.01  # logins: what the state file rounds off
NOTHING: Final = ("", "")


def files(live: Live) -> None:
    """Every file of ours is whole, and those with secrets are private."""
    for path in live.state.glob("*.state"):
        _state(path)
    for path in (live.runtime / "sinks").glob("[!.]*"):
        need(SINKS[path.suffix[1:]].fullmatch(path.read_text()), f"half a sink: {path.name}")
        need(not path.stat().st_mode & OTHERS, f"others can read {path.name}")
    for path in live.root.glob("cred-*/*"):
        need(not path.stat().st_mode & OTHERS, f"others can read {path}")
    for path in live.root.glob("cred-*/.*.token"):
        need(JWT.fullmatch(json.loads(path.read_text())["access_token"]), f"half a remembered token: {path.name}")


def _state(path: Path) -> Snapshot:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Snapshot)
    except msgspec.DecodeError as error:
        raise Broken(f"{path.name} is broken: {error}") from None


def profile(path: Path, allowed: Mapping[str, set[str]]) -> dict[str, str]:
    """What a profile file says that the agent itself writes: whole, and only what was asked for. {} without one."""
    if not path.exists():
        return {}
    text = path.read_text()
    told = tomllib.loads(text)
    need(text.startswith(MARKER), f"{path.name} has lost its first line")
    need(set(told) == set(allowed), f"{path.name} has the keys {sorted(told)}")
    need(all(told[key] in values for key, values in allowed.items()), f"{path.name} says what nobody asked for: {told}")
    return told


def held(folder: Path) -> tuple[str, str]:
    """The credential in a store's folder; a change under way counts as done. NOTHING for none."""
    coming = folder / ".d7agent.next"
    if coming.exists():
        told = json.loads(coming.read_text())
        return (told["client_id"], told["client_secret"]) if told else NOTHING
    parts = {name: folder / name for name in ("client_id", "client_secret")}
    if not any(path.exists() for path in parts.values()):
        return NOTHING
    need(all(path.exists() for path in parts.values()), f"{folder.name} holds half a credential")
    return parts["client_id"].read_text().strip(), parts["client_secret"].read_text().strip()


def budget(path: Path, made: int, begun: float) -> None:
    """The state file has paid for every login that D7 saw since `begun` (monotonic)."""
    earned = PER_HOUR * (time.monotonic() - begun) / HOUR
    need(made == 0 or path.exists(), f"{made} logins, and no {path.name}")
    level = _state(path).level if made else 0.0
    need(level <= CAPACITY - made + earned + SLACK, f"{path.name} has {level} logins left, after {made}")


def leftovers(live: Live) -> list[str]:
    """What is half made and still lies about. Not where no profile looks any more: nobody knows of that."""
    profiles = [tomllib.loads(path.read_text()) for path in (live.config / "profiles").glob("*.toml")]
    sinks = [Path(sink["path"]) for told in profiles for sink in told.get("sinks", ())]
    folders = [Path(told["store"].partition(":")[2]) for told in profiles if told["store"].startswith("directory:")]
    found = [path for folder in (live.home, *folders) for path in folder.rglob(".*.tmp")]
    found += [path for sink in sinks if (path := sink.with_name(f".{sink.name}.tmp")).exists()]
    return [str(path.relative_to(live.root)) for path in found]
