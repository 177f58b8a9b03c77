"""Logins for names that are no profiles yet: one budget for all of them, kept on disk, and no heap of files."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from d7agent.agent import credentials
from d7agent.agent.agent import Agent
from d7agent.core import jobs
from d7agent.core.errors import AgentError, BudgetSpent
from d7agent.core.jobs import Failed, Job, Reply
from d7agent.wire.messages import StoreCredential
from tests.support import agents
from tests.support.agents import FakeHelpers, World, profile
from tests.support.fakes import STORE_AWAY, WRONG_SECRET
from tests.support.osfaults import paths_in


class Answering(FakeHelpers):
    """Helpers for which every new credential ends in the same way. `asked` counts them."""

    reply: Reply = WRONG_SECRET
    asked = 0

    async def run(
        self,
        job: Job,
        *,
        raw: bytearray | None = None,
        prompt: bool = False,
        urgent: Callable[[], bool] = lambda: False,
    ) -> Reply:
        """The reply."""
        if isinstance(job, jobs.Keep):
            self.asked += 1
            return self.reply
        return await super().run(job, raw=raw, prompt=prompt, urgent=urgent)


def answering(w: World, reply: Failed | jobs.Done) -> Answering:
    """Have the agent's helpers answer so."""
    helpers = Answering(w.d7, w.store)
    helpers.reply = reply
    w.helpers = w.agent.helpers = helpers
    return helpers


async def login(agent: Agent, name: str, *, verify: bool = True) -> AgentError | None:
    """StoreCredential for this name; what went wrong."""
    wish = StoreCredential(profile=name, store="environment", verify=verify)
    try:
        await credentials.store(agent, wish, bytearray())
    except AgentError as error:
        return error
    return None


def test_ever_new_names_share_a_budget(tmp_path: Path) -> None:
    """Thirty logins in a row, however many names there are; then one in two minutes, whether or not they succeed."""

    async def story(w: World) -> None:
        helpers = answering(w, WRONG_SECRET)
        w.configure(profile())
        await w.calm()
        found = [await login(w.agent, f"name{number}") for number in range(40)]
        assert [isinstance(error, BudgetSpent) for error in found] == [False] * 30 + [True] * 10
        assert helpers.asked == 30
        last = found[-1]
        assert isinstance(last, BudgetSpent)
        assert "all new profiles share" in last.message
        assert last.fields["retry_after"] == 121
        w.clock.advance(121)
        assert not isinstance(await login(w.agent, "one-more"), BudgetSpent)
        assert isinstance(await login(w.agent, "and-one"), BudgetSpent)

    agents.run(tmp_path, story)


def test_the_budget_outlives_the_agent(tmp_path: Path) -> None:
    """A restart does not fill it."""

    async def story(w: World) -> None:
        answering(w, WRONG_SECRET)
        for number in range(30):
            await login(w.agent, f"name{number}")
        w.clock.advance(5)
        again = Agent(w.agent.paths, w.clock, w.helpers)
        assert isinstance(await login(again, "another"), BudgetSpent)

    agents.run(tmp_path, story)


def test_profiles_have_their_own_budget(tmp_path: Path) -> None:
    """What new names spend is not theirs, and they spend nothing of the new ones'; nor does what asks D7 nothing."""

    async def story(w: World) -> None:
        helpers = answering(w, WRONG_SECRET)
        w.configure(profile())
        await w.calm()
        for number in range(30):
            await login(w.agent, f"name{number}")
        error = await login(w.agent, "default")
        assert error is not None
        assert not isinstance(error, BudgetSpent)
        helpers.reply = jobs.Done()
        assert await login(w.agent, "unproved", verify=False) is None

    agents.run(tmp_path, story)


def test_a_login_that_never_reached_d7_is_given_back(tmp_path: Path) -> None:
    """A store that does not answer costs nothing."""

    async def story(w: World) -> None:
        helpers = answering(w, STORE_AWAY)
        found = [await login(w.agent, f"name{number}") for number in range(40)]
        assert not [error for error in found if isinstance(error, BudgetSpent)]
        assert helpers.asked == 40

    agents.run(tmp_path, story)


def test_names_that_came_to_nothing_leave_no_heap_of_files(tmp_path: Path) -> None:
    """Days of a loop over new names leave what two hours' budget allows; profiles and other files stay."""
    state = Path(paths_in(tmp_path).state_dir)
    state.mkdir(mode=0o700)
    for name in ("notes.txt", "rubbish.state"):
        (state / name).write_text("not ours")

    async def story(w: World) -> None:
        answering(w, WRONG_SECRET)
        w.configure(profile())
        await w.calm()
        most = 0
        for number in range(200):
            await login(w.agent, f"name{number}")
            w.clock.advance(121)
            most = max(most, sum(name.startswith("name") for name in os.listdir(state)))
        assert 50 <= most <= 61
        assert {"default.state", "notes.txt", "rubbish.state", "_new.state"} <= set(os.listdir(state))

    agents.run(tmp_path, story)


@pytest.mark.parametrize("name", ["_new"])
def test_no_profile_can_take_the_budgets_name(name: str) -> None:
    """Its file is nobody else's."""
    from d7agent.core.checks import profile_name

    with pytest.raises(ValueError, match="must"):
        profile_name(name)
