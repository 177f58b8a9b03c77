"""The nouns of the lifecycle machine: its state, the events that change it and the effects it asks for."""

from typing import Literal

from msgspec import Struct

from d7agent.core.budget import Budget, Snapshot
from d7agent.core.config import DEFAULT_MAX_AGE
from d7agent.core.jobs import Done, Failed, Granted, Nothing, Proved
from d7agent.core.model import Grant, Reason, Stamp

Phase = Literal["idle", "recall", "login", "proof", "store"]
HookEvent = Literal["rejected", "refreshed", "recovered"]


class Policy(Struct, frozen=True):
    """What the configuration asks of the machine. `max_age` in seconds."""

    max_age: float = DEFAULT_MAX_AGE
    logins_per_hour: int | None = None


class Failure(Struct, frozen=True):
    """Why the latest attempt failed; `at` in unix seconds."""

    reason: Reason
    message: str
    hint: str = ""
    code: str | None = None
    at: float = 0.0


class Suspect(Struct, frozen=True):
    """The token in hand was refused somewhere. `login_first`: a login has to be tried before the proof."""

    fingerprint: str
    login_first: bool = True


class Verdict(Struct, frozen=True):
    """What the last proof said of a token, at boot instant `at`: it works, it is refused, or nobody knows (None)."""

    fingerprint: str
    works: bool | None
    at: float


class State(Struct, frozen=True):
    """All that is known of one profile's token. Instants are boot seconds; `profile` is for messages only.

    `recalled`: the store has been asked for a remembered token. `due`: when the token in hand is to be refreshed (or a
    first one fetched); `retry_at`: not before this, after a failure. `refusal`: D7 refused the credential for good. `finished` counts attempts that ended, `login_at` is when
    the last good login came in.
    """

    profile: str
    policy: Policy = Policy()
    generation: int = 0
    phase: Phase = "idle"
    started: float = 0.0
    grant: Grant | None = None
    serial: int = 0
    due: float | None = None
    due_why: str = ""
    retry_at: float = 0.0
    failures: int = 0
    unauthorized: int = 0
    failure: Failure | None = None
    refusal: Failure | None = None
    missing: bool = False
    expired: bool = False
    locked: bool = False
    recalled: bool = False
    remembered: bool = False
    unchanged: bool = False
    login_at: float | None = None
    login_wall: float | None = None
    ended_at: float = 0.0
    attempts: int = 0
    finished: int = 0
    suspect: Suspect | None = None
    verdict: Verdict | None = None
    misreports: int = 0
    budget: Budget = Budget()


class Started(Struct, frozen=True):
    """The profile came to be; `snapshot` is what the state file remembers of it."""

    snapshot: Snapshot | None = None


class Configured(Struct, frozen=True):
    """The profile's configuration changed. `other_credential`: base URL, store or client id did."""

    policy: Policy
    other_credential: bool = False


class Ticked(Struct, frozen=True):
    """Time passed: the instant that `due` named may have come."""


class Wanted(Struct, frozen=True):
    """A caller waits for a token. `uid`: a peer that may only ask. `fresh`: the token in hand will not do."""

    uid: int | None = None
    fresh: bool = False


class Refused(Struct, frozen=True):
    """A caller says that D7 refused the token of this fingerprint (RejectToken)."""

    fingerprint: str
    uid: int | None = None


class Renewed(Struct, frozen=True):
    """The owner wants a login now (RenewToken)."""


class Recalled(Struct, frozen=True):
    """A recall ended. `draw` in [0, 1) is this event's jitter."""

    generation: int
    reply: Granted | Nothing | Failed
    draw: float = 0.5


class LoggedIn(Struct, frozen=True):
    """A login ended."""

    generation: int
    reply: Granted | Failed
    draw: float = 0.5


class ProofCame(Struct, frozen=True):
    """A proof ended."""

    generation: int
    reply: Proved | Failed


class Storing(Struct, frozen=True):
    """The credential is about to be replaced or forgotten. `login`: D7 will be asked to prove it."""

    login: bool = False


class Stored(Struct, frozen=True):
    """The credential was replaced (Granted, Done), or could not be (Failed)."""

    generation: int
    reply: Granted | Done | Failed
    draw: float = 0.5


class Forgotten(Struct, frozen=True):
    """The credential was deleted."""


class LockedUp(Struct, frozen=True):
    """The agent was locked."""


class Unlocked(Struct, frozen=True):
    """The agent was unlocked."""


class StateSaved(Struct, frozen=True):
    """Whether the state file could be written."""

    ok: bool


Event = (
    Started
    | Configured
    | Ticked
    | Wanted
    | Refused
    | Renewed
    | Recalled
    | LoggedIn
    | ProofCame
    | Storing
    | Stored
    | Forgotten
    | LockedUp
    | Unlocked
    | StateSaved
)


class Recall(Struct, frozen=True):
    """Start a recall for this generation."""

    generation: int


class Login(Struct, frozen=True):
    """Start a login for this generation. `prompt`: a person is there to unlock the store."""

    generation: int
    prompt: bool = False


class Prove(Struct, frozen=True):
    """Start a proof of the token in hand."""

    generation: int
    grant: Grant


class Cancel(Struct, frozen=True):
    """End the helper under way: its result would be void."""


class Save(Struct, frozen=True):
    """Write the state file, before anything that follows."""


class Pushed(Struct, frozen=True):
    """There is a new token: tell subscribers, sinks and hooks."""


class Gone(Struct, frozen=True):
    """The token died: wipe it, remove the sinks."""


class Hooked(Struct, frozen=True):
    """Run the hook of this event."""

    event: HookEvent
    reason: str = ""
    message: str = ""


class Logged(Struct, frozen=True):
    """A line for the journal; `level` as in the logging module's names, lower case."""

    level: Literal["info", "warning", "error", "debug"]
    text: str


Effect = Recall | Login | Prove | Cancel | Save | Pushed | Gone | Hooked | Logged


class Step(Struct, frozen=True):
    """What an event leads to."""

    state: State
    effects: tuple[Effect, ...] = ()


class Ask(Struct, frozen=True):
    """A caller's question. Instants on the boot clock.

    `min_validity`: seconds asked for, None: the default leeway. `refused`: the fingerprint it reports (RejectToken).
    `attempt`: only a login that was the `attempt`-th or later will do (RenewToken).
    """

    asked: Stamp
    deadline: float
    min_validity: float | None = None
    refused: str | None = None
    attempt: int | None = None
    uid: int | None = None


class Wait(Struct, frozen=True):
    """No answer yet."""
