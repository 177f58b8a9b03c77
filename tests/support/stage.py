"""An agent as root sees it: a credential whose secret nobody else has, and what of it is in the agent's memory."""

import contextlib
import secrets
from collections.abc import Iterator
from typing import Any, Final

from d7agent.client.blocking import Agent
from d7agent.sandbox import Sandbox, Settings
from tests.support import memory
from tests.support.live import Live

PASSPHRASE: Final = "correct horse battery staple"


class Stage:
    """An agent with a credential whose secret nobody else has, stored over the socket."""

    def __init__(self, live: Live, box: Sandbox, secret: str) -> None:
        self.live = live
        self.box = box
        self.secret = secret

    @property
    def token(self) -> str:
        with Agent(str(self.live.socket)) as agent:
            return agent.token()

    def login(self, *profile: str) -> None:
        """Store the credential over the socket."""
        folder = self.live.root / "-".join(("cred", *profile))
        folder.mkdir(mode=0o700, exist_ok=True)
        self.live.login(self.box.url, *profile, "--store", f"directory:{folder}", credential=f"the-id\n{self.secret}\n")

    def found(self, secret: str) -> dict[str, int]:
        """How often the secret and its halves are found in the agent's memory."""
        return memory.count(self.live.pid, memory.pieces_of(secret))


@contextlib.contextmanager
def stage(**settings: Any) -> Iterator[Stage]:
    secret = secrets.token_hex(24)
    with Live() as live, Sandbox(Settings(applications={"the-id": secret}, **settings)) as box:
        live.start()
        yield Stage(live, box, secret)
