"""The jobs, each told in its steps. What fails raises JobFault and comes out as its reply."""

from msgspec.structs import replace

from d7agent.core.jobs import (
    CheckPassphrase,
    Done,
    Forget,
    Granted,
    HashPassphrase,
    Job,
    Keep,
    Login,
    Look,
    Nothing,
    Prove,
    Reach,
    Recall,
    Reply,
)
from d7agent.helper.faults import JobFault
from d7agent.helper.session import Limits, Session
from d7agent.helper.stores import ReadyMade
from d7agent.helper.tokens import Now, granted, recalled, remembered

WITH_PARAMETERS = Keep | HashPassphrase | CheckPassphrase  # the jobs that the caller's raw parameters belong to


def perform(job: Job, raw: bytes, started: float, limits: Limits) -> Reply:
    """The reply to a job. `raw`: the caller's parameters; `started`: boot time at which this process began."""
    try:
        return _steps(job, raw, started, limits)
    except JobFault as fault:
        return fault.failed


def _steps(job: Job, raw: bytes, started: float, limits: Limits) -> Reply:
    match job:
        case Login():
            return _login(job, started, limits)
        case Recall():
            return _recall(job, started, limits)
        case Prove():
            from d7agent.helper.issuer import prove

            return prove(job.base_url, job.access_token, limits.login)
        case Keep():
            return _keep(job, raw, started, limits)
        case Forget():
            return _forget(job, limits)
        case Look() | Reach():
            from d7agent.helper.diagnose import diagnosed

            return diagnosed(job, limits)
        case _:
            return _passphrase(job, raw)


def _login(job: Login, started: float, limits: Limits) -> Granted:
    session = Session(job.target, limits, prompt=job.prompt)
    credential = session.demand()
    return remembered(session, credential, granted(session, credential, Now(job.now, started)))


def _recall(job: Recall, started: float, limits: Limits) -> Granted | Nothing:
    session = Session(job.target, limits, prompt=False)
    credential = session.read()
    if credential is None:
        return Nothing(credential=False)
    if isinstance(credential, ReadyMade):
        return replace(granted(session, credential, Now(job.now, started)), recalled=True)
    return (recalled(session, credential) if job.target.remember else None) or Nothing()


def _keep(job: Keep, raw: bytes, started: float, limits: Limits) -> Granted | Done:
    from d7agent.helper.keep import kept
    from d7agent.helper.raw import Pasted, decode

    pasted = decode(Pasted, raw)
    session = Session(job.target, limits, prompt=True)
    return kept(session, pasted, Now(job.now, started), verify=job.verify)


def _forget(job: Forget, limits: Limits) -> Done:
    """The token first: it is what a thief could use at once."""
    session = Session(job.target, limits, prompt=False)
    session.forget_token()
    return Done() if job.token_only or job.target.sharer else Done(kept=session.delete())


def _passphrase(job: HashPassphrase | CheckPassphrase, raw: bytes) -> Reply:
    from d7agent.helper.passphrase import checked, hashed
    from d7agent.helper.raw import Passphrase, decode

    given = decode(Passphrase, raw).passphrase
    return hashed(given) if isinstance(job, HashPassphrase) else checked(given, job.salt, job.digest)
