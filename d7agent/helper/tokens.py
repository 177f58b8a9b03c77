"""How a credential becomes a token: logged in or ready-made, remembered, recalled."""

from msgspec import Struct
from msgspec.structs import replace

from d7agent.core.clock import boot_time
from d7agent.core.jobs import Granted
from d7agent.core.model import Stamp
from d7agent.helper.session import Session
from d7agent.helper.stores import Application, Credential, ReadyMade


class Now(Struct, frozen=True):
    """The request's instant and the boot time at which this process began to work on it."""

    asked: Stamp
    started: float

    def stamp(self) -> Stamp:
        """The request's instant, advanced by the time that has passed here."""
        passed = max(0.0, boot_time() - self.started)
        return replace(self.asked, boot=self.asked.boot + passed, wall=self.asked.wall + passed)


def granted(session: Session, credential: Credential, now: Now) -> Granted:
    """A token for the credential: a ready-made one as it is, else by one login. Raises JobFault."""
    if isinstance(credential, ReadyMade):
        return Granted(access_token=credential.access_token, received=now.stamp(), ready_made=True)
    from d7agent.helper.issuer import login

    issued = login(session.target.base_url, credential, session.limits.login)
    return Granted(access_token=issued.access_token, received=now.stamp(), date=issued.date)


def remembered(session: Session, credential: Credential, token: Granted) -> Granted:
    """The token, kept as a second item where the profile and the store allow it."""
    if isinstance(credential, ReadyMade) or not session.target.remember:
        return token
    from d7agent.helper.remember import kept

    text = kept(session.target, credential, token.access_token, token.received, token.date)
    return replace(token, remembered=session.remember(text))


def recalled(session: Session, application: Application) -> Granted | None:
    """The token kept for this application, with the stamp of its receipt; None if there is none that fits."""
    from d7agent.helper.remember import recalled as fitting

    found = fitting(session.remembered(), session.target, application)
    if found is None:
        return None
    return Granted(
        access_token=found.access_token, received=found.received, date=found.date, recalled=True, remembered=True
    )
