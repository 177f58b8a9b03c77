"""Logins for names that are no profiles yet draw from one budget besides their own.

Every name has a fresh budget of its own, so that a loop over new names would have no end of them.
"""

from typing import TYPE_CHECKING, Final

from d7agent.core import budget as budgets
from d7agent.core import lifecycle, states
from d7agent.core.errors import BudgetSpent
from d7agent.core.jobs import Failed

if TYPE_CHECKING:
    from d7agent.agent.agent import Agent

NAME: Final = "_new"  # of its state file; no profile can be called so


class Newcomers:
    """The budget of all new names of one agent. Never thirsty by itself, so nothing is kept for its own refreshes."""

    def __init__(self, agent: "Agent") -> None:
        self._agent = agent
        self._state: states.State | None = None

    def charge(self) -> None:
        """Take one login, written down before this returns. Raises BudgetSpent.

        What former new names have left is tidied up: each one cost a login, so that there are never more files of
        them than the budget has logins within the time such a file is kept.
        """
        now = self._agent.clock.now()
        at = budgets.next_login(self._known().budget, now.boot, asked=False)
        if at > now.boot:
            wait = int(at - now.boot) + 1
            raise BudgetSpent(
                "the login budget that all new profiles share is spent", f"try again in {wait} s", retry_after=wait
            )
        self._agent.budgets.prune({NAME, *self._agent.keepers}, now)
        self._feed(states.Charged())

    def failed(self, reply: Failed) -> None:
        """The login that was charged came to nothing; it is given back if it never reached D7."""
        self._feed(states.Uncharged(reply))

    def _known(self) -> states.State:
        if self._state is None:
            self._state = states.State(profile=NAME)
            self._feed(states.Started(self._agent.snapshot(NAME), recall=False))
        return self._state

    def _feed(self, event: states.Event) -> None:
        now = self._agent.clock.now()
        step = lifecycle.step(self._known(), event, now)
        self._state = step.state
        if states.Save() in step.effects:
            saved = states.StateSaved(self._agent.save(NAME, lifecycle.snapshot(self._state, now)))
            self._state = lifecycle.step(self._state, saved, now).state
