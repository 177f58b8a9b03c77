"""Storing and forgetting a credential: the helper touches the store, the agent writes the profile file."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from d7agent.agent import files
from d7agent.agent.keeper import Keeper
from d7agent.agent.shred import shred
from d7agent.core import budget as budgets
from d7agent.core import checks, jobs, states
from d7agent.core.config import Profile
from d7agent.core.errors import (
    AgentError,
    BudgetSpent,
    ConfigError,
    CredentialRejected,
    InvalidParameter,
    NoCredential,
    StoreUnavailable,
    TokenUnavailable,
)
from d7agent.core.explain import for_profile
from d7agent.core.jobs import Failed, Reply
from d7agent.core.model import STORE_REASONS, Grant
from d7agent.wire.messages import StoreCredential

if TYPE_CHECKING:
    from d7agent.agent.agent import Agent

log = logging.getLogger(__name__)


async def store(agent: "Agent", wish: StoreCredential, raw: bytearray) -> Keeper:
    """Keep the credential in `raw`; the keeper that now has it. Raises AgentError; then nothing was stored."""
    keeper = agent.keepers.get(wish.profile)
    profile = _wished(agent, Profile(name=wish.profile) if keeper is None else keeper.profile, wish)
    new = keeper is None
    if keeper is None:
        keeper = Keeper(profile, agent)
        keeper.feed(states.Started(agent.snapshot(wish.profile), recall=False))
    verify = wish.verify is not False
    _within_budget(agent, keeper, verify=verify)
    if new and verify:
        agent.newcomers.charge()
    keeper.feed(states.Storing(login=verify))
    generation = keeper.state.generation
    job = jobs.Keep(_target(agent, keeper, profile), agent.clock.now(), verify=verify)
    reply = await _finished(keeper, generation, keeper.run(job, raw, prompt=True))
    if isinstance(reply, Failed):
        keeper.feed(states.Stored(generation, reply))
        if new and verify:
            agent.newcomers.failed(reply)
        raise failed(reply, wish.profile)
    if not isinstance(reply, jobs.Granted | jobs.Done):
        lost = Failed("helper_failed", "the helper answered another question", "see the journal")
        keeper.feed(states.Stored(generation, lost))
        raise failed(lost, wish.profile)
    trouble = _settle(agent, keeper, profile, reply.backend, new=new)
    agent.stored(keeper)
    keeper.feed(states.Stored(generation, reply, agent.draw()))
    log.info("%s: a credential was stored in %s", wish.profile, keeper.profile.store.partition(":")[0])
    if trouble is not None:
        raise StoreUnavailable(
            f"the credential is stored and in use, but the profile file could not be written: {trouble}",
            "mend what the message names and log in again: a restart would not find the profile",
            reason="store_unreachable",
        )
    return keeper


async def _finished(keeper: Keeper, generation: int, run: Coroutine[Any, Any, Reply]) -> Reply:
    """The reply; if we are interrupted, the profile goes on as before."""
    try:
        return await run
    except asyncio.CancelledError:
        keeper.feed(states.Stored(generation, Failed("helper_failed", "the change was interrupted", "try again")))
        raise


def _target(agent: "Agent", keeper: Keeper, profile: Profile) -> jobs.Target:
    """The profile's store, and who else lives there: a keyring has an item for each profile, the others one for all."""
    others = (other.profile for name, other in agent.keepers.items() if name != profile.name)
    sharers = [other.name for other in others if other.store == profile.store and not other.store.startswith("keyring")]
    return replace(keeper.target(profile), sharer=next(iter(sharers), ""))


def _wished(agent: "Agent", profile: Profile, wish: StoreCredential) -> Profile:
    """The profile with the wished base URL and store. Raises InvalidParameter."""
    if wish.base_url is not None:
        profile = replace(profile, base_url=_checked("base_url", lambda: checks.base_url(wish.base_url or "")))
    if wish.store is not None:
        profile = replace(profile, store=_checked("store", lambda: checks.store(wish.store or "", agent.paths.expand)))
    return profile


def _checked(parameter: str, check: Callable[[], str]) -> str:
    try:
        return check()
    except ValueError as error:
        raise InvalidParameter(f"{parameter} {error}", "see d7agent login --help", parameter=parameter) from None


def _within_budget(agent: "Agent", keeper: Keeper, *, verify: bool) -> None:
    now = agent.clock.now().boot
    at = budgets.next_login(keeper.state.budget, now, asked=True)
    if verify and at > now:
        wait = int(at - now) + 1
        raise BudgetSpent(
            f"the login budget of {keeper.profile.name} is spent", f"try again in {wait} s", retry_after=wait
        )


def _settle(agent: "Agent", keeper: Keeper, profile: Profile, backend: str | None, *, new: bool) -> ConfigError | None:
    """Write the profile file and put the profile in force, pinned to the store that was used."""
    profile = profile if backend is None else replace(profile, store=backend)
    changes = {"base_url": profile.base_url, "store": profile.store}
    trouble: ConfigError | None = None
    try:
        profile = replace(profile, path=files.write_profile(agent.paths, profile.name, changes))
    except ConfigError as error:
        trouble = error
    keeper.profile = profile
    agent.config = replace(agent.config, profiles={**agent.config.profiles, profile.name: profile})
    if new:
        agent.adopt(keeper, start=False)
    return trouble


async def forget(agent: "Agent", name: str) -> tuple[str, ...]:
    """Forget credential, token and profile file; the files that were left because a person wrote them."""
    keeper = agent.resolve(name)
    held = keeper.state.grant
    keeper.feed(states.Storing())
    generation = keeper.state.generation
    reply = await _finished(keeper, generation, keeper.run(jobs.Forget(_target(agent, keeper, keeper.profile))))
    if isinstance(reply, Failed) and not reply.missing:
        keeper.feed(states.Stored(generation, reply))
        raise failed(reply, name)
    agent.stored(keeper)
    kept = reply.kept if isinstance(reply, jobs.Done) else ()
    keeper.feed(states.Forgotten())
    try:
        kept += tuple(files.remove_profile(agent.paths, keeper.profile.name))
    except ConfigError as error:
        raise StoreUnavailable(
            f"the credential is forgotten, but the profile file is still there: {error}",
            "remove it by hand, then: d7agent reload",
            reason="store_unreachable",
        ) from None
    log.info("%s: the credential was forgotten", name)
    agent.reload()
    _shred(agent, held)
    return kept


def _shred(agent: "Agent", held: Grant | None) -> None:
    """Leave nothing of the token in memory, unless another profile holds the same."""
    others = {keeper.state.grant.fingerprint for keeper in agent.keepers.values() if keeper.state.grant is not None}
    if held is not None and held.fingerprint not in others:
        shred([held.access_token])


def failed(reply: Failed, profile: str) -> AgentError:
    """A helper's failure as the error a caller gets."""
    reply = replace(reply, hint=for_profile(reply.hint, profile))
    if reply.invalid is not None:
        return InvalidParameter(reply.message, reply.hint, parameter=reply.invalid)
    if reply.permanent or reply.unauthorized:
        return CredentialRejected(reply.message, reply.hint, code=reply.code)
    if reply.missing:
        return NoCredential(reply.message, reply.hint)
    if reply.reason in STORE_REASONS:
        return StoreUnavailable(reply.message, reply.hint, reason=reply.reason)
    wait = None if reply.retry_after is None else int(reply.retry_after)
    return TokenUnavailable(reply.message, reply.hint, reason=reply.reason, retry_after=wait)
