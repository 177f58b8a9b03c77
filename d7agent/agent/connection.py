"""One client's connection: bytes to calls, calls to the handler, answers to the client, within the limits.

Secrets come through here (StoreCredential, Lock, Unlock). They are received into a buffer of ours, handed on as a
view, and wiped before the loop gets its next turn: so one buffer serves all connections, and holds nothing in between.
"""

import logging
from typing import Final

from d7agent.agent.call import Call
from d7agent.agent.dispatch import handle, own_answer
from d7agent.agent.guest import Guest
from d7agent.agent.peers import Peer, credentials, has_hung_up
from d7agent.agent.poller import READ, WRITE
from d7agent.agent.unsent import DONT_WAIT
from d7agent.core.errors import AgentError
from d7agent.wire.framing import Inbox, ProtocolError, decode_call, encode_error
from d7agent.wire.messages import Envelope

QUICK: Final = b'{"method":"io.d7agent.GetToken"'  # how a request begins that can hold no secret and may be copied
QUICK_METHOD: Final = "io.d7agent.GetToken"
QUICK_MAX: Final = 512  # bytes with the NUL; the longest such request of a client of ours has some 150

log = logging.getLogger("d7agent.agent.connection")


class Connection(Guest):
    """The receiving side, and the line that its calls answer on."""

    _call: Call | None = None  # the call in hand; while it is open, further requests wait
    _again = False  # whether a turn is to come, because the last one left requests for it
    _inbox: Inbox | None = None  # what waits here between two turns; during one, the shared inbox may be ours
    _half_since: float | None = None  # boot instant at which an unfinished request began
    _eof = False  # the peer sends no more
    _asked = False  # whether bytes have come

    def open(self, *, crowded: bool = False) -> bool:
        """The peer has connected: see who it is, and serve the request that came with it.

        Whether it is still there. `crowded`: others wait behind it, whom one that has left costs no more than that.
        """
        inbox = self._host.inbox
        try:
            count = self._sock.recv_into(inbox.room, 0, DONT_WAIT)
        except BlockingIOError:
            count = -1
        except OSError:
            count = 0
        if count == 0 or (crowded and 0 < count <= QUICK_MAX and self._left_its_question(inbox, count)):
            self._sock.close()
            return False
        self.peer = Peer(*credentials(self._sock), self._sock)
        if not self._enter():
            inbox.received(max(count, 0))
            inbox.clear()
            self._sock.close()
            return True
        self._ready = self._refusal is None
        if count > 0:
            self._received(inbox, count)
        if not self._closing:
            self._host.poller.watch(self._sock.fileno(), self._watched, self.ready)
        return True

    def _left_its_question(self, inbox: Inbox, count: int) -> bool:
        """Whether the peer has gone, and what it wanted was a token and nothing else."""
        if not has_hung_up(self._sock.fileno()):
            return False
        request = inbox.peek(QUICK, count)
        return request is not None and _wants_a_token(request)

    def _receive(self) -> None:
        inbox = self._inbox or self._host.inbox
        try:
            count = self._sock.recv_into(inbox.room, 0, DONT_WAIT)
        except BlockingIOError:
            return
        except OSError:  # the peer has left without reading its answers
            count = 0
        if count:
            self._received(inbox, count)
        else:
            self._end_of_input()

    def _received(self, inbox: Inbox, count: int) -> None:
        """A request that the handler recognises as a whole is answered without being decoded."""
        self._asked = True
        if self._ready and count <= QUICK_MAX:
            request = inbox.peek(QUICK, count)
            try:
                frame = request and self._host.handler.quick(self.peer, request)
            except Exception:
                log.exception("a request cannot be looked up: it goes the long way")
                frame = None
            if frame:
                self._idle.move_to_end(self)
                self._was_quick()
                self._send(frame)
                return
        inbox.received(count)
        if self._again:
            self._keep(inbox)
            self._rest()
        else:
            self._turn(inbox)
        self._was_not_quick(more_to_come=self._again or self._half_since is not None)

    def _end_of_input(self) -> None:
        """The peer sends no more. It may still read (`nc -N`): then the connection stays for what it has asked."""
        self._eof = True
        if self._ready:
            self._finish()
        elif self._again or (not self._has_nothing_to_send() and not has_hung_up(self._sock.fileno())):
            self._rest()
        else:
            self._finish()

    def _hung_up(self) -> None:
        if not self._again:
            self._finish()

    def _has_nothing_to_send(self) -> bool:
        return self._call is None and not self._again and self._unsent is None

    def _ended(self) -> None:
        if self._again:
            self._host.turns.discard(self)
        if self._inbox is not None:
            self._inbox.clear()
        self._leave()
        call, self._call = self._call, None
        if call is not None:
            call.gone()

    # What the server and the calls use.

    @property
    def has_asked(self) -> bool:
        """Whether any byte has come."""
        return self._asked

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
        if last:
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
        limits = self._host.limits
        if self._half_since is not None and now - self._half_since >= limits.request_time:
            self._drop("its request is unfinished")
        elif self._unsent is not None and self._unsent.waited(now) >= limits.stall_time:
            self._drop("it does not read")
        return self._unsent is not None or (self._half_since is not None and not self._closing)

    # One turn: a bounded number of requests, then the others'.

    def _turn(self, inbox: Inbox) -> None:
        """Serve what has come into the inbox, ours or the shared one."""
        self._again = False
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
            if self._call is not None or self._unsent is not None or self._closing:
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
        self._again = True
        self._host.turns.add(self)

    def take_turn(self) -> None:
        """Go on with the requests that were sent ahead: the call of `agent.turns.Turns`."""
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

    # Between two turns.

    def _resume(self) -> None:
        """Something that held up the waiting requests is over."""
        if self._turning:
            return
        if self._inbox is not None and not self._again and not self._closing:
            self._wait_for_turn()
        self._rest()

    def _rest(self) -> None:
        """Put down what this connection waits for now."""
        free = self._call is None and self._unsent is None and self._inbox is None
        if not free or self._watched != READ:
            self._brake()
        if self._closing:
            return
        self._ready = free and self._checked and self._refusal is None
        half = self._half_since is not None and self._call is None and self._unsent is None
        self._place(free=free, half=half)
        self._hold(0 if self._inbox is None else self._inbox.held)
        if self._eof and self._has_nothing_to_send():
            self.close()

    def _brake(self) -> None:
        """Read no more than there is room for, and be looked after if the peer keeps us waiting."""
        full = self._inbox is not None and self._inbox.full
        reads = 0 if full or self._eof or self._closing else READ
        self._watch(reads if self._unsent is None else reads | WRITE)
        if self._half_since is not None or self._unsent is not None:
            self._host.watch(self)


def _wants_a_token(request: bytes) -> bool:
    """The beginning does not tell: of a key that comes twice the last one counts, and an answer may be unwanted."""
    try:
        envelope = decode_call(memoryview(request))
    except AgentError:
        return False
    return envelope.method == QUICK_METHOD and not envelope.oneway
