"""Making and reading the sandbox's tokens: HS256 JWTs, as D7's look (RFC 7515, RFC 7519)."""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Final

AUDIENCE: Final = "auth-backend:app"  # as seen in D7's tokens
# Public and fixed, so that tokens outlive a restart of the sandbox, as D7's outlive one of D7's servers.
SIGNING_KEY: Final = b"d7agent sandbox: this key protects nothing"
HEADER: Final = {"alg": "HS256", "typ": "JWT"}


def encode(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def jwt(claims: Mapping[str, object]) -> str:
    """A signed token of three parts."""
    text = two_part(claims)
    return f"{text}.{_signature(text)}"


def two_part(claims: Mapping[str, object]) -> str:
    """Header and claims without a signature, like the sample in D7's documentation."""
    return ".".join(encode(json.dumps(part, separators=(",", ":")).encode()) for part in (HEADER, claims))


def signed(token: str) -> bool:
    """Whether a token of three parts carries our signature."""
    text, _, signature = token.rpartition(".")
    return hmac.compare_digest(signature.encode(), _signature(text).encode())


def claims_of(token: str) -> dict[str, object]:
    """The claims of a token of two or three parts, unverified; empty for anything else."""
    parts = token.split(".")
    if len(parts) not in (2, 3):
        return {}
    try:
        found = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def expired(claims: Mapping[str, object], now: float) -> bool:
    """Whether `exp` is a number that `now` (unix seconds) has reached; any other `exp` counts as none."""
    exp = claims.get("exp")
    return isinstance(exp, int | float) and now >= exp


def fingerprint(token: str) -> str:
    """The token's SHA-256 in hex: what is kept of it."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _signature(text: str) -> str:
    return encode(hmac.new(SIGNING_KEY, text.encode("utf-8", "surrogateescape"), hashlib.sha256).digest())


READY_TOKEN: Final = jwt({"aud": AUDIENCE, "sub": "sandbox-ready-made"})
