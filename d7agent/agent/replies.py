"""A token's replies, encoded once per token: the hot path only splices in the seconds that are left."""

from typing import Final

import msgspec

from d7agent.core import schedule
from d7agent.core.model import Grant, Stamp, State
from d7agent.core.wipe import wipe
from d7agent.wire.messages import Token

ESCAPED: Final = 4  # bytes of a reply for a byte of the token: it is in there twice, and each may need a backslash
ENVELOPE: Final = 1024  # bytes for all else: a profile's name and a few numbers

_BEGIN = b'{"parameters":{"token":'
_END = b"}}}\0"
_CONTINUES = b'}},"continues":true}\0'
_encoder = msgspec.json.Encoder()


class Head:
    """The reply of the token in hand: one frame, made anew when a second has passed, and good until `until`."""

    __slots__ = ("_cut", "_expires", "_frame", "_frame_until", "_until")

    def __init__(self) -> None:
        self._frame = b""  # the whole reply as it was last sent, so that the agent holds it once
        self._cut = 0  # where `valid_for` goes
        self._frame_until = 0.0
        self._until = 0.0
        self._expires: float | None = None

    def stale(self) -> None:
        """What the reply says may be wrong now: it has to be encoded anew."""
        self._until = self._frame_until = 0.0

    def clear(self) -> None:
        """Forget the token."""
        self.stale()
        self._put(b"")

    def _put(self, frame: bytes) -> None:
        """Hold this frame; the former one is overwritten, unless a client that reads slowly still waits for it."""
        spent = [self._frame]
        self._frame = frame
        wipe(spent)

    def serves(self, boot: float) -> bool:
        """Whether the reply is good for any caller who names no validity."""
        return boot < self._until

    def quick(self, boot: float) -> bytes | None:
        """The whole reply, or None where there is something to decide."""
        if boot < self._frame_until:
            return self._frame
        return self.frame(boot) if boot < self._until else None

    def frame(self, boot: float, *, continues: bool = False) -> bytes:
        """The whole reply at boot instant `boot`: `valid_for` is rounded down, so that it never promises too much."""
        left = b"" if self._expires is None else b',"valid_for":%d' % (self._expires - boot)
        with memoryview(self._frame) as whole, whole[: self._cut] as start:
            made = b"".join((start, left, _CONTINUES if continues else _END))
        if continues:
            return made
        self._put(made)
        second = self._until if self._expires is None else self._expires - int(self._expires - boot)
        self._frame_until = min(self._until, second)
        return self._frame

    def encode(self, profile: str, grant: Grant, serial: int, state: State, now: Stamp, until: float | None) -> None:
        """Take a token. `until`: the boot instant from which `state` will be another, or None."""
        self._put(_encoded(profile, grant, serial, state, now))
        self._cut = len(self._frame)
        self._expires = grant.expires
        self._until = float("inf") if grant.expires is None else grant.expires - schedule.leeway(grant)
        if until is not None:
            self._until = min(self._until, until)
        self._frame_until = 0.0


def _encoded(profile: str, grant: Grant, serial: int, state: State, now: Stamp) -> bytes:
    """The frame up to where `valid_for` goes, encoded so that no other copy of the token is left behind."""
    token = grant.access_token.reveal()
    header = [f"Bearer {token}"]
    message = Token(
        profile=profile,
        access_token=token,
        token_type=grant.token_type,
        header=header[0],
        serial=serial,
        state=state,
        issued_at=None if grant.issued_at is None else int(grant.issued_at),
        expires_at=None if grant.expires is None else int(now.wall + grant.expires - now.boot),
    )
    room = bytearray(ESCAPED * len(token) + ENVELOPE)  # a buffer that has to grow leaves what it held behind
    room[: len(_BEGIN)] = _BEGIN
    _encoder.encode_into(message, room, len(_BEGIN))
    with memoryview(room) as whole:
        frame = bytes(whole[:-1])
        whole[:] = bytes(len(whole))
    del message
    wipe(header)
    return frame
