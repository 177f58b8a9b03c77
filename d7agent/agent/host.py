"""What the connections of a server share."""

import asyncio
from typing import TYPE_CHECKING, Protocol

from d7agent.agent.call import Handler
from d7agent.agent.limits import Limits
from d7agent.agent.poller import Poller
from d7agent.agent.roster import Share
from d7agent.agent.turns import Turns
from d7agent.core.clock import Clock
from d7agent.wire.framing import Inbox
from d7agent.wire.service import Service

if TYPE_CHECKING:
    from d7agent.agent.guest import Guest


class Host(Protocol):
    """What all connections share: agent.server.Server."""

    handler: Handler
    limits: Limits
    clock: Clock
    service: Service
    inbox: Inbox
    loop: asyncio.AbstractEventLoop
    poller: Poller
    turns: Turns

    def opened(self, guest: "Guest") -> "Share[Guest] | None":
        """A connection has come; None when it must go again."""

    def judged(self, guest: "Guest", *, refused: bool) -> None:
        """It was found out whether its peer may ask."""

    def closed(self, guest: "Guest", share: "Share[Guest]") -> None:
        """It gives its place back."""

    def watch(self, guest: "Guest") -> None:
        """Call its `inspect` from time to time, as long as that says so."""
