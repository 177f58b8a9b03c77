"""What GetStatus tells: the machine's state in the words of the wire."""

import os
from collections.abc import Callable

from d7agent import __version__
from d7agent.agent.agent import Agent
from d7agent.agent.keeper import Keeper
from d7agent.core import answers, lifecycle
from d7agent.core import budget as budgets
from d7agent.core.model import Stamp
from d7agent.core.states import Failure, State
from d7agent.wire.messages import PROTOCOL, AgentStatus, LastError, ProfileStatus, SinkStatus

SHOWN_FINGERPRINT = 12  # hex digits: enough to tell tokens apart, too few to look one up


def profile_status(keeper: Keeper, now: Stamp, subscribers: int, sinks: tuple[SinkStatus, ...] = ()) -> ProfileStatus:
    """One profile's status at `now`."""
    state, profile = keeper.state, keeper.profile
    held = lifecycle.alive(state.grant, now.boot)
    wall = _waller(now)
    attempt = lifecycle.next_attempt(state)
    expires = None if held is None else held.expires
    return ProfileStatus(
        profile=profile.name,
        base_url=profile.base_url,
        store=_shown_store(profile.store),
        state=answers.label(state, now.boot),
        serial=state.serial,
        failures=state.failures,
        logins_hour=budgets.in_last_hour(state.budget, now.boot),
        budget_left=budgets.left(state.budget, now.boot),
        remembered=state.remembered,
        unchanged=state.unchanged,
        subscribers=subscribers,
        sinks=sinks,
        fingerprint=None if held is None else held.fingerprint[:SHOWN_FINGERPRINT],
        issued_at=None if held is None or held.issued_at is None else int(held.issued_at),
        expires_at=None if expires is None else wall(expires),
        valid_for=None if expires is None else int(expires - now.boot),
        refresh_at=None if attempt is None else wall(attempt),
        refresh_why=_why(state),
        last_login=None if state.login_wall is None else int(state.login_wall),
        last_error=_last_error(state.refusal or state.failure),
        skew=None if held is None or held.skew is None else round(held.skew),
        misreports=state.misreports or None,
    )


def _shown_store(store: str) -> str:
    """The store as everybody may see it: what follows a command's name may be a secret."""
    kind, colon, rest = store.partition(":")
    words = rest.split()
    return f"{kind}{colon}{words[0]} …" if kind == "command" and len(words) > 1 else store


def _waller(now: Stamp) -> Callable[[float], int]:
    return lambda boot: int(boot - now.boot + now.wall)


def _why(state: State) -> str | None:
    if state.phase != "idle":
        return f"{state.phase} under way"
    if lifecycle.next_attempt(state) is None:
        return state.due_why or None
    return "after a failure" if state.failures else state.due_why


def _last_error(failure: Failure | None) -> LastError | None:
    if failure is None:
        return None
    return LastError(reason=failure.reason, message=failure.message, at=int(failure.at), code=failure.code)


def agent_status(agent: Agent, connections: int, *, systemd: bool, memory: str, hooks: tuple[str, ...]) -> AgentStatus:
    """The agent's own status."""
    return AgentStatus(
        version=__version__,
        protocol=PROTOCOL,
        pid=os.getpid(),
        started_at=int(agent.started_at),
        locked=agent.lock.locked,
        config_problems=agent.problems,
        connections=connections,
        callers=agent.callers.shown(),
        memory=memory,
        systemd=systemd,
        default_profile=agent.config.default_profile,
        hooks=hooks,
    )
