"""Framing: any chunking gives the same messages, rubbish gives protocol errors, nothing is left in the buffers."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d7agent.core.errors import AgentError, InvalidParameter, TokenUnavailable
from d7agent.wire.framing import (
    ROOM,
    SIZES,
    Inbox,
    ProtocolError,
    decode_call,
    decode_parameters,
    encode_error,
    encode_reply,
)
from d7agent.wire.messages import MAX_REQUEST, GetToken

MESSAGE = st.binary(max_size=3000).map(lambda body: b"{" + body.replace(b"\0", b"x"))
SCRIPT = st.lists(st.tuples(st.integers(0, 2), MESSAGE), max_size=12)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=8)
CALL = st.dictionaries(st.sampled_from(["method", "parameters", "more", "oneway", "upgrade", "x"]), JSON)


def feed(inbox: Inbox, data: bytes, found: list[bytes]) -> Inbox:
    """Bytes into the inbox, as a loop would write them, and its messages out of it."""
    while data:
        room = inbox.room
        count = min(len(room), len(data))
        room[:count] = data[:count]
        data = data[count:]
        inbox.received(count)
        while (message := inbox.next()) is not None:
            found.append(bytes(message))
        inbox = inbox.settle()
    return inbox


@given(SCRIPT, st.data())
def test_any_chunking_gives_the_same_messages(script: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """Three peers in turn over one shared buffer, cut anywhere: each one's messages come out whole and in order."""
    shared = Inbox()
    streams = {peer: b"".join(text + b"\0" for who, text in script if who == peer) for peer in range(3)}
    inboxes, found = dict.fromkeys(streams, shared), {peer: list[bytes]() for peer in streams}
    while any(streams.values()):
        peer = data.draw(st.sampled_from([peer for peer, rest in streams.items() if rest]))
        cut = data.draw(st.integers(1, len(streams[peer])))
        inboxes[peer] = feed(inboxes[peer], streams[peer][:cut], found[peer])
        streams[peer] = streams[peer][cut:]
    for peer in streams:
        assert found[peer] == [text for who, text in script if who == peer]
        assert inboxes[peer] is shared
    assert bytes(shared._data) == bytes(ROOM)


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_rubbish_gives_only_protocol_errors(chunks: list[bytes]) -> None:
    """Whatever bytes come, they are messages or one ProtocolError, and clear() leaves nothing of them."""
    shared = inbox = Inbox()
    found: list[bytes] = []
    try:
        for chunk in chunks:
            inbox = feed(inbox, chunk, found)
    except ProtocolError:
        pass
    assert all(message.startswith(b"{") for message in found)
    inbox.clear()
    assert bytes(inbox._data).strip(b"\0") == b""
    assert bytes(shared._data) == bytes(ROOM)


@given(st.binary(max_size=300) | CALL.map(lambda call: json.dumps(call).encode()))
def test_rubbish_decodes_to_a_call_or_an_error(message: bytes) -> None:
    """decode_call gives an envelope, InvalidParameter or ProtocolError, and nothing else, for any bytes."""
    fields: list[object] = []
    try:
        assert isinstance(decode_call(message).method, str)
    except InvalidParameter as error:
        fields.append(error.fields["parameter"])
        json.loads(message.decode("latin-1"))  # JSON it was: what nobody reads need not be UTF-8
    except ProtocolError:
        pass
    assert set(fields) <= {"method", "more", "oneway", "upgrade"}


@given(st.binary(max_size=100) | JSON.map(lambda value: json.dumps(value).encode()))
def test_rubbish_parameters_are_invalid_parameters(parameters: bytes) -> None:
    """decode_parameters gives the struct or InvalidParameter, and nothing else, for any bytes."""
    fields: list[object] = []
    try:
        assert isinstance(decode_parameters(msgspec.json.Decoder(GetToken), parameters), GetToken)
    except InvalidParameter as error:
        fields.append(error.fields["parameter"])
    assert set(fields) <= {"parameters", "profile", "min_validity", "max_wait"}


def feed_in_chunks(data: bytes, chunk: int) -> list[bytes]:
    """The messages in data that comes `chunk` bytes at a time."""
    inbox, found = Inbox(), list[bytes]()
    for start in range(0, len(data), chunk):
        inbox = feed(inbox, data[start : start + chunk], found)
    return found


@pytest.mark.parametrize("size", [1, MAX_REQUEST - 1, MAX_REQUEST])
@pytest.mark.parametrize("chunk", [1000, ROOM])
def test_up_to_64_kib(size: int, chunk: int) -> None:
    """A message of up to 64 KiB passes, however it comes."""
    message = b"{" + b"x" * (size - 1)
    assert feed_in_chunks(message + b"\0", chunk) == [message]


