"""A token's replies, encoded once per token: the hot path only splices in the seconds that are left."""

import msgspec

from d7agent.core.model import Grant, Stamp, State
from d7agent.wire.messages import Token

_END = b"}}}\0"
_CONTINUES = b'}},"continues":true}\0'


def head(profile: str, grant: Grant, serial: int, state: State, now: Stamp) -> bytes:
    """The reply's frame up to where `valid_for` goes."""
    token = grant.access_token.reveal()
    expires = None if grant.expires is None else int(now.wall + grant.expires - now.boot)
    body = msgspec.json.encode(
        Token(
            profile=profile,
            access_token=token,
            token_type=grant.token_type,
            header=f"Bearer {token}",
            serial=serial,
            state=state,
            issued_at=None if grant.issued_at is None else int(grant.issued_at),
            expires_at=expires,
        )
    )
    return b'{"parameters":{"token":' + body[:-1]


def frame(start: bytes, expires: float | None, boot: float, *, continues: bool = False) -> bytes:
    """The whole frame at boot instant `boot`: `valid_for` is rounded down, so that it never promises too much."""
    end = _CONTINUES if continues else _END
    if expires is None:
        return start + end
    return b'%b,"valid_for":%d%b' % (start, expires - boot, end)
