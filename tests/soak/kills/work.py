"""Clients that keep an agent busy until it dies under them, and what they know of what they had it write."""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from d7agent.client.blocking import Agent, AgentError, NoAgent
from tests.soak.kills.home import BUSY, CREDENTIALS, FIRST, MADE, RING, Home

Act = Callable[[Agent, random.Random], None]
FORGETS: Final = 0.2  # of the changes to MADE and RING
TIMEOUT: Final = 20.0  # seconds for one call
NOTHING: Final = ""  # no credential
LONGEST_PAUSE: Final = 0.4  # seconds between two calls of one client
STORED, FORGOTTEN, RELOADED, RENEWED = "credentials stored", "credentials forgotten", "reloads", "renewals"


class Known:
    """What a place may hold: what was written last for sure, and whatever was being written when the agent died."""

    def __init__(self, value: str) -> None:
        self.values = {value}

    @contextlib.contextmanager
    def becoming(self, value: str) -> Iterator[None]:
        """Held while it is written; it is there for sure once the block has ended well."""
        self.values.add(value)
        yield
        self.values = {value}


class Work:
    """All that is done to one home."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.known = {BUSY: Known(FIRST), RING: Known(NOTHING), MADE: Known(NOTHING)}
        self.done = dict.fromkeys((STORED, FORGOTTEN, RELOADED, RENEWED), 0)
        self._acts: dict[str, Act] = {
            "store": self._store,
            "make": self._make,
            "edit": self._edit,
            "renew": self._renew,
        }
        if home.keyring is not None:
            self._acts["ring"] = self._ring

    @contextlib.contextmanager
    def under_way(self, life: int) -> Iterator[None]:
        """Every kind of work at once while the block runs, which has to end with the agent's end."""
        workers = [
            threading.Thread(target=self._work, args=(act, self._home.chances(life, name)))
            for name, act in self._acts.items()
        ]
        for worker in workers:
            worker.start()
        try:
            yield
        finally:
            for worker in workers:
                worker.join()

    def _work(self, act: Act, chance: random.Random) -> None:
        with contextlib.suppress(NoAgent), Agent(str(self._home.live.socket), timeout=TIMEOUT) as agent:
            while True:
                time.sleep(chance.uniform(0, LONGEST_PAUSE))  # real time: what is interrupted without end never ends
                act(agent, chance)

    def _store(self, agent: Agent, chance: random.Random) -> None:
        name = chance.choice(list(CREDENTIALS))
        self._stored(agent, BUSY, name, verify=chance.random() < 0.5)

    def _make(self, agent: Agent, chance: random.Random) -> None:
        if chance.random() < FORGETS:
            self._forgotten(agent, MADE)
            return
        values = {key: chance.choice(sorted(found)) for key, found in self._home.made_values.items()}
        self._stored(agent, MADE, chance.choice(list(CREDENTIALS)), verify=False, **values)

    def _ring(self, agent: Agent, chance: random.Random) -> None:
        if chance.random() < FORGETS:
            self._forgotten(agent, RING)
            return
        values = {"base_url": self._home.box.url, "store": "keyring"}
        self._stored(agent, RING, chance.choice(list(CREDENTIALS)), verify=False, **values)

    def _stored(self, agent: Agent, profile: str, name: str, *, verify: bool, **values: str) -> None:
        given = {"profile": profile, "client_id": name, "client_secret": CREDENTIALS[name], "verify": verify, **values}
        with _refusals_ignored(), self.known[profile].becoming(name):
            agent.call("StoreCredential", given)
            self.done[STORED] += 1

    def _forgotten(self, agent: Agent, profile: str) -> None:
        with _refusals_ignored(), self.known[profile].becoming(NOTHING):
            agent.call("ForgetCredential", {"profile": profile})
            self.done[FORGOTTEN] += 1

    def _edit(self, agent: Agent, chance: random.Random) -> None:
        self._home.edit(BUSY, chance)
        agent.call("Reload")
        self.done[RELOADED] += 1

    def _renew(self, agent: Agent, chance: random.Random) -> None:
        with _refusals_ignored():
            agent.call("RenewToken", {"profile": BUSY, "max_wait": chance.choice((0, 1))})
            self.done[RENEWED] += 1
        agent.status()


@contextlib.contextmanager
def _refusals_ignored() -> Iterator[None]:
    """The agent may say no (a change under way, a budget): only its end ends the work."""
    try:
        yield
    except NoAgent:
        raise
    except AgentError:
        pass
