"""The jobs, each told in its steps. Everything that fails raises JobFault and comes out as its reply."""

from collections.abc import Callable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from d7agent.core.clock import boot_time
from d7agent.core.jobs import (
    CheckPassphrase,
    Done,
    Failed,
    Forget,
    Granted,
    HashPassphrase,
    Job,
    Keep,
    Login,
    Nothing,
    Prove,
    Recall,
    Reply,
    Target,
)
from d7agent.core.model import Secret, Stamp
from d7agent.helper.faults import Invalid, JobFault
from d7agent.helper.session import Limits, Session
from d7agent.helper.stores import Application, Credential, ReadyMade

TOKEN_HINT: Final = "make a new token in D7's control panel, or log in with client id and secret"


class Now(Struct, frozen=True):
    """The request's instant and the boot time at which this process read it."""

    asked: Stamp
    read_at: float

    def stamp(self) -> Stamp:
        """The request's instant, advanced by the time that has passed here."""
        passed = max(0.0, boot_time() - self.read_at)
        return replace(self.asked, boot=self.asked.boot + passed, wall=self.asked.wall + passed)


def perform(job: Job, raw: bytes, started: float, limits: Limits | None = None) -> Reply:
    """The reply to a job. `started`: boot time at which this process began. Raises nothing that is foreseen."""
    steps = Steps(raw, started, limits or Limits())
    try:
        return steps.of(job)
    except JobFault as fault:
        return fault.failed


class Steps:
    """What a job needs besides itself."""

    def __init__(self, raw: bytes, started: float, limits: Limits) -> None:
        self._raw = raw
        self._started = started
        self._limits = limits

    def of(self, job: Job) -> Reply:
        """The reply of the job's own steps."""
        kinds: dict[type, Callable[..., Reply]] = {
            Login: self.login,
            Recall: self.recall,
            Prove: self.prove,
            Keep: self.keep,
            Forget: self.forget,
            HashPassphrase: self.hash,
            CheckPassphrase: self.check,
        }
        return kinds[type(job)](job)

    def login(self, job: Login) -> Reply:
        """Read, log in, remember."""
        session = self._session(job.target, prompt=job.prompt)
        return self._logged_in(session, session.demand(), Now(job.now, self._started))

    def recall(self, job: Recall) -> Reply:
        """Read; no network."""
        session = self._session(job.target)
        now = Now(job.now, self._started)
        credential = session.read()
        if credential is None:
            return Nothing(credential=False)
        if isinstance(credential, ReadyMade):
            return replace(_ready_made(credential, now), recalled=True)
        return _recalled(session, credential) if job.target.remember else Nothing()

    def prove(self, job: Prove) -> Reply:
        """One GET of the balance."""
        from d7agent.helper.issuer import prove

        return prove(job.base_url, job.access_token, self._limits.login)

    def keep(self, job: Keep) -> Reply:
        """Prove what was given (or, with nothing given, what is there), then write it."""
        from d7agent.helper.raw import Pasted, decode

        given = _given(decode(Pasted, self._raw), job.target)
        session = self._session(job.target, prompt=True)
        writable = session.writable()
        if given and not writable:
            raise Invalid(_first_part(given), f"the store {_kind(job.target)} is read-only", _put_there(job.target))
        credential = given or session.demand()
        now = Now(job.now, self._started)
        issued = self._issued(job.target, credential, now) if job.verify else _unproved(credential, now)
        if given:
            session.write(given)
        kept = self._remembered(session, credential, issued)
        return replace(kept, backend=session.pinned()) if isinstance(kept, Granted | Done) else kept

    def forget(self, job: Forget) -> Reply:
        """The token first: it is of use to a thief at once."""
        session = self._session(job.target)
        session.forget_token()
        return Done() if job.token_only else Done(kept=session.delete())

    def hash(self, _: HashPassphrase) -> Reply:
        """The passphrase as salt and digest."""
        from d7agent.helper import passphrase, raw

        return passphrase.hashed(raw.decode(raw.Passphrase, self._raw).passphrase)

    def check(self, job: CheckPassphrase) -> Reply:
        """Whether it is the same passphrase."""
        from d7agent.helper import passphrase, raw

        return passphrase.checked(raw.decode(raw.Passphrase, self._raw).passphrase, job.salt, job.digest)
