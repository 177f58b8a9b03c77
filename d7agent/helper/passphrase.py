"""The lock's passphrase, hashed slowly.

scrypt (RFC 7914) with N=2^15, r=8, p=3: one of the equal choices of OWASP's Password Storage Cheat Sheet, and the one
that stays at 32 MiB, so that a system service with a memory limit can lock too. 0.26 s on one core.
"""

import hashlib
import hmac
import os
from typing import Final

from d7agent.core.jobs import Checked, Hashed
from d7agent.core.model import Secret
from d7agent.helper.faults import Invalid

N: Final = 2**15  # CPU and memory cost
R: Final = 8  # block size
P: Final = 3  # passes
SALT: Final = 16  # bytes; as many as NIST SP 800-132 asks for
MAX_PASSPHRASE: Final = 1024  # bytes; more is a file pasted by mistake
MEMORY: Final = 128 * N * R + 128 * R * P + 2**20  # bytes: scrypt's own need (RFC 7914, section 2) and some for OpenSSL


def hashed(passphrase: Secret) -> Hashed:
    """A new salt and the digest, both hex. Raises Invalid for an empty or endless passphrase."""
    salt = os.urandom(SALT)
    return Hashed(salt=salt.hex(), digest=_digest(_checked(passphrase), salt).hex())


def checked(passphrase: Secret, salt: str, digest: str) -> Checked:
    """Whether `passphrase` gives `digest`; the comparison takes the same time wherever they part. Raises Invalid."""
    mine = _digest(_checked(passphrase), bytes.fromhex(salt))
    return Checked(right=hmac.compare_digest(mine, bytes.fromhex(digest)))


def _checked(passphrase: Secret) -> bytes:
    data = passphrase.reveal().encode("utf-8", "surrogatepass")
    if not data:
        raise Invalid("passphrase", "the passphrase is empty")
    if len(data) > MAX_PASSPHRASE:
        raise Invalid("passphrase", f"the passphrase is longer than {MAX_PASSPHRASE} bytes")
    return data


def _digest(data: bytes, salt: bytes) -> bytes:
    return hashlib.scrypt(data, salt=salt, n=N, r=R, p=P, maxmem=MEMORY)
