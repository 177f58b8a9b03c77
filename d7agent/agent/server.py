"""The listening side: accepts peers, keeps them within the limits, and looks after those that keep us waiting."""

import asyncio
import logging
import socket
from _socket import socket as plain_socket
from typing import Final

from d7agent import __version__
from d7agent.agent.call import Call, Handler
from d7agent.agent.connection import Connection
from d7agent.agent.guest import Guest
from d7agent.agent.heap import give_back
from d7agent.agent.limits import Limits, fit, raise_nofile
from d7agent.agent.listener import Listener
from d7agent.agent.peers import Peer
from d7agent.agent.poller import Poller
from d7agent.agent.roster import Roster, Share
from d7agent.agent.turns import Turns
from d7agent.core.clock import Clock, SystemClock
from d7agent.wire.framing import Inbox
from d7agent.wire.service import Service

__all__ = ["Call", "Handler", "Limits", "Peer", "Server", "fit", "raise_nofile"]

LOG_EVERY: Final = 60.0  # seconds between two log lines about a full house
LAST_CALL: Final = 0.5  # seconds at the end for those who have connected and are about to ask
CROWD: Final = 128  # connections; when so many were here and a quarter is left, their memory is given back
LOOK: Final = 0.01  # seconds between two looks whether they have

log = logging.getLogger("d7agent.agent.server")


class Server:
    """Serves `handler` on any number of listening sockets, in one event loop.

    `limits` should have been through `fit`. `clock` times the peers that keep us waiting; the loop's own timer only
    wakes us to look, and only while there is somebody to look at: an idle server has no timer.
    """

    loop: asyncio.AbstractEventLoop
    poller: Poller
    turns: Turns

    def __init__(self, handler: Handler, limits: Limits | None = None, clock: Clock | None = None) -> None:
        self.handler = handler
        self.limits = limits or Limits()
        self.clock: Clock = clock or SystemClock()
        self.service = Service(__version__)
        self.inbox = Inbox()
        self.roster: Roster[Guest] = Roster(self.limits)
        self._listeners: list[Listener] = []
        self._watched: dict[Guest, None] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._empty: asyncio.Event = asyncio.Event()
        self._closing = False
        self._full_logged = -LOG_EVERY
        self._most = 0  # connections at once, since the last crowd left

    @property
    def connections(self) -> int:
        """How many peers are connected."""
        return self.roster.count

    async def listen(self, sock: socket.socket) -> None:
        """Accept from a bound AF_UNIX stream socket, which is the server's from now on. Its file is left alone."""
        if not self._listeners:
            self.loop = asyncio.get_running_loop()
            self.poller = Poller(self.loop)
            self.turns = Turns(self.loop)
        self._listeners.append(Listener(self.loop, sock, self.limits.backlog, self._accepted))
        log.debug("listening on %s", sock.getsockname())

    def policy_changed(self) -> None:
        """Ask Handler.admit anew: now where a call is open, which ends if refused, else at the peer's next call."""
        for connection in self.roster:
            connection.policy_changed()

    async def close(self, grace: float) -> None:
        """Stop accepting, send what is waiting to be sent for at most `grace` seconds, close every connection.

        Who was accepted before is answered first, if that takes no longer than `grace`; streams just end. On a socket
        of systemd's, who comes later waits there for the next agent.
        """
        for listener in self._listeners:
            listener.close()
        began = self.clock.now().boot
        while (waited := self.clock.now().boot - began) < grace and self._owes(waited < LAST_CALL):  # noqa: ASYNC110
            await asyncio.sleep(LOOK)
        self._closing = True
        for connection in self.roster:
            connection.close()
        await self._emptied(grace)
        for connection in self.roster:
            connection.abort()
        await self._emptied(1.0)
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._listeners:
            self.poller.close()

    def _owes(self, newcomers: bool) -> bool:
        """Whether somebody waits for an answer; `newcomers`: or is about to ask."""
        return any(c.awaits_answer or (newcomers and not c.has_asked) for c in self.roster)

    async def _emptied(self, seconds: float) -> None:
        if not self.roster.count:
            return
        self._empty.clear()
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except TimeoutError:
            log.debug("%d connections are still open", self.connections)

    def _accepted(self, client: plain_socket, *, crowded: bool) -> bool:
        return Connection(self, client).open(crowded=crowded)

    # The connections' side (agent.connection.Host).

    def opened(self, guest: Guest) -> Share[Guest] | None:
        """A connection has come; None when it must go again."""
        if self._closing:
            return None
        uid = guest.peer.uid
        share = self.roster.join(guest, uid)
        self._most = max(self._most, self.roster.count)
        if share is None:
            self._tell_full(uid)
        return share

    def judged(self, guest: Guest, *, refused: bool) -> None:
        """It was found out whether its peer may ask."""
        self.roster.judged(guest, refused=refused)

    def closed(self, guest: Guest, share: Share[Guest]) -> None:
        """It gives its place back."""
        self.roster.leave(share, guest)
        self._watched.pop(guest, None)
        if not self.roster.count:
            self._empty.set()
        if self._most >= CROWD and self.roster.count <= self._most // 4:
            self._most = self.roster.count
            self.loop.call_soon(give_back)

    def watch(self, guest: Guest) -> None:
        """Inspect the connection at every sweep, as long as it says so."""
        self._watched[guest] = None
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(self.limits.sweep, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now = self.clock.now().boot
        watched, self._watched = self._watched, {}
        for connection in watched:
            if connection.inspect(now):
                self.watch(connection)

    def _tell_full(self, uid: int) -> None:
        now = self.clock.now().boot
        if now - self._full_logged >= LOG_EVERY:
            self._full_logged = now
            log.warning("refused a connection of uid %d: %d are open, none of them idle", uid, self.connections)
