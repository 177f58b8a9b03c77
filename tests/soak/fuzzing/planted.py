"""A target with a bug that no seed of the corpus shows: a round has to find it."""

from d7agent.wire.framing import decode_call
from d7agent.wire.messages import Envelope
from tests.soak.fuzzing.wire import Wire


def _careless(message: memoryview) -> Envelope:
    """A decoder that trips over a call which says that it wants no `more`."""
    envelope = decode_call(message)
    if envelope.more is False:
        raise KeyError("more")
    return envelope


one_input = Wire(_careless)
