"""One home with the files that an agent lives from, and the sandboxes and the keyring it talks to."""

import random
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from d7agent.sandbox import Sandbox, Settings
from tests.soak.kills.checks import SINKS
from tests.support.keyring_session import NEEDED, KeyringSession
from tests.support.live import Live
from tests.support.scene import Scene

LIFETIME: Final = 2.0  # seconds of a token: there is always a refresh near
BUSY: Final = "busy"  # a profile that may log in as often as it likes, and always has to
THRIFTY: Final = "thrifty"  # one with the usual budget and nothing remembered: it wants a login after every kill
MADE: Final = "made"  # one whose profile file the agent writes and removes, again and again
RING: Final = "ring"  # one whose credential is in a real keyring
CREDENTIALS: Final = {"first-id": "first-secret", "second-id": "second-secret"}
FIRST: Final = "first-id"
MOST_SINKS: Final = 0.8  # how likely each further sink is after an edit


class Home:
    """Use as a context manager. `keyring` is None where there is none to be had."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.box = Sandbox(Settings(lifetime=LIFETIME, applications=CREDENTIALS))
        self.thrifty = Sandbox(Settings(no_exp=True, applications=CREDENTIALS))
        self.keyring: KeyringSession | None = None
        self.live = Live()
        self.scene = Scene(self.live)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.live)
            stack.enter_context(self.box)
            stack.enter_context(self.thrifty)
            if all(shutil.which(program) for program in NEEDED):
                self.keyring = stack.enter_context(KeyringSession())
                self.live.environment["DBUS_SESSION_BUS_ADDRESS"] = self.keyring.address
            self._fill()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def chances(self, *what: object) -> random.Random:
        """Chances of their own for each thing and each life of the agent: no thread takes another's."""
        return random.Random(" ".join(map(str, (self.seed, *what))))

    def folder(self, name: str) -> Path:
        """A profile's store."""
        return self.live.root / f"cred-{name}"

    @property
    def made_values(self) -> dict[str, set[str]]:
        """What the agent may be told to write into the file of MADE."""
        port = self.box.url.rpartition(":")[2]
        urls = {f"http://{host}:{port}" for host in ("127.0.0.1", "localhost")}
        return {"base_url": urls, "store": {f"directory:{self.folder(f'{MADE}-{number}')}" for number in (1, 2)}}

    def edit(self, name: str, chance: random.Random) -> None:
        """A person writes the profile's file anew, as editors do."""
        box = self.box if name == BUSY else self.thrifty
        lines = [f'base_url = "{box.url}"', f'store = "directory:{self.folder(name)}"']
        lines += [f'max_age = "{chance.randrange(1, 9)}h"']
        lines += ["logins_per_hour = 3600"] if name == BUSY else ["remember_token = false"]
        for form in SINKS:
            if form == "token" or chance.random() < MOST_SINKS:
                lines += ["[[sinks]]", f'path = "{self.live.runtime}/sinks/{name}.{form}"', f'format = "{form}"']
        path = self.live.config / "profiles" / f"{name}.toml"
        new = path.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        new.replace(path)

    def _fill(self) -> None:
        (self.live.config / "profiles").mkdir(parents=True, mode=0o700)
        for name in (BUSY, THRIFTY):
            self.scene.credential(name, {"client_id": FIRST, "client_secret": CREDENTIALS[FIRST]})
            self.edit(name, self.chances("first", name))
        for number in (1, 2):
            self.scene.credential(f"{MADE}-{number}", {})
        self.begun = time.monotonic()
