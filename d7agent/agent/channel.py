"""One accepted socket: sends what its peer takes, keeps the rest until it takes more, and ends."""

import logging
from _socket import socket as plain_socket
from abc import ABC, abstractmethod
from typing import Final

from d7agent.agent.host import Host
from d7agent.agent.peers import Peer
from d7agent.agent.poller import LEFT, READ, WRITE
from d7agent.agent.unsent import DONT_WAIT, Unsent

log = logging.getLogger("d7agent.agent.channel")


class Channel(ABC):
    """The sending side, and the end. What comes in is `agent.connection.Connection`'s, which this is one half of.

    A client that connects, asks once and leaves is the common one, so what it does not need is not made: the state
    below is the class's until it changes.
    """

    peer: Peer
    _unsent: Unsent | None = None  # answers that wait for the client to read
    _watched = READ  # the events that the poller watches for
    _ready = False  # nothing in hand, nothing waiting, admitted: the quick way is open
    _turning = False  # requests are being handled; `_rest` follows
    _closing = False  # nothing more is read or answered

    def __init__(self, host: Host, sock: plain_socket) -> None:
        self._host: Final = host
        self._sock: Final = sock

    @abstractmethod
    def _receive(self) -> None:
        """Bytes have come, or the end of them."""

    @abstractmethod
    def _rest(self) -> None:
        """Put down what the connection waits for now."""

    @abstractmethod
    def _resume(self) -> None:
        """Something that held up the waiting requests is over."""

    @abstractmethod
    def _hung_up(self) -> None:
        """The peer has left while nothing was read from it."""

    @abstractmethod
    def _ended(self) -> None:
        """The socket is closed."""

    def ready(self, events: int) -> None:
        """Bytes have come, the peer takes answers again, or it has left: the poller's call."""
        if events & WRITE and self._unsent is not None:
            self._flush(self._unsent)
        if self._watched & READ:
            self._receive()
        elif events & LEFT:
            self._hung_up()

    def close(self) -> None:
        """Send what is waiting to be sent, then close."""
        self._closing = True
        self._ready = False
        if self._unsent is None:
            self.abort()
        else:
            self._watch(WRITE)

    def abort(self) -> None:
        """Close in the next turn of the loop: whoever is calling finds everything as it was."""
        self._closing = True
        self._ready = False
        self._unsent = None
        self._watch(0)
        self._host.loop.call_soon(self._finish)

    def _send(self, frame: bytes) -> None:
        if self._closing:
            return
        if self._unsent is not None:
            self._queue(self._unsent, frame)
            return
        try:
            count = self._sock.send(frame, DONT_WAIT)
        except BlockingIOError:
            count = 0
        except OSError:
            self._drop("it is gone")
            return
        if count < len(frame):
            self._unsent = Unsent(memoryview(frame)[count:], self._host.clock.now().boot)
            if not self._turning:
                self._rest()

    def _queue(self, unsent: Unsent, frame: bytes) -> None:
        if unsent.size > self._host.limits.unread:
            self._drop("it leaves too much unread")
        else:
            unsent.add(frame)

    def _flush(self, unsent: Unsent) -> None:
        try:
            done = unsent.flush(self._sock, self._host.clock.now().boot)
        except OSError:
            self._finish()
            return
        if done:
            self._unsent = None
            if self._closing:
                self._finish()
            else:
                self._resume()

    def _watch(self, events: int) -> None:
        if events != self._watched:
            self._watched = events
            self._host.poller.change(self._sock.fileno(), events)

    def _drop(self, why: str) -> None:
        log.debug("%r: dropped: %s", self.peer, why)
        self.abort()

    def _finish(self) -> None:
        """Close the socket."""
        number = self._sock.fileno()
        if number < 0:
            return
        self._closing = True
        self._ready = False
        self._watched = 0
        self._host.poller.forget(number)
        self._sock.close()
        self._ended()
