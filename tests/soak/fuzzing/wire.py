"""What peers send: any bytes, in any pieces, through framing, envelope, parameters and the standard's own answers.

An input is text where it can be: its first byte is the plan, a line break stands for the NUL that ends a message, and
under a plan of small letters each `~` for a kilobyte of them, so that short inputs reach the larger buffers.
"""

import json
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from d7agent.agent.dispatch import own_answer
from d7agent.core.errors import AgentError, InvalidParameter
from d7agent.wire import messages
from d7agent.wire.framing import ROOM, Inbox, ProtocolError, decode_call, decode_parameters, encode_error
from d7agent.wire.messages import MAX_REQUEST, Envelope
from d7agent.wire.service import Service
from tests.soak.broken import Broken, need

FIRST: Final = (1, 2, 3, 7, 20, 64, 500, ROOM)  # bytes that come at first; the rest in equal pieces
TURNS: Final = (1, 2, 3, 16)  # messages taken in one turn of the loop
PIECES: Final = 2  # of that rest: more only cost time
MOST_DECODED: Final = 4  # messages of one input
BLOWN: Final = b"~" * 1000
LARGEST: Final = 3 * ROOM  # bytes of a stream
HONEST: Final = b'{"method":"org.varlink.service.GetInfo"}'
ZEROS: Final = bytes(ROOM)

STRUCTS: Final[tuple[type[msgspec.Struct], ...]] = (
    messages.GetToken,
    messages.RejectToken,
    messages.GetStatus,
    messages.RenewToken,
    messages.StoreCredential,
    messages.ForgetCredential,
    messages.Empty,
)
DECODERS: Final[tuple[tuple[msgspec.json.Decoder[Any], frozenset[str]], ...]] = tuple(
    (msgspec.json.Decoder(struct), frozenset({*struct.__struct_fields__, "parameters"})) for struct in STRUCTS
)

FIELDS: Final = (
    *('"method":"io.d7agent.GetToken",', '"method":"org.varlink.service.GetInfo",', '"method":"a.b",', '"method":1,'),
    *('"parameters":{},', '"parameters":null,', '"parameters":[],', '"parameters":"x",'),
    *(f'"{flag}":{value},' for flag in ("more", "oneway", "upgrade") for value in ("true", "false", "null", "1")),
    *('"profile":"x",', '"profile":"X",', '"profile":null,', '"min_validity":30,', '"max_wait":-1,', '"max_wait":1e9,'),
    *('"fingerprint":"0",', '"verify":true,', '"base_url":"x",', '"store":5,', '"interface":"io.d7agent",'),
    *('"x":{"y":[{}]},', '"\\u0078":"\\ud83d\\ude00",', '"x":-0.0e-99,', '"x":18446744073709551616,'),
    *('"method":"a.b"}\n{', '"x":1}\n{"method":"org.varlink.service.GetInfo"}\n{'),
)
_JSON: Final = json.JSONDecoder(strict=False)

Decode = Callable[[memoryview], Envelope]


class Heard(NamedTuple):
    """What a peer's bytes amount to: whole messages, whether the rest is no Varlink, and how many bytes wait."""

    messages: list[bytes]
    refused: bool
    waiting: int


class Peers:
    """A peer that sends anything and one that is honest, over one shared buffer, as the server's loop has it."""

    def __init__(self, shared: Inbox | None = None) -> None:
        self._shared = shared or Inbox()

    def hear(self, pieces: list[bytes], most: int) -> Heard:
        """What comes in these pieces, `most` messages a turn. The shared buffer is looked at every time."""
        inbox, found = self._shared, list[bytes]()
        try:
            for piece in pieces:
                while piece:
                    count = min(len(inbox.room), len(piece))
                    inbox.room[:count] = piece[:count]
                    inbox.received(count)
                    piece = piece[count:]  # noqa: PLW2901  a full inbox takes a piece in parts
                    inbox = self._turn(inbox, found, most)
            while (before := len(found)) >= 0 and inbox.waiting:
                inbox = self._turn(inbox, found, most)
                if len(found) == before:
                    break
        except ProtocolError:
            self._end(inbox)
            return Heard(found, refused=True, waiting=0)
        waiting = inbox.waiting
        self._end(inbox)
        return Heard(found, refused=False, waiting=waiting)

    def _turn(self, inbox: Inbox, found: list[bytes], most: int) -> Inbox:
        touched = inbox.waiting
        for _ in range(most):
            message = inbox.next()
            if message is None:
                break
            found.append(bytes(message))
        settled = inbox.settle()
        need(self._shared._data.startswith(ZEROS[:touched]), "bytes of one peer are left in the buffer of all")
        if settled is not self._shared:
            self._be_honest()
        return settled

    def _be_honest(self) -> None:
        shared = self._shared
        size = len(HONEST) + 1
        shared.room[:size] = HONEST + b"\0"
        shared.received(size)
        message = shared.next()
        need(message is not None and bytes(message) == HONEST, "another peer's message is not what it sent")
        need(shared.settle() is shared, "the buffer of all is not free after a whole message")

    def _end(self, inbox: Inbox) -> None:
        need(inbox.clear() is self._shared, "a closed connection does not give the buffer back")
        if inbox is not self._shared:
            need(inbox._data == ZEROS[: len(inbox._data)], "bytes are left in a buffer that was given up")
        need(self._shared._data == ZEROS, "bytes of one peer are left in the buffer of all")