@pytest.mark.parametrize("end", [b"", b"\0"])
@pytest.mark.parametrize("chunk", [1000, ROOM])
def test_more_than_64_kib_is_refused(end: bytes, chunk: int) -> None:
    """One byte more is refused, with its end or without."""
    data = b"{" + b"x" * MAX_REQUEST + end
    with pytest.raises(ProtocolError, match="larger"):
        feed_in_chunks(data, chunk)


def test_an_own_buffer_is_as_large_as_needed() -> None:
    """What is left over takes the smallest buffer it fits in, and the buffers left behind are clean."""
    shared = inbox = Inbox()
    seen = [inbox]
    for _ in range(0, MAX_REQUEST, 512):
        inbox = feed(inbox, b"{" * 512, [])
        if inbox is not seen[-1]:
            seen.append(inbox)
    assert [len(inbox._data) for inbox in seen] == [ROOM, *SIZES]
    assert [inbox.held for inbox in seen] == [0, *SIZES]
    assert all(bytes(inbox._data) == bytes(len(inbox._data)) for inbox in seen[:-1])
    assert inbox.waiting == MAX_REQUEST
    assert inbox.clear() is shared


def test_a_full_inbox_says_so() -> None:
    """With 64 KiB of untaken messages there is no room, until one is taken."""
    shared = Inbox()
    shared.room[:] = (b"{%s\0" % (b"x" * 99) * 1000)[:ROOM]
    shared.received(ROOM)
    inbox = shared.settle()
    assert inbox is not shared
    assert inbox.full
    assert len(inbox.room) == 0
    assert inbox.next() is not None
    inbox = inbox.settle()
    assert not inbox.full
    assert len(inbox.room) == 101


def test_peek_is_for_one_whole_message() -> None:
    """peek gives the message just written if it begins as asked and ends with the NUL."""
    inbox = Inbox()
    inbox.room[:6] = b'{"a"}\0'
    assert inbox.peek(b'{"a"', 6) == b'{"a"}'
    assert inbox.peek(b'{"b"', 6) is None
    assert inbox.peek(b'{"a"', 5) is None
    inbox.room[:12] = b'{"a"}\0{"a"}\0'
    assert inbox.peek(b'{"a"', 12) is None


def test_parameters_are_not_copied() -> None:
    """The envelope's parameters are a view onto the message: what is wiped there is gone."""
    message = bytearray(b'{"method":"io.d7agent.Lock","parameters":{"passphrase":"s3cret"}}')
    parameters = memoryview(decode_call(memoryview(message)).parameters)
    assert bytes(parameters) == b'{"passphrase":"s3cret"}'
    message[:] = bytes(len(message))
    assert bytes(parameters) == bytes(len(parameters))


@pytest.mark.parametrize("parameters", [b"null", b"{}", b"{ }", b'{"profile":null}', b'{"unknown":1}'])
def test_nothing_in_many_spellings(parameters: bytes) -> None:
    """Null, an empty object, null fields and unknown fields all mean the defaults."""
    assert decode_parameters(msgspec.json.Decoder(GetToken), parameters) == GetToken()


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        (b'{"profile":5}', "profile"),
        (b'{"profile":"UPPER"}', "profile"),
        (b'{"min_validity":-1}', "min_validity"),
        (b'{"max_wait":1e300}', "max_wait"),
        (b'{"max_wait":99999999999999999999999}', "max_wait"),
        (b"[]", "parameters"),
        (b"{", "parameters"),
        (b'{"profile":"\xff"}', "parameters"),
        (b'{"x":' + b"[" * 60_000 + b"}", "parameters"),
    ],
)
def test_wrong_parameters_are_named(parameters: bytes, field: str) -> None:
    """InvalidParameter names the field at fault."""
    with pytest.raises(InvalidParameter) as caught:
        decode_parameters(msgspec.json.Decoder(GetToken), parameters)
    assert caught.value.fields["parameter"] == field
    assert caught.value.message


def test_reply_frames() -> None:
    """A reply is one object and one NUL, with `continues` only when more will follow."""
    assert encode_reply(b'{"a":1}') == b'{"parameters":{"a":1}}\0'
    assert encode_reply(b"{}", continues=True) == b'{"parameters":{},"continues":true}\0'


def test_error_frames() -> None:
    """An error carries its fields, message and hint; a field that is None is left out."""
    frame = encode_error(TokenUnavailable("no route", "try later", reason="connect", retry_after=None))
    assert frame.endswith(b"\0")
    assert json.loads(frame[:-1]) == {
        "error": "io.d7agent.TokenUnavailable",
        "parameters": {"reason": "connect", "message": "no route", "hint": "try later"},
    }


def test_every_error_has_a_frame() -> None:
    """Each class of core.errors can be sent."""
    for kind in AgentError.__subclasses__():
        assert json.loads(encode_error(kind("m", "h"))[:-1])["error"] == kind.name
