"""The token's life as a pure machine: `step(state, event, now)` gives the next state and the effects to carry out.

It alone decides when to refresh and when to give up; `core.answers` decides what to serve from its state. Nothing here
reads a clock, touches a file or knows a socket, so every rule of the token's life is tested without waiting.

Each module imports only from those named before it:
    when        what can be told from a state and an instant; changes nothing
    phases      how a phase begins and ends, and what is wiped with it
    failing     what a failure of D7, of the store or of the token leads to
    refreshing  the agent, a caller or the owner wants a newer token
    receiving   a recall or a login came back
    rejecting   someone says that D7 refuses the token
    storing     the credential is replaced or forgotten
    governing   start, configuration, lock
    table       which event is heard in which phase, and by whom
"""

from d7agent.core.lifecycle.phases import PROOF_PAUSE
from d7agent.core.lifecycle.refreshing import RENEW_PAUSE
from d7agent.core.lifecycle.table import step
from d7agent.core.lifecycle.when import (
    alive,
    better_login,
    caller_login,
    in_store_trouble,
    next_attempt,
    snapshot,
    wake_at,
)

__all__ = [
    "PROOF_PAUSE",
    "RENEW_PAUSE",
    "alive",
    "better_login",
    "caller_login",
    "in_store_trouble",
    "next_attempt",
    "snapshot",
    "step",
    "wake_at",
]
