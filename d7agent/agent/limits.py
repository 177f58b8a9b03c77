"""What the server puts up with: every limit by name, with its reason."""

import resource
from typing import Final

import msgspec
from msgspec import Struct

SPARE_FILES: Final = (
    64  # descriptors for all that is no connection: loop, journal, watches, sinks, 8 helpers with 3 pipes
)
UNLIMITED_FILES: Final = 1 << 20  # what "no limit" counts as; the kernel's own ceiling (fs.nr_open) by default


class Limits(Struct, frozen=True):
    """Numbers of connections, bytes and seconds. The defaults are the ones that the README promises."""

    connections: int = 16_384  # 10,000 subscribers and as many again in passing; some 20 MiB
    per_uid: int = 8_192  # half: one user's runaway program leaves room for all others
    refused: int = 512  # of all uids that may not ask: one user may have 65,536 (subordinate uids)
    refused_per_uid: int = 64  # of one of them: enough to be told so, too few to crowd out the others
    backlog: int = 4_096  # a stampede waits in the kernel (its own cap, somaxconn, is the same) instead of failing
    turn: int = 4  # requests sent ahead that one connection has handled in one turn of the loop: then others get theirs
    request_time: float = 10.0  # seconds for the whole of a request: a program writes one in microseconds
    stall_time: float = 10.0  # seconds a reader may leave its replies without taking a single byte
    unread: int = 1024 * 1024  # bytes of replies that may wait for a reader before another is added
    half_requests: int = 32 * 1024 * 1024  # bytes one uid may have waiting here in unfinished or pipelined requests
    sweep: float = 2.5  # seconds between looks at the two times above; no looks when there is nothing to look at


def raise_nofile() -> int:
    """Raise RLIMIT_NOFILE to its hard limit; the limit now in force."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return UNLIMITED_FILES if hard == resource.RLIM_INFINITY else hard


def fit(limits: Limits, files: int) -> Limits:
    """`limits` with no more connections than `files` descriptors allow: half for a uid, a quarter for the refused."""
    connections = max(1, min(limits.connections, files - SPARE_FILES))
    per_uid = max(1, min(limits.per_uid, connections // 2))
    refused = max(1, min(limits.refused, connections // 4))
    return msgspec.structs.replace(limits, connections=connections, per_uid=per_uid, refused=refused)
