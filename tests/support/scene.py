"""One agent with many profiles, each with a credential folder and mostly a D7 of its own: the stage of the faults."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from d7agent.client.blocking import Agent
from d7agent.sandbox import DEFAULT_ID, DEFAULT_SECRET, Sandbox
from tests.support import d7client
from tests.support.live import Live

CREDENTIAL: Final = {"client_id": DEFAULT_ID, "client_secret": DEFAULT_SECRET}

Profile = dict[str, Any]  # a ProfileStatus


class Scene:
    """Wraps a Live. Every profile is in force when `add` returns, and its first login under way."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self._known: dict[Path, bytes] = {}

    @contextlib.contextmanager
    def agent(self) -> Iterator[Agent]:
        """A client of the agent."""
        with Agent(str(self.live.socket)) as agent:
            yield agent

    def add(self, name: str, url: str, files: Mapping[str, str] = CREDENTIAL, **keys: object) -> Path:
        """A profile whose directory store holds `files`; `keys` are further lines of its TOML. The store's folder."""
        folder = self.credential(name, files)
        self.configure(name, url, f"directory:{folder}", **keys)
        return folder

    def credential(self, name: str, files: Mapping[str, str] = CREDENTIAL) -> Path:
        """A private folder with these files."""
        folder = self.live.root / f"cred-{name}"
        folder.mkdir(mode=0o700)
        for file, text in files.items():
            (folder / file).write_text(text)
            (folder / file).chmod(0o600)
            self._known[folder / file] = text.encode()
        return folder

    def configure(self, name: str, url: str, store: str, **keys: object) -> None:
        """Write the profile file and have it read."""
        path = self.live.config / "profiles" / f"{name}.toml"
        path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        lines = {"base_url": url, "store": store, **keys}
        text = "".join(f"{key} = {_toml(value)}\n" for key, value in lines.items())
        path.write_text(text)
        self._known[path] = text.encode()
        self.reload()

    def reload(self) -> None:
        """Have the configuration read; it must be good."""
        with self.agent() as agent:
            assert agent.call("Reload")["problems"] == []

    def wait(self, name: str, holds: Callable[[Profile], bool]) -> Profile:
        """The profile's status as soon as it fits, told by the agent's own stream."""
        found: Profile = {}  # pytest-timeout ends what never comes
        with self.agent() as agent:
            for status in agent.call("GetStatus", {"profile": name}, more=True):
                found = status["profiles"][0]
                if holds(found):
                    return found
        raise AssertionError(f"{name} never got there: {found}\n{self.live.journal()}")

    def status(self, name: str) -> Profile:
        """The profile's status now."""
        with self.agent() as agent:
            return dict(agent.status(name)["profiles"][0])

    def ask(self, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """`d7agent token` as a process, which waits for nothing unless told to."""
        return self.live.run("token", "--no-start", "--profile", name, *(arguments or ("--max-wait", "0")))

    def works(self, box: Sandbox, name: str = "default") -> bool:
        """Whether D7 takes the token that a caller gets."""
        with self.agent() as agent:
            return d7client.balance(box, agent.token(name)).status == 200

    def nothing_lost(self) -> None:
        """Every file of ours is as it was written, and nothing half made lies beside it."""
        for path, content in self._known.items():
            assert path.read_bytes() == content, path
        leftovers = [path for path in self.live.root.rglob("*.tmp") if not path.is_symlink()]
        assert leftovers == []


def failed_once(profile: Profile) -> bool:
    """Whether the first attempt is over, one way or the other."""
    return bool(profile["failures"]) or profile["state"] != "empty" or "last_error" in profile


def is_fresh(profile: Profile) -> bool:
    """Whether a good token is at hand."""
    return bool(profile["state"] == "fresh")


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)
