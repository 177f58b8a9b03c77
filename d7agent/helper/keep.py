"""The Keep job: the credential a person just gave is proved, then stored; or what is there is proved."""

import contextlib
from typing import Final

from msgspec.structs import replace

from d7agent.core.jobs import Done, Failed, Granted, Target
from d7agent.core.model import Reason, Secret
from d7agent.helper.clean import cleaned, cleaned_token
from d7agent.helper.faults import Invalid, JobFault
from d7agent.helper.raw import Pasted
from d7agent.helper.session import Session
from d7agent.helper.stores import Application, Credential, ReadyMade
from d7agent.helper.tokens import Now, granted, remembered

RENEW_HINT: Final = "make a new token in D7's control panel, or log in with client id and secret"
PUT_THERE: Final = "put the credential there yourself and run login without one, or choose another store"


def kept(session: Session, pasted: Pasted, now: Now, *, verify: bool) -> Granted | Done:
    """Prove the credential, then write it, then remember its token. Raises JobFault, and then nothing is stored."""
    given = given_credential(pasted, session.target)
    if given and not session.writable():
        name = "access_token" if isinstance(given, ReadyMade) else "client_id"
        raise Invalid(name, f"the store {session.kind} is read-only here", PUT_THERE)
    if given and session.target.sharer:
        said = f"the {session.kind} store holds the credential of profile {session.target.sharer}"
        raise Invalid("store", said, f"name another place with --store; {session.target.sharer} would lose its own")
    credential = given or _present(session)
    token = _proved(session, credential, now) if verify else _unproved(session, credential, now)
    if given:
        session.write(given)
    if token is None or token.ready_made:
        with contextlib.suppress(JobFault):
            session.forget_token()  # it came from the former credential
    else:
        token = remembered(session, credential, token)
    return replace(token or Done(), backend=session.pinned())


def given_credential(pasted: Pasted, target: Target) -> Credential | None:
    """The credential in the caller's parameters, cleaned; None for none. Raises Invalid for half of one, or both."""
    pair = pasted.client_id or pasted.client_secret
    if pasted.access_token is not None:
        if pair is not None:
            raise Invalid("access_token", "an access token and a client id or secret were given: one kind at a time")
        return ReadyMade(cleaned_token("access_token", pasted.access_token.reveal()))
    if pasted.client_id is None and pasted.client_secret is None:
        return None
    client_id = pasted.client_id.reveal() if pasted.client_id is not None else target.client_id
    if client_id is None:
        raise Invalid("client_id", "client_id is missing", "D7's control panel shows it under the application")
    if pasted.client_secret is None:
        raise Invalid("client_secret", "client_secret is missing", "D7's control panel shows it once, when it is made")
    secret = Secret(cleaned("client_secret", pasted.client_secret.reveal()))
    return Application(cleaned("client_id", client_id), secret)


def _present(session: Session) -> Credential:
    credential = session.read()
    if credential is None and session.writable():
        raise Invalid("client_id", "no credential was given, and the store holds none", "give client id and secret")
    return credential or session.demand()


def _unproved(session: Session, credential: Credential, now: Now) -> Granted | None:
    return granted(session, credential, now) if isinstance(credential, ReadyMade) else None


def _proved(session: Session, credential: Credential, now: Now) -> Granted:
    if isinstance(credential, ReadyMade):
        _prove(session, credential)
    return granted(session, credential, now)


def _prove(session: Session, credential: ReadyMade) -> None:
    from d7agent.helper.issuer import prove

    answer = prove(session.target.base_url, credential.access_token, session.limits.login)
    if answer.works:
        return
    message = f"D7 answered HTTP {answer.status} to the access token" + (f": {answer.code}" if answer.code else "")
    reason: Reason = "refused" if answer.refused else "http_status"
    raise JobFault(
        Failed(reason, message, RENEW_HINT, permanent=answer.refused, status=answer.status, code=answer.code)
    )
