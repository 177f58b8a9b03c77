"""What `doctor` wants to know and only a helper may find out: the keyring here, and the way to D7. Changes nothing."""

import importlib.util
import os

from d7agent.core.clock import SystemClock
from d7agent.core.jobs import Look, Reach, Reached, Seen
from d7agent.helper.deadline import within
from d7agent.helper.faults import StoreUnreachable
from d7agent.helper.session import Limits

PLAIN_FILES = "keyrings.alt"  # the package whose backends keep secrets in plain files, and win by priority


def diagnosed(job: Look | Reach, limits: Limits) -> Seen | Reached:
    """The answer to either job. Raises JobFault with what stands in the way."""
    if isinstance(job, Reach):
        return _reached(job.base_url, limits.login)
    hint = "see whether the keyring's daemon hangs"
    late = StoreUnreachable(f"the keyring did not answer within {limits.store:g} s", hint)
    return within(limits.store, lambda: _seen(job.backend), lambda: late)


def _seen(name: str) -> Seen:
    """`locked` asks the daemon and never prompts; the named class is loaded even where nothing can be asked."""
    from d7agent.helper.keyring_store import KeyringStore

    store = KeyringStore(name, "doctor")
    backend = (store.pinned or "").removeprefix("keyring:")
    locked = store.locked()
    if name:
        from d7agent.helper.keyring_backends import load

        load(name)
    return Seen(backend, locked=locked, plain_files=_installed(PLAIN_FILES))


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # not even the part before the dot
        return False


def _reached(url: str, limit: float) -> Reached:
    from d7agent.core.jobs import Proved
    from d7agent.helper.address import base_url
    from d7agent.helper.answers import date, sort_balance
    from d7agent.helper.http import Request, exchange
    from d7agent.helper.issuer import BALANCE
    from d7agent.helper.proxy import proxy_for

    base = base_url(url)
    proxy = proxy_for(base, os.environ)
    answer = exchange(base, Request("GET", BALANCE), limit)
    now = SystemClock().now().wall
    verdict = sort_balance(answer, now)
    at = date(answer.headers)
    return Reached(
        status=answer.status,
        d7=isinstance(verdict, Proved) and verdict.refused,
        skew=None if at is None else at - now,
        proxy=proxy.name if proxy else None,
    )
