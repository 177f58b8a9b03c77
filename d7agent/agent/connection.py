"""One client's connection: bytes to calls, calls to the handler, answers to the client, within the limits.

Secrets come through here (StoreCredential, Lock, Unlock). They arrive in a buffer of ours (asyncio.BufferedProtocol:
uvloop and stock asyncio both receive straight into it and run nothing in between), are handed on as a view, and are
wiped before the loop gets its next turn: so one receive buffer serves all connections, and holds nothing in between.
"""

import asyncio
import logging
import socket
from _socket import socket as plain_socket
from collections import OrderedDict
from typing import Final

from d7agent.agent.call import Call
from d7agent.agent.dispatch import handle, own_answer, refusal
from d7agent.agent.host import Host
from d7agent.agent.peers import Peer, credentials, has_hung_up
from d7agent.agent.roster import Share
from d7agent.agent.stall import Stall
from d7agent.core.errors import AgentError
from d7agent.wire.framing import Inbox, ProtocolError, decode_call, encode_error
from d7agent.wire.messages import Envelope

QUICK: Final = b'{"method":"io.d7agent.GetToken"'  # how a request begins that can hold no secret and may be copied
QUICK_MAX: Final = 512  # bytes with the NUL; the longest such request of a client of ours has some 150

log = logging.getLogger("d7agent.agent.connection")


