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
    from d7agent.agent.connection import Connection


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

    def opened(self, connection: "Connection") -> "Share[Connection] | None":
        """A connection has come; None when it must go again."""

    def closed(self, connection: "Connection", share: "Share[Connection]") -> None:
        """It gives its place back."""

    def watch(self, connection: "Connection") -> None:
        """Call its `inspect` from time to time, as long as that says so."""
