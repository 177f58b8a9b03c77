"""The agent, a caller or the owner wants a newer token."""

from typing import Final

from msgspec.structs import replace

from d7agent.core import schedule
from d7agent.core.lifecycle.failing import expired
from d7agent.core.lifecycle.phases import after, begin_attempt, begin_login, void
from d7agent.core.lifecycle.when import alive, better_login, caller_login, in_store_trouble, next_attempt
from d7agent.core.model import Stamp
from d7agent.core.states import Renewed, State, Step, Ticked, Wanted

RENEW_PAUSE: Final = 10.0  # seconds; a login this recent is what RenewToken wants
ASK_STORE_PAUSE: Final = 2.0  # seconds after which a caller makes the agent look into a failed store again


def ticked(state: State, event: Ticked, now: Stamp) -> Step:
    """Time passed."""
    return look(state, now)


def look(state: State, now: Stamp) -> Step:
    """What is due now: the token's end, the next attempt."""
    died = Step(state)
    if state.grant is not None and alive(state.grant, now.boot) is None:
        died = expired(state, now)
    at = next_attempt(died.state)
    if at is None or now.boot < at:
        return died
    return after(died.effects, begin_attempt(died.state, now))


def wanted(state: State, event: Wanted, now: Stamp) -> Step:
    """A caller waits."""
    held = alive(state.grant, now.boot)
    if state.refusal is not None:
        return Step(state)
    if in_store_trouble(state) and (held is None or event.fresh):
        return _look_into_store(state, event, now)
    if event.fresh and held is not None:
        least = schedule.leeway(held) if event.min_validity is None else event.min_validity
        if better_login(state, event.uid, now.boot, least) <= now.boot:
            return begin_login(state, now, uid=event.uid)
    return look(state, now)


def _look_into_store(state: State, event: Wanted, now: Stamp) -> Step:
    """A person may have opened the store just now."""
    rested = now.boot >= state.ended_at + ASK_STORE_PAUSE
    costs_login = state.recalled and caller_login(state, event.uid, now.boot, backoff=False) > now.boot
    return begin_attempt(state, now, event.uid) if rested and not costs_login else look(state, now)


def renewed(state: State, event: Renewed, now: Stamp) -> Step:
    """The owner wants a login, whatever D7 said before."""
    recent = state.login_at is not None and now.boot < state.login_at + RENEW_PAUSE
    if recent and state.refusal is None and alive(state.grant, now.boot) is not None:
        return Step(state)
    if caller_login(state, None, now.boot, backoff=False) > now.boot:
        return Step(state)
    anew = void(state)
    ready = replace(anew.state, refusal=None, unauthorized=0)
    return after(anew.effects, begin_login(ready, now, prompt=True))
