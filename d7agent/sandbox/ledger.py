"""Which tokens the sandbox gave out, and which of them still work."""

import secrets
import threading
import time
from collections.abc import Callable
from enum import Enum
from typing import Final

from d7agent.sandbox import tokens
from d7agent.sandbox.settings import Settings

REMEMBERED: Final = 100_000  # tokens kept by fingerprint, so that a long soak does not grow without end


class Verdict(Enum):
    """What the sandbox thinks of a bearer token."""

    GOOD = "good"
    EXPIRED = "ACCESS_TOKEN_EXPIRED"
    BAD = "ACCESS_TOKEN_SIGNATURE_VERIFICATION_FAILED"


class Ledger:
    """Makes tokens and judges them. Safe to use from any thread."""

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._issued: dict[str, str] = {}  # fingerprint -> client id, oldest first
        self._revoked: set[str] = set()
        self._same: dict[object, str] = {}  # what the token was made from -> the token

    def login(self, client_id: str) -> str:
        """The token that a good login is answered with."""
        made = self._settings()
        if not made.same_token:
            return self.mint(client_id)
        key = (client_id, made.token_form, made.no_exp, made.no_iat, made.lifetime)
        old = self._same.get(key)
        if old is None or tokens.expired(tokens.claims_of(old), time.time()):
            self._same[key] = old = self.mint(client_id)
        return old

    def mint(self, client_id: str, **claims: object) -> str:
        """A new token; with `claims` a JWT of three parts with these added or replaced, whatever the settings say."""
        made = self._settings()
        if made.token_form == "opaque" and not claims:  # a form's name, no secret  # nosec B105
            token = secrets.token_urlsafe(32)
        else:
            two_part = made.token_form == "two-part" and not claims  # a form's name, no secret  # nosec B105
            sign = tokens.two_part if two_part else tokens.jwt
            token = sign({**_claims(made, client_id), **claims})
        self._record(token, client_id)
        return token

    def judge(self, token: str) -> Verdict:
        """Whether a call with this bearer token is let in."""
        made, mark = self._settings(), tokens.fingerprint(token)
        with self._lock:
            client_id = self._issued.get(mark)
            if mark in self._revoked:
                return Verdict.BAD
        if made.ready_token and token == made.ready_token:
            return Verdict.GOOD
        claims = tokens.claims_of(token)
        if client_id is None and token.count(".") == 2 and tokens.signed(token):
            client_id = str(claims.get("sub"))
        if client_id not in made.applications:
            return Verdict.BAD
        return Verdict.EXPIRED if tokens.expired(claims, time.time()) else Verdict.GOOD

    def revoke(self, token: str) -> None:
        """From now on this token is refused, ready-made or not."""
        with self._lock:
            self._revoked.add(tokens.fingerprint(token))

    def revoke_all(self) -> None:
        """From now on every token issued so far is refused, the ready-made one included."""
        with self._lock:
            self._revoked.update(self._issued, [tokens.fingerprint(self._settings().ready_token)])

    def _record(self, token: str, client_id: str) -> None:
        with self._lock:
            self._issued[tokens.fingerprint(token)] = client_id
            while len(self._issued) > REMEMBERED:
                del self._issued[next(iter(self._issued))]


def _claims(made: Settings, client_id: str) -> dict[str, object]:
    whole = float(made.lifetime).is_integer()
    now = int(time.time()) if whole else round(time.time(), 3)
    claims: dict[str, object] = {"aud": tokens.AUDIENCE, "sub": client_id}
    if not made.no_iat:
        claims["iat"] = now
    if not made.no_exp:
        claims["exp"] = now + (int(made.lifetime) if whole else made.lifetime)
    if not made.same_token:
        claims["jti"] = secrets.token_hex(8)
    return claims
