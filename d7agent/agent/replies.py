"""A token's replies, encoded once per token: the hot path only splices in the seconds that are left."""

import msgspec

from d7agent.core import schedule
from d7agent.core.model import Grant, Stamp, State
from d7agent.wire.messages import Token

_END = b"}}}\0"
_CONTINUES = b'}},"continues":true}\0'


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
        self._frame = b""

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
        start = memoryview(self._frame)[: self._cut]
        left = b"" if self._expires is None else b',"valid_for":%d' % (self._expires - boot)
        if continues:
            return b"".join((start, left, _CONTINUES))
        self._frame = b"".join((start, left, _END))
        second = self._until if self._expires is None else self._expires - int(self._expires - boot)
        self._frame_until = min(self._until, second)
        return self._frame

    def encode(self, profile: str, grant: Grant, serial: int, state: State, now: Stamp, until: float | None) -> None:
        """Take a token. `until`: the boot instant from which `state` will be another, or None."""
        self._frame = b'{"parameters":{"token":' + _encoded(profile, grant, serial, state, now)[:-1]
        self._cut = len(self._frame)
        self._expires = grant.expires
        self._until = float("inf") if grant.expires is None else grant.expires - schedule.leeway(grant)
        if until is not None:
            self._until = min(self._until, until)
        self._frame_until = 0.0


def _encoded(profile: str, grant: Grant, serial: int, state: State, now: Stamp) -> bytes:
    token = grant.access_token.reveal()
    return msgspec.json.encode(
        Token(
            profile=profile,
            access_token=token,
            token_type=grant.token_type,
            header=f"Bearer {token}",
            serial=serial,
            state=state,
            issued_at=None if grant.issued_at is None else int(grant.issued_at),
            expires_at=None if grant.expires is None else int(now.wall + grant.expires - now.boot),
        )
    )
