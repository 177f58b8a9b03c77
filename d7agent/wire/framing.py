"""Varlink framing without I/O: bytes in, messages out, in place.

A message is one JSON object ended by one NUL byte. Messages may hold secrets, so nothing here copies one to where it
cannot be wiped: bytes arrive in a buffer shared by all connections, only what is left over moves to a buffer of the
connection's own, both of fixed size (a bytearray that grows leaves its old block on the heap), and `settle` wipes.
"""

import re
from typing import Final, TypeVar

import msgspec

from d7agent.core.errors import INTERFACE, AgentError, InvalidParameter
from d7agent.wire.messages import MAX_REQUEST, Envelope

T = TypeVar("T")
BytesLike = bytes | bytearray | memoryview | msgspec.Raw

ROOM: Final = MAX_REQUEST + 1  # the largest request and its NUL
SIZES: Final = (2 * 1024, 16 * 1024, ROOM)  # own buffers: most half messages are small, and 8,192 peers may leave one
_NULS: Final = memoryview(bytes(ROOM))
NULL: Final = memoryview(b"null")
_BRACE: Final = ord("{")
_FIELD: Final = re.compile(r"`\$\.(\w+)|field `(\w+)`")  # where msgspec says which field is wrong or missing

_envelopes: Final = msgspec.json.Decoder(Envelope)
_anything: Final = msgspec.json.Decoder(msgspec.Raw)


class ProtocolError(Exception):
    """What came is no Varlink message: the connection cannot be trusted any further and is to be closed."""


class Inbox:
    """A buffer of bytes from a peer, and the messages in it that nobody has taken yet.

    Write to `room`, say how much to `received()`, take messages with `next()` until it is None or you have had
    enough, then go on with the inbox that `settle()` gives. `Inbox()` makes the one that all connections of a thread
    share: it is free for another connection after `settle()`, which moves what is left over to an inbox of its own.
    """

    __slots__ = ("_data", "_end", "_scanned", "_shared", "_start", "_view", "room")

    def __init__(self, size: int = ROOM, shared: "Inbox | None" = None) -> None:
        self._data = bytearray(size)
        self._view = self.room = memoryview(self._data)  # room: where the next bytes go; empty when `full`
        self._shared = shared
        self._start = self._scanned = self._end = 0

    def received(self, count: int) -> None:
        """`count` bytes were written to `room`."""
        self._end += count
        self.room = self._view[self._end :]

    def peek(self, prefix: bytes, count: int) -> bytes | None:
        """A copy of the message, without its NUL, that was just written to `room` in `count` bytes.

        None unless it is one whole message and begins with `prefix`. For messages that can hold no secret.
        """
        if self._data.startswith(prefix) and self._data.find(0, 0, count) == count - 1:
            return self._view[: count - 1].tobytes()
        return None

    def next(self) -> memoryview | None:
        """The next whole message without its NUL, valid until `settle()`; None while it is not all there.

        Raises ProtocolError for a message that does not begin with `{` or is larger than MAX_REQUEST.
        """
        start, end = self._start, self._end
        if start == end:
            return None
        if self._data[start] != _BRACE:
            raise ProtocolError("a message does not begin with {")
        stop = self._data.find(0, self._scanned, end)
        self._scanned = end
        if (end if stop < 0 else stop) - start > MAX_REQUEST:
            raise ProtocolError(f"a message is larger than {MAX_REQUEST} bytes")
        if stop < 0:
            return None
        self._start = self._scanned = stop + 1
        return self._view[start:stop]

    @property
    def waiting(self) -> int:
        """Bytes received and not taken."""
        return self._end - self._start

    @property
    def held(self) -> int:
        """Bytes of memory that one connection keeps by this inbox."""
        return 0 if self._shared is None else len(self._data)

    @property
    def full(self) -> bool:
        """Whether there is no room for another byte: reading has to pause until a message is taken."""
        return self._end == ROOM

    def settle(self) -> "Inbox":
        """Wipe what was taken; the inbox that holds the rest and takes the next bytes. Messages are no longer valid."""
        left = self._end - self._start
        if not left:
            return self.clear()
        if self._shared is None or (left == len(self._data) and left < ROOM):
            return self._moved(left)
        if self._start:
            # A slice of a memoryview is moved in place; one of a bytearray would be a copy on the heap.
            self._view[:left] = self._view[self._start : self._end]
            _wipe(self._view, left, self._end)
            self._scanned -= self._start
            self._start, self._end = 0, left
            self.room = self._view[left:]
        return self

    def clear(self) -> "Inbox":
        """Forget and wipe everything; the shared inbox."""
        _wipe(self._view, 0, self._end)
        self._start = self._scanned = self._end = 0
        self.room = self._view
        return self._shared or self

    def _moved(self, left: int) -> "Inbox":
        inbox = Inbox(next(size for size in SIZES if left < size or size == ROOM), self._shared or self)
        inbox._view[:left] = self._view[self._start : self._end]
        inbox._scanned = self._scanned - self._start
        inbox.received(left)
        self.clear()
        return inbox


def _wipe(view: memoryview, start: int, end: int) -> None:
    view[start:end] = _NULS[: end - start]


def decode_call(message: BytesLike) -> Envelope:
    """The envelope of one message; its `parameters` are a view onto `message`, not a copy.

    Raises InvalidParameter when the message is JSON but no call, ProtocolError when it is not JSON.
    """
    try:
        return _envelopes.decode(message)
    except msgspec.ValidationError as error:
        wrong = error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("a message is not JSON") from error
    try:
        _anything.decode(message)  # the first wrong type ends msgspec's reading: the rest may still be rubbish
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("a message is not JSON") from error
    raise _invalid(wrong, "method") from None


def is_null(parameters: BytesLike) -> bool:
    """Whether parameters are null, which means the same as none and as `{}`."""
    return memoryview(parameters) == NULL


def decode_parameters(decoder: msgspec.json.Decoder[T], parameters: BytesLike) -> T:
    """Parameters as `decoder`'s struct. Raises InvalidParameter, naming the field, for whatever does not fit."""
    try:
        return decoder.decode(b"{}" if is_null(parameters) else parameters)
    except msgspec.ValidationError as error:
        raise _invalid(error, "parameters") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidParameter("the parameters are not JSON", parameter="parameters") from None


def _invalid(error: msgspec.ValidationError, otherwise: str) -> InvalidParameter:
    text = str(error)
    found = _FIELD.search(text)
    name = (found[1] or found[2]) if found else otherwise
    what = text.partition(" - at ")[0]
    hint = f"the interface says what {INTERFACE} takes: varlinkctl introspect, or GetInterfaceDescription"
    return InvalidParameter(f"{name}: {what[:1].lower()}{what[1:]}", hint, parameter=name)


def encode_reply(parameters: bytes, *, continues: bool = False) -> bytes:
    """The frame of a reply. `parameters`: a JSON object; `continues`: more replies to the same call will follow."""
    end = b',"continues":true}\0' if continues else b"}\0"
    return b'{"parameters":' + parameters + end


def encode_error(error: AgentError) -> bytes:
    """The frame of an error: its fields (those that are not None), its message, and its hint.

    Standard errors keep the fields they are specified with; message and hint come on top, for people.
    """
    parameters = {name: value for name, value in error.fields.items() if value is not None}
    parameters["message"] = error.message
    parameters["hint"] = error.hint
    return msgspec.json.encode({"error": error.name, "parameters": parameters}) + b"\0"
