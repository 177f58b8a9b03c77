"""Faults of the way there and back: slow, hanging, cut off, far too large, a clock that is wrong."""

import math
import zlib
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from typing import Final

from d7agent.sandbox.answers import Answer
from d7agent.sandbox.faults.kind import Play, fault

PLACES: Final = ("before", "headers", "body")
GIB: Final = 1 << 30
PIECE: Final = 1 << 16
HEAD: Final = b'{"token_type":"bearer","access_token":"'
TAIL: Final = b'"}'


@fault("slow", "waits delay= seconds before the reply, within its headers or before its body", delay=2.0, where=PLACES)
def _slow(play: Play) -> Answer:
    return _delayed(play, play.options.number("delay"))


@fault("hang", "stops for ever before the reply, within its headers or before its body", where=PLACES)
def _hang(play: Play) -> Answer:
    return _delayed(play, math.inf)


@fault("drip", "the right reply at rate= bytes a second", rate=1.0)
def _drip(play: Play) -> Answer:
    return replace(play.answer, rate=max(play.options.number("rate"), 0.001))


@fault("truncated", "closes after keep= bytes of the body (-1: half of it)", keep=-1)
def _truncated(play: Play) -> Answer:
    keep = play.options.whole("keep")
    size = len(play.answer.body) if isinstance(play.answer.body, bytes) else 0
    return replace(play.answer, keep=size // 2 if keep < 0 else keep)


@fault("close", "reads the request and closes without a byte")
def _close(play: Play) -> Answer:
    return replace(play.answer, cut="close")


@fault("reset", "reads the request and resets the connection")
def _reset(play: Play) -> Answer:
    return replace(play.answer, cut="reset")


@fault("too-large", "a token reply of size= bytes, made while it is sent; announce=yes tells its length", size=GIB,
       announce=("no", "yes"))  # fmt: skip
def _too_large(play: Play) -> Answer:
    size = play.options.whole("size")
    length = size if play.options.text("announce") == "yes" else None
    return Answer(200, lambda: _large(size), length=length)


@fault("gzip-bomb", "a small gzip body that unpacks to a token reply of size= bytes", size=GIB)
def _gzip_bomb(play: Play) -> Answer:
    size = play.options.whole("size")
    return Answer(200, lambda: _zipped(_large(size)), headers=(("Content-Encoding", "gzip"),))


@fault("date-absurd", "the right reply with value= as its Date header", value="Thu, 99 Foo 9999 99:99:99 GMT")
def _date_absurd(play: Play) -> Answer:
    return replace(play.answer, date=play.options.text("value"))


@fault("date-missing", "the right reply without a Date header")
def _date_missing(play: Play) -> Answer:
    return replace(play.answer, date=None)


@fault("date-skew", "the right reply, its Date header off by seconds= (may be negative)", seconds=3600.0)
def _date_skew(play: Play) -> Answer:
    return replace(play.answer, date=formatdate(play.now + play.options.number("seconds"), usegmt=True))


def _delayed(play: Play, seconds: float) -> Answer:
    before, headers, body = (seconds if place == play.options.text("where") else 0.0 for place in PLACES)
    return replace(play.answer, delays=(before, headers, body))


def _large(size: int) -> Iterator[bytes]:
    """A JSON token reply of `size` bytes, in pieces."""
    yield HEAD
    left = size - len(HEAD) - len(TAIL)
    while left > 0:
        yield b"A" * min(left, PIECE)
        left -= PIECE
    yield TAIL


def _zipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)  # + 16: with gzip's header and trailer
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()
