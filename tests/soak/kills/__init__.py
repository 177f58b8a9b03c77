"""Crash consistency: SIGKILL at random moments while the agent logs in, stores, reloads, writes sinks and state.

Each life of the agent has its chances from the seed and its own number; what real time makes of them is another matter.
"""

import json
import time
from typing import Any, Final

from d7agent.client.blocking import Agent
from tests.soak.broken import Figures, need
from tests.soak.kills import checks
from tests.soak.kills.home import BUSY, CREDENTIALS, MADE, RING, THRIFTY, Home
from tests.soak.kills.killer import Killer
from tests.soak.kills.work import NOTHING, Work
from tests.soak.progress import tell
from tests.support.keyring_session import NEEDED

LOOK_EVERY: Final = 10  # lives: to see that all comes right by itself takes a while
RIVAL_EVERY: Final = 7  # lives that begin with two agents
EARLY: Final = 0.1  # of all kills come while the agent starts
LONGEST_START: Final = 0.6  # seconds until such a one
LONGEST: Final = 1.5  # seconds of work until any other
PATIENCE: Final = 20.0  # seconds after which what should come by itself counts as missing
PAUSE: Final = 0.05  # seconds between two looks
TOLD_EVERY: Final = 50


def run(seed: int, count: int) -> Figures:
    """So many kills; what happened meanwhile, in figures."""
    with Home(seed) as home:
        kills = Kills(home)
        for life in range(count):
            kills.live_and_die(life)
            if (life + 1) % TOLD_EVERY == 0:
                tell(f"kills: {life + 1} of {count}")
        kills.end()
        return {"kills survived": count} | kills.figures()


class Kills:
    """One home, and an agent in it that is killed again and again."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._live = home.live
        self._work = Work(home)
        self._killer = Killer(home.live)

    def live_and_die(self, life: int) -> None:
        """Start, look, work, kill, look at what is left. Raises Broken."""
        chance = self._home.chances(life)
        if chance.random() < EARLY:
            self._killer.kill_during_start(chance.uniform(0, LONGEST_START))
        else:
            self._killer.start_two() if life % RIVAL_EVERY == RIVAL_EVERY - 1 else self._killer.start()
            if life % LOOK_EVERY == 0:
                self._comes_right()
            with self._work.under_way(life):
                self._killer.kill(chance.uniform(0, LONGEST))
        self._look()

    def end(self) -> None:
        """Once more, and in peace."""
        self._killer.start()
        self._comes_right()
        self._live.stop()
        self._look()

    def figures(self) -> Figures:
        """What there was to be survived."""
        missing = f"NOT TESTED: install {' '.join(sorted(NEEDED.values()))}"
        return {
            "with a helper at work": self._killer.met,
            "second agents refused": self._killer.refused,
            **self._work.done,
            "logins": self._home.box.stats.logins,
            "logins of the thrifty profile": self._home.thrifty.stats.logins,
            "keyring": missing if self._home.keyring is None else "gnome-keyring",
        }

    def _look(self) -> None:
        """With no agent running: everything on disk is whole, and as it was confirmed."""
        checks.files(self._live)
        checks.budget(self._live.state / f"{THRIFTY}.state", self._home.thrifty.stats.logins, self._home.begun)
        self._is_known(BUSY, checks.held(self._home.folder(BUSY)))
        self._look_at_made()
        if self._home.keyring is not None:
            self._look_at_ring()

    def _is_known(self, name: str, found: tuple[str, str]) -> None:
        """A credential is whole, and one that may be there."""
        known = self._work.known[name]
        need(found == checks.NOTHING or CREDENTIALS.get(found[0]) == found[1], f"{name}: a broken credential: {found}")
        need(found[0] in known.values, f"{name} holds {found[0]!r}, where only {sorted(known.values)} may be")
        known.values = {found[0]}

    def _look_at_made(self) -> None:
        """File and store are two places: the file may name a store that has nothing yet, or not any more."""
        told = checks.profile(self._live.config / "profiles" / f"{MADE}.toml", self._home.made_values)
        known = self._work.known[MADE]
        if not told:
            need(NOTHING in known.values, "the profile file of a credential that was stored is gone")
            known.values = {NOTHING}
            return
        found = checks.held(self._home.live.root / told["store"].partition(":")[2])
        need(found == checks.NOTHING or CREDENTIALS.get(found[0]) == found[1], f"{MADE}: a broken credential: {found}")
        need(len(known.values) > 1 or found[0] in known.values, f"{MADE} holds {found[0]!r}, not {known.values}")
        known.values = {found[0]}

    def _look_at_ring(self) -> None:
        assert self._home.keyring is not None
        text = self._home.keyring.get(RING)
        parts = {} if text is None else json.loads(text)
        self._is_known(RING, (parts.get("client_id", ""), parts.get("client_secret", "")))

    def _comes_right(self) -> None:
        """With an agent running: it gets itself a token with a whole credential, and tidies up."""
        end = time.monotonic() + PATIENCE
        with Agent(str(self._live.socket)) as agent:
            while not _is_well(profile := agent.status(BUSY)["profiles"][0]):
                need(time.monotonic() < end, f"{BUSY} does not come right: {profile}")
                time.sleep(PAUSE)  # real time: a login is under way, as often as not one that is refused
        while left := checks.leftovers(self._live):
            need(time.monotonic() < end, f"half-made files are left: {left}")
            time.sleep(PAUSE)  # real time: the other profiles' logins are under way


def _is_well(profile: dict[str, Any]) -> bool:
    sinks = profile["sinks"]
    return profile["state"] in ("fresh", "stale") and bool(sinks) and all(sink["ok"] for sink in sinks)
