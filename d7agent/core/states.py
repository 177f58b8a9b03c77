"""The nouns of the lifecycle machine: its state, the events that change it and the effects it asks for."""

from typing import Literal

from msgspec import Struct

from d7agent.core.budget import Budget, Snapshot
from d7agent.core.config import DEFAULT_MAX_AGE
from d7agent.core.jobs import Done, Failed, Granted, Nothing, Proved
from d7agent.core.model import Grant, Reason, Stamp

# What is under way: nothing; a look for a remembered token; a login; a proof; a change of the credential. Or the lock.
Phase = Literal["idle", "recall", "login", "proof", "store", "locked"]
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


class Verdict(Struct, frozen=True):
    """What the last proof said of a token, at boot instant `at`: it works, it is refused, or nobody knows (None)."""

    fingerprint: str
    works: bool | None
    at: float


class State(Struct, frozen=True):
    """All that is known of one profile's token. Instants are boot seconds; `profile` is for messages only."""

    profile: str
    policy: Policy = Policy()
    generation: int = 0  # of the credential and of what is under way: older results are thrown away
    phase: Phase = "idle"
    started: float = 0.0  # when the phase began
    ended_at: float = 0.0  # when the last attempt ended, however it did
    attempts: int = 0  # logins begun
    stores: int = 0  # helpers that change the credential right now: while there are any, nothing else begins

    grant: Grant | None = None  # the token in force
    serial: int = 0  # counts tokens
    draw: float = 0.5  # the token's jitter, drawn once
    due: float | None = None  # when it is to be refreshed, or a first one fetched; None: not by ourselves
    due_why: str = ""
    unchanged: bool = False  # the last login gave the same bytes
    remembered: bool = False  # the store holds the token as well
    expired: bool = False  # the last token ran out
    login_at: float | None = None  # when the last good login came in
    login_wall: float | None = None  # the same in unix seconds, for people

    failure: Failure | None = None  # what went wrong last
    failures: int = 0  # in a row, of D7 or of the store
    unauthorized: int = 0  # logins answered 401 in a row
    retry_at: float = 0.0  # not before this, after a failure
    outage: Reason | None = None  # the latest trouble since the store or D7 last gave a token
    refusal: Failure | None = None  # D7 refused the credential or the token for good
    missing: bool = False  # the store works and holds no credential
    recalled: bool = False  # the store has been asked for a remembered token
    edited: bool = False  # the credential changed since the last login: a remembered token is a stopgap

    suspect: str | None = None  # fingerprint of the token in force, if someone says that D7 refuses it
    candidate: Grant | None = None  # a token that D7 has refused before: proved before it is served
    verdict: Verdict | None = None
    misreports: int = 0  # reports of a token that D7 accepts

    budget: Budget = Budget()

    @property
    def locked(self) -> bool:
        """Whether the agent is locked."""
        return self.phase == "locked"


class Started(Struct, frozen=True):
    """The profile came to be; `snapshot` is what the state file remembers of it.

    `recall` false: nothing is begun, because a credential is about to be stored.
    """

    snapshot: Snapshot | None = None
    recall: bool = True


class Configured(Struct, frozen=True):
    """The profile's configuration changed. `other_credential`: base URL, store or client id did."""

    policy: Policy
    other_credential: bool = False


class Ticked(Struct, frozen=True):
    """Time passed: the instant that `wake_at` named may have come."""


class Wanted(Struct, frozen=True):
    """A caller waits for a token. `uid`: a peer that may only ask. `fresh`: the token in hand will not do.

    `min_validity`: the seconds it has to be good for, None: the default leeway.
    """

    uid: int | None = None
    fresh: bool = False
    min_validity: float | None = None


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
    """The credential is about to be replaced or forgotten; one Stored or Forgotten has to follow.

    `login`: D7 will be asked to prove it.
    """

    login: bool = False


class Stored(Struct, frozen=True):
    """The credential was replaced (Granted, Done), or could not be (Failed)."""

    generation: int
    reply: Granted | Done | Failed
    draw: float = 0.5


class Forgotten(Struct, frozen=True):
    """The credential was deleted."""


class Charged(Struct, frozen=True):
    """A login is about to be made for a name that is no profile yet; of the budget that all such names share."""


class Uncharged(Struct, frozen=True):
    """That login came to nothing."""

    reply: Failed


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
    | Charged
    | Uncharged
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
    """Ask D7 whether this token works."""

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
