"""Peer policy: who may ask this agent, and what. Pure decisions; the peers' facts come from agent.peers."""

import functools
import grp
import logging
import pwd
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from msgspec import Struct

from d7agent.agent.peers import Process, local_name
from d7agent.agent.seldom import Seldom
from d7agent.core.clock import Clock
from d7agent.core.config import Access
from d7agent.core.errors import INTERFACE, SERVICE, PermissionDenied

ROOT: Final = 0
OVERFLOW_UID: Final = 65534  # stands for every uid that a user namespace does not map: it may be anybody
ASKING: Final = frozenset(f"{INTERFACE}.{name}" for name in ("GetToken", "RejectToken", "GetStatus"))
MOST_UIDS: Final = 1_024  # uids remembered for counting; subordinate uids are many

log = logging.getLogger("d7agent.agent.access")


class Facts(Protocol):
    """What the policy needs to know of a peer; agent.peers.Peer in life."""

    @property
    def uid(self) -> int:
        """The peer's uid."""

    @property
    def groups(self) -> frozenset[int]:
        """Its gid and supplementary groups."""

    @property
    def process(self) -> Process:
        """Its process."""


class Allowed(Struct, frozen=True):
    """`[access]` with its names resolved."""

    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()
    units: frozenset[str] = frozenset()


def resolve(access: Access) -> tuple[Allowed, tuple[str, ...]]:
    """`access` with names resolved, and what is wrong with it, each naming its key. May block on NSS.

    A name of digits is taken as the number when no user or group bears it.
    """
    problems: list[str] = []
    uids = (_number(name, "users", lambda name: pwd.getpwnam(name).pw_uid, problems) for name in access.users)
    gids = (_number(name, "groups", lambda name: grp.getgrnam(name).gr_gid, problems) for name in access.groups)
    allowed = Allowed(
        frozenset(uid for uid in uids if uid is not None),
        frozenset(gid for gid in gids if gid is not None),
        frozenset(access.units),
    )
    wrong = (unit for unit in access.units if not unit.endswith(".service") or "/" in unit)
    problems += (f'access.units: "{unit}" is no service (NAME.service, directly in system.slice)' for unit in wrong)
    return allowed, tuple(problems)


def _number(name: str, key: str, find: Callable[[str], int], problems: list[str]) -> int | None:
    try:
        return find(name)
    except KeyError:
        if name.isascii() and name.isdigit():
            return int(name)
        problems.append(f'access.{key}: there is no "{name}" on this machine')
        return None


class Policy:
    """Who may do what with the agent of `owner_uid`; `allowed` has effect on the `system` agent only."""

    def __init__(self, owner_uid: int, *, system: bool, allowed: Allowed | None = None) -> None:
        self._owner = owner_uid
        self._system = system
        self._allowed = allowed or Allowed()

    def trusts(self, uid: int) -> bool:
        """Whether `uid` is the owner or root, who may do everything."""
        return uid in (self._owner, ROOT) and uid != OVERFLOW_UID

    def admit(self, peer: Facts) -> PermissionDenied | None:
        """The refusal of a peer that may not ask at all, or None."""
        if self.trusts(peer.uid) or (self._system and peer.uid != OVERFLOW_UID and self._lists(peer)):
            return None
        return self._refusal(peer)

    def may_call(self, peer: Facts, method: str) -> PermissionDenied | None:
        """The refusal of an admitted peer that may not call `method` (a full name), or None."""
        if self.trusts(peer.uid) or method in ASKING or method.startswith(f"{SERVICE}."):
            return None
        return PermissionDenied(
            f"{method.rpartition('.')[2]} is for the agent's owner and root, not for {_describe(peer.uid)}",
            "run it as root or with sudo" if self._system else "run it as the user whose agent this is",
        )

    def _lists(self, peer: Facts) -> bool:
        allowed = self._allowed
        if peer.uid in allowed.uids:
            return True
        if allowed.gids and not allowed.gids.isdisjoint(peer.groups):
            return True
        return bool(allowed.units) and peer.process.system_unit in allowed.units

    def _refusal(self, peer: Facts) -> PermissionDenied:
        who = _describe(peer.uid)
        if peer.uid == OVERFLOW_UID:
            hint = (
                "this uid stands for every user that a user namespace (a container) does not map: ask from outside it"
            )
            return PermissionDenied(f"{who} may not ask this agent", hint)
        if not self._system:
            hint = "start an agent of your own (d7agent login), or have the administrator set up the system agent"
            return PermissionDenied(f"{who} may not ask the agent of {_describe(self._owner)}", hint)
        name = local_name(peer.uid) or f"NAME (what `id -nu {peer.uid}` prints)"
        hint = f'as root, add users = ["{name}"] under [access] in /etc/d7agent/config.toml, then run d7agent reload'
        return PermissionDenied(f"{who} may not ask this agent", hint)


@functools.lru_cache(maxsize=256)
def _describe(uid: int) -> str:
    name = local_name(uid)
    return f"uid {uid} ({name})" if name else f"uid {uid}"


class Denials:
    """Counts refusals by uid and logs them now and then (agent.seldom)."""

    def __init__(self, clock: Clock) -> None:
        self._counts: OrderedDict[int, int] = OrderedDict()
        self._lines = Seldom(clock)

    def note(self, uid: int, error: PermissionDenied) -> None:
        """One more refusal of `uid`."""
        self._counts[uid] = self._counts.get(uid, 0) + 1
        self._counts.move_to_end(uid)
        if len(self._counts) > MOST_UIDS:
            self._counts.popitem(last=False)
        if self._lines.due(uid):
            log.warning("denied: %s (%d so far); %s", error.message, self._counts[uid], error.hint)

    def count(self, uid: int) -> int:
        """Refusals of `uid` so far."""
        return self._counts.get(uid, 0)

    @property
    def counts(self) -> dict[int, int]:
        """Refusals by uid, the latest last."""
        return dict(self._counts)
