"""One request, from its envelope to whoever answers it: the standard's part here, the handler, or nobody."""

import contextlib
import logging

from d7agent.agent.call import NOTHING, Call, Handler
from d7agent.agent.peers import Peer
from d7agent.core.errors import AgentError, InvalidParameter, PermissionDenied
from d7agent.wire.framing import encode_error, is_null
from d7agent.wire.messages import Envelope
from d7agent.wire.service import Service

log = logging.getLogger("d7agent.agent.dispatch")


def refusal(handler: Handler, peer: Peer) -> bytes | None:
    """The error frame for a peer that may not ask, or that cannot be checked; None for one that may."""
    try:
        error = handler.admit(peer)
    except Exception:
        log.exception("%r cannot be checked", peer)
        error = PermissionDenied("the agent cannot check who is asking", "the agent's log says why")
    return None if error is None else encode_error(error)


def own_answer(service: Service, envelope: Envelope) -> bytes | None:
    """The frame that answers the call, an error's where nobody can answer it; None when it is the handler's."""
    try:
        _check(envelope)
        return service.answer(envelope.method, envelope.parameters)
    except AgentError as error:
        return encode_error(error)


def _check(envelope: Envelope) -> None:
    if envelope.upgrade:
        raise InvalidParameter("upgrade: no method here changes the protocol", "leave it out", parameter="upgrade")
    if not is_null(envelope.parameters) and memoryview(envelope.parameters)[0] != ord("{"):
        raise InvalidParameter("parameters: not an object", "write {} for none", parameter="parameters")


def handle(handler: Handler, call: Call) -> bool:
    """Have the handler answer, now or later; False when it broke. The parameters are out of reach afterwards."""
    view = call.parameters
    if is_null(view):
        call.parameters = NOTHING
    try:
        handler.call(call)
    except AgentError as error:
        call.error(error)
    except Exception:
        log.exception("%s failed", call.method)
        return False
    finally:
        call.parameters = NOTHING
        with contextlib.suppress(BufferError):  # a slice was kept; what it shows is wiped with the turn
            view.release()
    return True