class Connection(asyncio.BufferedProtocol):
    """The protocol of one accepted socket, and the line that its calls answer on.

    A client that connects, asks once and leaves is the common one, so what it does not need is not made: the state
    below is the class's until it changes.
    """

    data_received = None  # uvloop looks for it in vain otherwise, and the AttributeError costs a microsecond

    peer: Peer
    _transport: asyncio.Transport
    _idle: "OrderedDict[Connection, None]"
    _share: "Share[Connection] | None" = None  # our place among the uid's connections, while we have one
    _call: Call | None = None  # the call in hand; while it is open, further requests wait
    _again: asyncio.Handle | None = None  # the turn to come, when the last one left requests for it
    _stall: Stall | None = None  # while answers wait for the client to read
    _half_since: float | None = None  # boot instant at which an unfinished request began
    _inbox: Inbox | None = None  # what waits here between two turns; during one, the shared inbox may be ours
    _held = 0  # bytes of it that are counted in our share
    _refusal: bytes | None = None  # the error frame for a peer that may not ask
    _checked = False  # whether that is up to date
    _ready = False  # nothing in hand, nothing waiting, admitted: the quick way is open
    has_asked = False  # whether any byte has come
    _turning = False
    _reading = True
    _closing = False
    _eof = False

    def __init__(self, host: Host) -> None:
        self._host = host

    # What the loop calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # a stream socket's
        """The peer has connected: see who it is, and whether its request is already there."""
        self._transport = transport
        sock = transport.get_extra_info("socket")
        # Our own object for two calls: asyncio's has no recv_into, uvloop's costs a new socket for each of its calls.
        own = plain_socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, sock.fileno())
        try:
            self.peer = Peer(*credentials(own), sock)
            share = self._share = self._host.opened(self)
            if share is None:
                self._drop("no room")
                return
            self._idle = share.idle
            self._idle[self] = None
            self._ready = self._refused() is None
            self._peek(own)
        finally:
            own.detach()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  we know our sizes
        """Where the loop receives to."""
        return (self._inbox or self._host.inbox).buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come. A request that the handler recognises as a whole is answered without being decoded."""
        self.has_asked = True
        if self._ready and nbytes <= QUICK_MAX:
            request = self._host.inbox.peek(QUICK, nbytes)
            frame = request and self._host.handler.quick(self.peer, request)
            if frame:
                self._idle.move_to_end(self)
                self._transport.write(frame)
                return
        inbox = self._inbox or self._host.inbox
        inbox.received(nbytes)
        if self._again is None:
            self._turn(inbox)
        else:
            self._keep(inbox)
            self._rest()

    def eof_received(self) -> bool:
        """The peer sends no more. It may still read (`nc -N`): then the connection stays for what it has asked."""
        self._eof = True
        if self._ready and not self._transport.get_write_buffer_size():
            return False
        if self._again is not None or (self._stall is not None and self._inbox is not None):
            return True
        if self._call is not None and not self._hung_up():
            self._host.watch(self)
            return True
        self.close()
        return False

    def pause_writing(self) -> None:
        """The peer does not read as fast as it is answered."""
        self._stall = Stall(self._transport, self._host.limits, self._host.clock.now().boot)
        if not self._turning:
            self._rest()

    def resume_writing(self) -> None:
        """It has taken all."""
        self._stall = None
        self._resume()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  any end is an end
        """The socket is closed."""
        self._closing = True
        self._ready = False
        if self._again is not None:
            self._again.cancel()
        if self._inbox is not None:
            self._inbox.clear()
        self._leave()
        call, self._call = self._call, None
        if call is not None:
            call.gone()

    # What the server and the calls use.

    @property
    def awaits_answer(self) -> bool:
        """Whether a call is open that has one answer."""
        return self._call is not None and not self._call.more

    def answer(self, call: Call, frame: bytes, *, last: bool) -> None:
        """Send one frame of the open call; `last` closes the call."""
        if call is not self._call:
            return
        if last:
            self._call = None
        if not call.oneway:
            self._send(frame)
        if last and not self._turning:
            self._resume()

    def policy_changed(self) -> None:
        """Whether the peer may ask is to be found out anew: at its next call, or now if one is open."""
        self._checked = self._ready = False
        call = self._call
        frame = None if call is None else self._refused()
        if call is None or frame is None:
            return
        self._call = None
        call.gone()
        if not call.oneway:
            self._send(frame)
        self._resume()

    def inspect(self, now: float) -> bool:
        """Drop a peer that keeps us waiting at boot instant `now`; whether to look again."""
        if self._half_since is not None and now - self._half_since >= self._host.limits.request_time:
            self._drop("its request is unfinished")
        elif self._stall is not None and self._stall.overdue(now):
            self._drop("it does not read")
        elif self._deaf() and self._hung_up():
            self._drop("it is gone")
        else:
            return self._half_since is not None or self._stall is not None or self._deaf()
        return False

    def evict(self) -> None:
        """Make room for another connection."""
        self._leave()
        self.close()

    def close(self) -> None:
        """Send what is waiting to be sent, then close."""
        self._closing, self._ready = True, False
        if self._stall is None and self._transport.get_write_buffer_size():
            self.pause_writing()  # a little is waiting, too little for the transport to say so: not for ever
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing, self._ready = True, False
        self._transport.abort()

    # One turn: a bounded number of requests, then the others'.

    def _peek(self, own: plain_socket) -> None:
        """Read the request that came while we accepted: it saves a client that connects and asks a turn of the loop."""
        try:
            count = own.recv_into(self._host.inbox.buffer(), 0, socket.MSG_DONTWAIT)
        except OSError:
            return
        if count:
            self.buffer_updated(count)

    def _turn(self, inbox: Inbox) -> None:
        """Serve what has come into the inbox, ours or the shared one."""
        self._again = None
        self._turning = True
        try:
            self._take(inbox)
        except ProtocolError as error:
            log.debug("%r: closed: %s", self.peer, error)
            inbox.clear()
            self.close()
        finally:
            self._keep(inbox)
            self._turning = False
            self._rest()

    def _take(self, inbox: Inbox) -> None:
        half_since, self._half_since = self._half_since, None
        for _ in range(self._host.limits.turn):
            if self._call is not None or self._stall is not None or self._closing:
                return
            message = inbox.next()
            if message is None:
                if inbox.waiting:
                    self._half_since = half_since or self._host.clock.now().boot
                return
            self._handle(message)
            half_since = None
        self._wait_for_turn()

    def _wait_for_turn(self) -> None:
        self._again = self._host.loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._turn(self._inbox or self._host.inbox)

    def _keep(self, inbox: Inbox) -> None:
        """Leave the inbox clean, and keep what waits in one of our own. Only the connection that filled it may."""
        settled = inbox.settle()
        self._inbox = None if settled is self._host.inbox else settled

    def _handle(self, message: memoryview) -> None:
        try:
            envelope = decode_call(message)
        except AgentError as error:
            self._send(encode_error(error))
            return
        frame = self._refused() or own_answer(self._host.service, envelope)
        if frame is None:
            self._hand_on(envelope)
        elif not envelope.oneway:
            self._send(frame)

    def _hand_on(self, envelope: Envelope) -> None:
        view = memoryview(envelope.parameters)
        more, oneway = bool(envelope.more), bool(envelope.oneway)
        self._call = Call(self, self.peer, envelope.method, view, more=more, oneway=oneway)
        if not handle(self._host.handler, self._call):
            self._drop("its call failed")

    def _refused(self) -> bytes | None:
        """The error frame for a peer that may not ask, None for one that may."""
        if not self._checked:
            self._refusal = refusal(self._host.handler, self.peer)
            self._checked = True
        return self._refusal

    # Between two turns.

    def _send(self, frame: bytes) -> None:
        if self._closing:
            return
        if self._stall is None:
            self._transport.write(frame)
        elif not self._stall.add(frame):
            self._drop("it leaves too much unread")

    def _resume(self) -> None:
        """Something that held up the waiting requests is over."""
        if self._turning:
            return
        if self._inbox is not None and self._again is None and not self._closing:
            self._wait_for_turn()
        self._rest()

    def _rest(self) -> None:
        """Put down what this connection waits for now."""
        free = self._call is None and self._stall is None and self._inbox is None
        if not free or not self._reading:
            self._brake()
        if self._closing:
            return
        self._ready = free and self._checked and self._refusal is None
        if free:
            self._idle[self] = None
            self._idle.move_to_end(self)
        else:
            self._idle.pop(self, None)
        self._hold()
        if self._eof and self._call is None and self._again is None and self._stall is None:
            self.close()

    def _brake(self) -> None:
        """Read no more than there is room for, and be looked after if the peer keeps us waiting."""
        full = self._inbox is not None and self._inbox.full
        if full is self._reading and not (self._eof or self._closing):
            self._reading = not full
            (self._transport.pause_reading if full else self._transport.resume_reading)()
        if self._half_since is not None or self._stall is not None or self._deaf():
            self._host.watch(self)

    def _hold(self) -> None:
        """Count the inbox in our share, and stay within it."""
        share, held = self._share, 0 if self._inbox is None else self._inbox.held
        if held != self._held and share is not None:
            share.bytes += held - self._held
            self._held = held
            if share.bytes > self._host.limits.half_requests:
                self._drop("its user leaves too many requests unfinished")

    def _deaf(self) -> bool:
        """Whether a call is open whose peer could leave without our reading it."""
        return self._call is not None and (self._eof or not self._reading)

    def _hung_up(self) -> bool:
        return has_hung_up(self._transport.get_extra_info("socket").fileno())

    def _leave(self) -> None:
        share, self._share = self._share, None
        if share is not None:
            share.bytes -= self._held
            self._held = 0
            self._host.closed(self, share)

    def _drop(self, why: str) -> None:
        log.debug("%r: dropped: %s", self.peer, why)
        self.abort()
