"""The agent: the keepers of all profiles, the lock, and what the owner can change."""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from d7agent.agent import files
from d7agent.agent.budget_files import BudgetFiles
from d7agent.agent.callers import Callers
from d7agent.agent.helpers import Helpers
from d7agent.agent.keeper import Keeper
from d7agent.agent.lock import Lock
from d7agent.agent.newcomers import Newcomers
from d7agent.agent.timer import Alarm
from d7agent.core import states
from d7agent.core.budget import Snapshot
from d7agent.core.clock import Clock
from d7agent.core.config import Config
from d7agent.core.errors import AgentError, ConfigError, NoSuchProfile
from d7agent.core.paths import Paths

log = logging.getLogger(__name__)

Listener = Callable[[Keeper], None]
HookListener = Callable[[Keeper, states.Hooked], None]
WALL_STEP: Final = 1.0  # seconds; a wall clock stepped by more makes shown times wrong


class Agent:
    """Everything the agent knows. It is the World of its keepers; the service asks it, the daemon drives it."""

    def __init__(self, paths: Paths, clock: Clock, helpers: Helpers) -> None:
        self.paths = paths
        self.clock = clock
        self.helpers = helpers
        self.state_dir = paths.state_dir if paths.system else ""
        self.started_at = clock.now().wall
        self.config = Config(profiles={})
        self.problems: tuple[str, ...] = ()
        self.keepers: dict[str, Keeper] = {}
        self.budgets = BudgetFiles(paths)
        self.newcomers = Newcomers(self)
        self.callers = Callers(clock)
        self.on_pushed: list[Listener] = []
        self.on_gone: list[Listener] = []
        self.on_hooked: list[HookListener] = []
        self.on_changed: list[Listener] = []
        self.on_removed: list[Listener] = []
        self.on_adopted: list[Listener] = []
        self.on_stored: list[Listener] = []
        self.on_reloading: list[Callable[[], None]] = []
        self.on_configured: list[Callable[[], None]] = []
        self.on_turn: list[Callable[[], None]] = []
        self.alarm = Alarm(clock, self._ring, self._turned)
        self.lock = Lock(self)
        self._offset = self._wall_offset()

    def draw(self) -> float:
        """Jitter in [0, 1)."""
        return random.random()  # noqa: S311  jitter guards no secret  # nosec B311

    def save(self, profile: str, snapshot: Snapshot) -> bool:
        """Write a profile's budget down; False when there is no place for it."""
        return self.budgets.save(profile, snapshot)

    def wake(self, keeper: Keeper, at: float | None) -> None:
        """Ring for this keeper at `at`."""
        self.alarm.set(keeper.profile.name, at)

    def pushed(self, keeper: Keeper) -> None:
        """A new token: tell all who listen."""
        for listener in self.on_pushed:
            listener(keeper)

    def gone(self, keeper: Keeper) -> None:
        """A token is no more: tell all who listen."""
        for listener in self.on_gone:
            listener(keeper)

    def hooked(self, keeper: Keeper, effect: states.Hooked) -> None:
        """An event for hooks."""
        for listener in self.on_hooked:
            listener(keeper, effect)

    def stored(self, keeper: Keeper) -> None:
        """We ourselves changed what is in the profile's store."""
        for listener in self.on_stored:
            listener(keeper)

    def changed(self, keeper: Keeper) -> None:
        """A status changed."""
        for listener in self.on_changed:
            listener(keeper)

    def resolve(self, name: str | None) -> Keeper:
        """The keeper of the named profile, or of the default one. Raises NoSuchProfile."""
        if name is None:
            name = self.config.default_profile
            if name not in self.keepers and len(self.keepers) == 1 and not self.problems:
                return next(iter(self.keepers.values()))
        try:
            return self.keepers[name]
        except KeyError:
            raise self._no_such_profile(name) from None

    def _no_such_profile(self, name: str) -> AgentError:
        error = no_such_profile(name, self.keepers)
        if self.problems:
            error.hint = f"the configuration is not in force: {self.problems[0]}; mend that, then: d7agent reload"
        return error

    def load(self) -> None:
        """Read the configuration for the first time; of a bad one the agent takes what is good by itself."""
        try:
            config = files.load(self.paths)
        except ConfigError as error:
            self._problem(error)
            config = files.salvage(self.paths)
        self.apply(config)

    def reload(self) -> tuple[str, ...]:
        """Read the configuration again; a bad one changes nothing. The problems found, none when it is in force."""
        for listener in self.on_reloading:
            listener()
        try:
            config = files.load(self.paths)
        except ConfigError as error:
            self._problem(error)
            return self.problems
        if self.problems:
            log.info("the configuration is good again")
        self.problems = ()
        self.apply(config)
        return self.problems

    def _problem(self, error: ConfigError) -> None:
        self.problems = tuple(str(error).splitlines())
        for line in self.problems:
            log.error("the configuration is not taken: %s", line)
        self._configured()

    def apply(self, config: Config) -> None:
        """Put a configuration in force: unchanged profiles keep token and timer."""
        self.config = config
        for name in [name for name in self.keepers if name not in config.profiles]:
            self._remove(name)
        for name, profile in config.profiles.items():
            keeper = self.keepers.get(name)
            if keeper is None:
                self.adopt(Keeper(profile, self))
            elif keeper.profile != profile:
                log.info("%s: the profile changed", name)
                keeper.reconfigure(profile)
        self._configured()

    def adopt(self, keeper: Keeper, *, start: bool = True) -> None:
        """Take a keeper in and let it begin."""
        former = self.keepers.pop(keeper.profile.name, None)
        if former is not None:  # a reload has met a login for the same new name: its waiters ask again
            former.close(no_such_profile(keeper.profile.name, self.keepers))
        self.keepers[keeper.profile.name] = keeper
        for listener in self.on_adopted:
            listener(keeper)
        if self.lock.locked:
            keeper.feed(states.LockedUp())
        if start:
            keeper.feed(states.Started(self.snapshot(keeper.profile.name)))

    def snapshot(self, name: str) -> Snapshot | None:
        """What the state file remembers of a profile's budget."""
        return self.budgets.read(name, self.clock.now())

    def credential_changed(self, name: str) -> None:
        """The files of a profile's store were edited."""
        log.info("%s: the credential's files changed", name)
        self.keepers[name].credential_changed()

    async def close(self) -> None:
        """End every helper and wipe every token."""
        self.alarm.stop()
        keepers = list(self.keepers.values())
        for keeper in keepers:
            keeper.close()
        await asyncio.gather(*(keeper.closed() for keeper in keepers))

    def _remove(self, name: str) -> None:
        keeper = self.keepers.pop(name)
        log.info("%s: the profile is gone", name)
        keeper.close(no_such_profile(name, self.keepers))
        for listener in self.on_removed:
            listener(keeper)

    def _configured(self) -> None:
        for listener in self.on_configured:
            listener()

    def _ring(self, name: str) -> None:
        keeper = self.keepers.get(name)
        if keeper is not None:
            keeper.tick()
        else:
            self.lock.tries.ring(name)

    def _wall_offset(self) -> float:
        now = self.clock.now()
        return now.wall - now.boot

    def _turned(self) -> None:
        offset = self._wall_offset()
        if abs(offset - self._offset) > WALL_STEP:
            self._offset = offset
            for keeper in self.keepers.values():
                keeper.reclock()
        for listener in self.on_turn:
            listener()


def no_such_profile(name: str, known: dict[str, Keeper]) -> AgentError:
    """The error for a profile nobody configured; the hint names those there are."""
    names = ", ".join(sorted(known)) or "none"
    return NoSuchProfile(f"there is no profile {name!r}", f"profiles: {names}; make one with: d7agent login {name}")
