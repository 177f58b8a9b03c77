"""The world around the machine: a clock whose two hands move apart, a D7 that remembers its tokens, a store."""

import base64
import itertools
import json
from typing import Any, Literal

from d7agent.core.jobs import Failed, Granted, Nothing, Proved
from d7agent.core.model import Secret, Stamp

EPOCH = 1_790_000_000.0  # unix seconds at which every test begins
HTML_403 = Failed("http_status", "the answer was HTTP 403 with text/html where D7 sends JSON", status=403)
DOWN = Failed("connect", "cannot connect to D7")
BUSY = Failed("rate_limited", "too many requests", status=429, retry_after=600)
WRONG_SECRET = Failed("refused", "wrong secret", permanent=True, status=400, code="INVALID")
NO_APP = Failed("refused", "Application not exists", permanent=True, status=404, code="APPLICATION_NOT_EXISTS")
UNAUTHORIZED = Failed("refused", "Unauthorized", unauthorized=True, status=401, code="UNAUTHORIZED")
STORE_LOCKED = Failed("store_locked", "the keyring is locked", "unlock the keyring")
STORE_AWAY = Failed("store_unreachable", "the keyring does not answer", "start it")
STORE_EMPTY = Failed("store_missing", "nothing stored", missing=True)
BAD_TOKEN = Proved(works=False, refused=True, status=401, code="ACCESS_TOKEN_SIGNATURE_VERIFICATION_FAILED")


class FakeClock:
    """`true` is the time that really passed; CLOCK_BOOTTIME follows it, the wall clock can be stepped."""

    def __init__(self) -> None:
        self.true = 0.0
        self.offset = 0.0  # of the wall clock from the truth
        self._booted = -1000.0
        self._boots = 1

    def now(self) -> Stamp:
        """The present instant on both clocks."""
        return Stamp(boot=self.true - self._booted, wall=EPOCH + self.true + self.offset, boot_id=f"boot-{self._boots}")

    @property
    def true_wall(self) -> float:
        """What D7's clock says."""
        return EPOCH + self.true

    def true_of(self, boot: float) -> float:
        """When a timer set to a boot instant rings, in true seconds: a microsecond late, never early."""
        return boot + self._booted + 1e-6

    def advance(self, seconds: float) -> None:
        """Time passes: in one jump, as in a suspend, if nobody looks in between."""
        self.true += seconds

    def step(self, seconds: float) -> None:
        """Someone sets the wall clock."""
        self.offset += seconds

    def reboot(self) -> None:
        """BOOTTIME begins again, a few seconds ago."""
        self._booted = self.true - 5.0
        self._boots += 1


def jwt(claims: dict[str, Any], *, parts: int = 3, salt: str = "s") -> str:
    """A token that looks like D7's."""
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return ".".join(["eyJhbGciOiJIUzI1NiJ9", middle, salt][:parts])


class FakeD7:
    """Issues tokens, knows which are good, and fails on demand."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.lifetime: float | None = 3600.0
        self.iat = True
        self.same = False  # hand out the same token while it lives
        self.form: Literal["jwt", "two parts", "opaque"] = "jwt"
        self.skew: float | None = 0.0  # of the Date header from the truth; None: no header
        self.fault: Failed | None = None
        self.faults: list[Failed] = []  # used up first, one a login
        self.proof: Proved | Failed | None = None  # None: the truth
        self.logins: list[float] = []
        self.proofs: list[float] = []
        self.app = True
        self.revoked: set[str] = set()
        self._ends: dict[str, float | None] = {}
        self._last = ""
        self._serial = itertools.count(1)

    def note_login(self) -> None:
        """A login request came in."""
        self.logins.append(self.clock.true)

    def alive(self, token: str) -> bool:
        """Whether the token has not run out."""
        end = self._ends[token]
        return end is None or self.clock.true < end

    def good(self, token: str) -> bool:
        """Whether the API accepts the token."""
        return token in self._ends and self.alive(token) and token not in self.revoked and self.app

    def end(self, token: str) -> float | None:
        """When the token runs out, in true seconds."""
        return self._ends[token]

    def log_in(self) -> Granted | Failed:
        """The login's answer."""
        if self.faults:
            return self.faults.pop(0)
        if self.fault is not None:
            return self.fault
        if not self.app:
            return NO_APP
        return self.granted(self._token())

    def granted(self, token: str, *, received: Stamp | None = None, ready_made: bool = False) -> Granted:
        """A token as the helper hands it over."""
        date = None if self.skew is None or ready_made else float(int(self.clock.true_wall + self.skew))
        stamp = received or self.clock.now()
        return Granted(Secret(token), stamp, date=date, ready_made=ready_made, remembered=not ready_made)

    def _token(self) -> str:
        if self.same and self._last and self.good(self._last):
            return self._last
        self._last = self.issue()
        return self._last

    def issue(self, lifetime: float | Literal["usual"] | None = "usual", *, age: float = 0.0) -> str:
        """A new token, `age` seconds old."""
        life = self.lifetime if lifetime == "usual" else lifetime
        born = int(self.clock.true_wall) - age
        number = next(self._serial)
        claims: dict[str, Any] = {"aud": "auth-backend:app", "sub": f"app-{number}"}
        end = None
        if life is not None:
            claims["exp"] = born + life
            end = born + life - EPOCH
            if self.iat:
                claims["iat"] = born
        token = f"opaque-{number}" if self.form == "opaque" else jwt(claims, parts=3 if self.form == "jwt" else 2)
        self._ends[token] = None if self.form == "opaque" else end
        return token

    def heal(self) -> None:
        """All works again; an application that was deleted is made anew, its former tokens stay dead."""
        self.fault, self.faults, self.proof = None, [], None
        if not self.app:
            self.revoked.update(self._ends)
            self.app = True

    def prove(self, token: str) -> Proved | Failed:
        """The balance endpoint's answer."""
        if self.proof is not None:
            return self.proof
        return Proved(works=True, refused=False, status=200) if self.good(token) else BAD_TOKEN


class FakeStore:
    """Holds an application's credential, or a ready-made token, or nothing; and the remembered token."""

    def __init__(self) -> None:
        self.holds = True
        self.ready: str | None = None
        self.locked = False
        self.away = False
        self.person = False  # someone answers a prompt
        self.keeps = True  # remembers tokens
        self.remembered: Granted | None = None

    def opens(self, *, prompt: bool) -> bool:
        """Whether the store can be read now, with or without someone to unlock it."""
        return not self.away and (not self.locked or (prompt and self.person))

    def trouble(self) -> Failed:
        """Why the store cannot be read."""
        return STORE_AWAY if self.away else STORE_LOCKED

    def recall(self) -> Granted | Nothing | Failed:
        """The answer to a recall."""
        if self.locked or self.away:
            return self.trouble()
        if not self.holds:
            return Nothing(credential=False)
        if self.ready is not None:
            return self.remembered or Nothing(credential=False)
        return self.remembered or Nothing(credential=True)

    def log_in(self, d7: FakeD7) -> Granted | Failed:
        """The answer to a login with what the store holds."""
        if not self.holds:
            return STORE_EMPTY
        if self.ready is not None:
            return d7.granted(self.ready, ready_made=True)
        reply = d7.log_in()
        if isinstance(reply, Granted) and self.keeps:
            self.remembered = Granted(
                reply.access_token, reply.received, date=reply.date, recalled=True, remembered=True
            )
        return reply
