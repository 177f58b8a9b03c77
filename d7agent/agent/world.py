"""What a keeper needs of the agent around it."""

from typing import TYPE_CHECKING, Protocol

from d7agent.agent.helpers import Helpers
from d7agent.core import states
from d7agent.core.budget import Snapshot
from d7agent.core.clock import Clock

if TYPE_CHECKING:
    from d7agent.agent.keeper import Keeper


class World(Protocol):
    """What a keeper needs of the agent around it."""

    clock: Clock
    helpers: Helpers
    state_dir: str  # where remembered tokens may be written when the store cannot take them; "": nowhere

    def draw(self) -> float:
        """A random number in [0, 1): jitter."""

    def save(self, profile: str, snapshot: Snapshot) -> bool:
        """Write the budget down; whether that worked."""

    def wake(self, keeper: "Keeper", at: float | None) -> None:
        """Call `keeper.tick()` at this boot instant; replaces an earlier wish."""

    def pushed(self, keeper: "Keeper") -> None:
        """The keeper has a new token."""

    def gone(self, keeper: "Keeper") -> None:
        """The keeper's token is no more."""

    def hooked(self, keeper: "Keeper", effect: states.Hooked) -> None:
        """An event that a hook may wait for."""

    def changed(self, keeper: "Keeper") -> None:
        """Something that GetStatus shows has changed."""