def model(stream: bytes) -> Heard:
    """The same, as plainly as it can be written."""
    found = list[bytes]()
    rest = stream
    while rest:
        message, end, after = rest.partition(b"\0")
        if not rest.startswith(b"{") or len(message) > MAX_REQUEST:
            return Heard(found, refused=True, waiting=0)
        if not end:
            break
        found.append(message)
        rest = after
    return Heard(found, refused=False, waiting=len(rest))


def _cut(stream: bytes, first: int) -> list[bytes]:
    size = max(1, -(-(len(stream) - first) // PIECES))
    return [stream[:first], *(stream[start : start + size] for start in range(first, len(stream), size))]


class Wire:
    """The target. The decoders can be others, to see that broken ones are found."""

    starts, parts = b"{,", tuple(field.encode() for field in FIELDS)

    def __init__(self, decode: Decode = decode_call, shared: Inbox | None = None) -> None:
        self._decode = decode
        self._peers = Peers(shared)
        self._service = Service("0")

    def __call__(self, data: bytes) -> None:
        """One input. Raises Broken, or whatever a decoder lets out that it should not."""
        if not data:
            return
        plan = data[0]
        stream = data[1:].replace(b"\n", b"\0")
        if plan & 0xE0 == 0x60:
            stream = stream.replace(b"~", BLOWN)[:LARGEST]
        heard = self._peers.hear(_cut(stream, FIRST[plan & 7]), TURNS[plan >> 3 & 3])
        need(heard == model(stream), "the messages depend on the pieces in which they came")
        for message in heard.messages[:MOST_DECODED]:
            self._judge(message)

    def _judge(self, message: bytes) -> None:
        try:
            envelope = self._decode(memoryview(message))
        except ProtocolError:
            return
        except AgentError as error:
            if not isinstance(error, InvalidParameter):
                raise Broken(f"a bad envelope is answered with {error.name}") from error
            _check_error(error, frozenset(Envelope.__struct_fields__))
            return
        _check_envelope(envelope, message)
        frame = own_answer(self._service, envelope)
        if frame is not None:
            _check_frame(frame)
            return
        need(envelope.method in self._service.methods, "a method that does not exist goes to the handler")
        _decode_for_all(envelope)


def _decode_for_all(envelope: Envelope) -> None:
    """The parameters as each method would have them: what fits one need not fit another."""
    wrong: InvalidParameter | None = None
    for decoder, names in DECODERS:
        try:
            decode_parameters(decoder, envelope.parameters)
        except InvalidParameter as error:
            need(error.fields["parameter"] in names, f"InvalidParameter names a field that is none: {error.fields}")
            wrong = error
    if wrong is not None:
        _check_frame(encode_error(wrong))


def _check_envelope(envelope: Envelope, message: bytes) -> None:
    """Another reader of JSON sees the same call. Strings that nobody reads need not be UTF-8."""
    told = _JSON.decode(message.decode("utf-8", "surrogateescape"))
    need(told["method"] == envelope.method, "another reader of JSON sees another method")
    flags = told.get("more"), told.get("oneway"), told.get("upgrade")
    need(flags == (envelope.more, envelope.oneway, envelope.upgrade), "another reader of JSON sees other flags")
    need(bytes(envelope.parameters) in message or "parameters" not in told, "parameters that nobody sent")


def _check_error(error: InvalidParameter, names: frozenset[str]) -> None:
    need(error.fields["parameter"] in names, f"InvalidParameter names a field that is none: {error.fields}")
    need(error.message.strip(), "an error without words")
    _check_frame(encode_error(error))


def _check_frame(frame: bytes) -> None:
    need(frame.endswith(b"}\0") and frame.count(b"\0") == 1, "a frame that is not ended by one NUL")
    need(isinstance(msgspec.json.decode(frame[:-1])["parameters"], dict), "a frame without parameters")


one_input = Wire()
