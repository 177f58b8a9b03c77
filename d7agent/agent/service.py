"""The methods of io.d7agent: decodes a call, asks the agent, replies. The hot path is `quick`."""

import logging
from collections.abc import Callable
from typing import Final

import msgspec

from d7agent.agent import access, status
from d7agent.agent.agent import Agent
from d7agent.agent.call import Call
from d7agent.agent.callers import Tally
from d7agent.agent.keeper import Keeper
from d7agent.agent.owner import Owner, Surroundings
from d7agent.agent.peers import Peer
from d7agent.agent.seldom import Seldom
from d7agent.agent.streams import Streams
from d7agent.core import states
from d7agent.core.clock import boot_time
from d7agent.core.errors import AgentError
from d7agent.core.model import Grant
from d7agent.core.states import Ask
from d7agent.wire import messages
from d7agent.wire.framing import ProtocolError, decode_call, decode_parameters

log = logging.getLogger(__name__)

DEFAULT_WAIT: Final = 30.0  # seconds GetToken waits for a login where the caller names none
KNOWN_REQUESTS: Final = 1024  # byte strings of requests recognised at sight; honest clients send a handful


class Service:
    """The server's Handler."""

    def __init__(self, agent: Agent, policy: access.Policy, surroundings: Surroundings) -> None:
        self.policy = policy
        self._agent = agent
        self._around = surroundings
        self._denials = access.Denials(agent.clock)
        self._streams = Streams(agent, self._status_frame)
        self._known: dict[bytes, Keeper] = {}
        self._missed: tuple[Peer, bytes] | None = None  # what `quick` was asked last and did not know
        self._reports = Seldom(agent.clock)  # of refused tokens, in the journal
        self.owner = Owner(agent, surroundings, self.profile_status)
        agent.on_configured.append(self._known.clear)
        agent.on_removed.append(self._forget_requests)
        agent.on_adopted.append(self._forget_requests)

    def subscribers(self, profile: str) -> int:
        """Open GetToken streams of a profile."""
        return self._streams.count(profile)

    def admit(self, peer: Peer) -> AgentError | None:
        """Whether the peer may ask at all."""
        error = self.policy.admit(peer)
        if error is not None:
            self._denials.note(peer.uid, error)
            self._agent.callers.refused(peer)
        return error

    def quick(self, peer: Peer, request: bytes) -> bytes | None:
        """The reply to a request seen before, when any good token will do and one is at hand."""
        keeper = self._known.get(request)
        if keeper is None:
            self._missed = peer, request
            return None
        boot = boot_time()
        frame = keeper.quick(boot)
        if frame is not None:
            tally = self._tally(peer)
            tally.grants += 1
            tally.seen = boot
        return frame

    def call(self, call: Call) -> None:
        """Answer one call, now or later."""
        missed, self._missed = self._missed, None
        name = call.method.rpartition(".")[2]
        try:
            denied = self.policy.may_call(call.peer, call.method)
            if denied is not None:
                self._denials.note(call.peer.uid, denied)
                self._tally(call.peer).denied += 1
                raise denied
            if self._agent.lock.locked and name not in ("GetStatus", "Unlock"):
                raise self._agent.lock.error()
            method = _METHODS.get(name)
            if method is None:
                self.owner.call(name, call)
                return
            method(self, call)
            if missed is not None and missed[0] is call.peer and name == "GetToken":
                self._recognise(missed[1], call)
        except AgentError as error:
            call.error(error)

    def get_token(self, call: Call) -> None:
        """GetToken of the interface."""
        wish = decode_parameters(_get_token, call.parameters)
        keeper = self._agent.resolve(wish.profile)
        ask = self._ask(call, wish.max_wait, min_validity=wish.min_validity)
        if call.more:
            self._asked(call, keeper, ask, lambda grant: self._streams.follow_token(call, keeper, grant))
        else:
            self._asked(call, keeper, ask, lambda grant: call.reply_frame(keeper.frame(grant)))

    def _recognise(self, request: bytes, call: Call) -> None:
        """The next request of exactly these bytes is answered by `quick`, if all it wants is any good token."""
        try:
            seen = decode_call(memoryview(request))
        except (AgentError, ProtocolError):
            return
        same = (seen.method, bool(seen.more), bool(seen.oneway)) == (call.method, call.more, call.oneway)
        if not same or seen.upgrade or bytes(seen.parameters) != bytes(call.parameters):
            return  # a request that never became a call left these bytes behind
        wish = decode_parameters(_get_token, call.parameters)
        if not call.more and not call.oneway and wish.min_validity is None:
            if len(self._known) >= KNOWN_REQUESTS:  # the oldest goes: nobody's variants keep out what others ask
                del self._known[next(iter(self._known))]
            self._known[request] = self._agent.resolve(wish.profile)

    def _ask(
        self,
        call: Call,
        max_wait: int | None,
        *,
        min_validity: int | None = None,
        refused: str | None = None,
    ) -> Ask:
        now = self._agent.clock.now()
        return Ask(
            asked=now,
            deadline=now.boot + (DEFAULT_WAIT if max_wait is None else max_wait),
            min_validity=min_validity,
            refused=refused,
            uid=None if self.policy.trusts(call.peer.uid) else call.peer.uid,
        )

    def _asked(self, call: Call, keeper: Keeper, ask: Ask, serve: Callable[[Grant], None]) -> None:
        """Put the question to the keeper; the call is answered when the keeper is."""

        def done(found: Grant | AgentError) -> None:
            call.on_gone = None
            if isinstance(found, AgentError):
                call.error(found)
                return
            self._granted(call.peer)
            serve(found)

        waiter = keeper.ask(ask, done)
        if waiter is not None:
            call.on_gone = lambda: keeper.leave(waiter)

    def reject_token(self, call: Call) -> None:
        """RejectToken of the interface."""
        wish = decode_parameters(_reject_token, call.parameters)
        keeper = self._agent.resolve(wish.profile)
        ask = self._ask(call, wish.max_wait, refused=wish.fingerprint)
        self._tally(call.peer).rejects += 1
        self._log_report(keeper, call.peer.uid, wish.fingerprint)
        keeper.feed(states.Refused(wish.fingerprint, ask.uid))
        self._asked(call, keeper, ask, lambda grant: call.reply_frame(keeper.frame(grant)))

    def _log_report(self, keeper: Keeper, uid: int, fingerprint: str) -> None:
        level = logging.INFO if self._reports.due(uid) else logging.DEBUG
        log.log(level, "%s: uid %d reports the token %s… as refused", keeper.profile.name, uid, fingerprint[:12])

    def renew_token(self, call: Call) -> None:
        """RenewToken of the interface."""
        wish = decode_parameters(_renew_token, call.parameters)
        keeper = self._agent.resolve(wish.profile)
        ask = self._ask(call, wish.max_wait)
        keeper.feed(states.Renewed())
        ask = msgspec.structs.replace(ask, attempt=keeper.state.attempts)
        self._asked(call, keeper, ask, lambda grant: call.reply_frame(keeper.frame(grant)))

    def get_status(self, call: Call) -> None:
        """GetStatus of the interface."""
        wish = decode_parameters(_get_status, call.parameters)
        frame = self._status_frame(wish.profile, continues=call.more)
        if call.more:
            self._streams.follow_status(call, wish.profile, frame)
        else:
            call.reply_frame(frame)

    def profile_status(self, keeper: Keeper) -> messages.ProfileStatus:
        """One profile's status with all that is known of it."""
        name = keeper.profile.name
        return status.profile_status(keeper, self._agent.clock.now(), self.subscribers(name), self._around.sinks(name))

    def _status_frame(self, profile: str | None, *, continues: bool = False) -> bytes:
        agent = self._agent
        keepers = list(agent.keepers.values()) if profile is None else [agent.resolve(profile)]
        reply = messages.StatusReply(
            agent=status.agent_status(
                agent,
                self._around.connections(),
                systemd=self._around.systemd,
                memory=self._around.memory(),
                hooks=self._around.hooks(),
            ),
            profiles=tuple(self.profile_status(keeper) for keeper in keepers),
        )
        end = b',"continues":true}\0' if continues else b"}\0"
        return b'{"parameters":' + msgspec.json.encode(reply) + end

    def _forget_requests(self, _: Keeper) -> None:
        self._known.clear()

    def _granted(self, peer: Peer) -> None:
        tally = self._tally(peer)
        tally.grants += 1
        tally.seen = boot_time()

    def _tally(self, peer: Peer) -> Tally:
        """The tally of a peer that may ask, looked up once a connection, or again when it had to make room."""
        if isinstance(peer.note, Tally) and peer.note.kept:
            return peer.note
        peer.note = tally = self._agent.callers.of(peer)
        return tally


_get_token = msgspec.json.Decoder(messages.GetToken)
_reject_token = msgspec.json.Decoder(messages.RejectToken)
_get_status = msgspec.json.Decoder(messages.GetStatus)
_renew_token = msgspec.json.Decoder(messages.RenewToken)

_METHODS: Final[dict[str, Callable[[Service, Call], None]]] = {
    "GetToken": Service.get_token,
    "RejectToken": Service.reject_token,
    "GetStatus": Service.get_status,
    "RenewToken": Service.renew_token,
}
