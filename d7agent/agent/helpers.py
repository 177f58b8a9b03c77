"""Starting helpers: who may run now, one process a job, and what a helper that misbehaves turns into."""

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from msgspec import DecodeError
from msgspec.structs import replace

from d7agent.agent.process import run
from d7agent.core import jobs
from d7agent.core.jobs import Failed, Job, Reply
from d7agent.core.model import Secret

log = logging.getLogger(__name__)

AT_ONCE: Final = 8  # helpers; each costs some 40 MB for a moment
PER_HOST: Final = 2  # for one base URL host: a host that hangs cannot take all places
PROMPTING: Final = 1  # helpers that may put a question before a person
ARGV: Final = (sys.executable, "-P", "-m", "d7agent.helper")
_TEXT_HINT: Final = "set it to the bare value where the agent is started, then start the agent again"
_STOP_HINT: Final = "see the agent's journal: journalctl --user -u d7agent; then `d7agent doctor`"

# What a helper may know of the agent's environment: enough to find the user's bus, proxy, CAs and programs.
_ENVIRONMENT: Final = frozenset(
    {
        *("HOME", "PATH", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR"),
        *("DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "CREDENTIALS_DIRECTORY"),
        *("PASSWORD_STORE_DIR", "GNUPGHOME", "GPG_TTY", "SSH_AUTH_SOCK"),
    }
)
_PREFIXES: Final = ("LC_", "XDG_")
_CREDENTIAL_NAMES: Final = ("D7_CLIENT_ID", "D7_CLIENT_SECRET", "D7_API_TOKEN")


def whitelisted(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of the environment that a child gets: no PYTHON*, NOTIFY_SOCKET, LISTEN_* or other surprises."""
    return {k: v for k, v in environment.items() if k in _ENVIRONMENT or k.startswith(_PREFIXES)}


def supplied(job: Job, environment: Mapping[str, str]) -> Job:
    """The job with what its store reads of our environment, if that is where its credential lives."""
    if not isinstance(job, jobs.Login | jobs.Recall | jobs.Keep | jobs.Forget):
        return job
    kind, _, prefix = job.target.store.partition(":")
    if kind != "environment":
        return job
    names = [prefix + name for name in _CREDENTIAL_NAMES]
    found = {name: Secret(environment[name]) for name in names if name in environment}
    return replace(job, target=replace(job.target, variables=found))


class Ticket:
    """A job's place in the queue. `urgent` tells, when a place is free, whether callers wait for it."""

    def __init__(self, host: str, urgent: Callable[[], bool], *, prompt: bool) -> None:
        self.host = host
        self.prompt = prompt
        self.urgent = urgent
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Helpers:
    """The helpers of one agent: at most 8 at once, 2 for a host, 1 that prompts; waiting callers go first."""

    def __init__(
        self, environment: Mapping[str, str], argv: tuple[str, ...] = ARGV, limit: float = jobs.JOB_LIMIT
    ) -> None:
        self._limit = limit
        self._environment = environment
        self._argv = argv
        self._running: set[Ticket] = set()
        self._queue: list[Ticket] = []

    async def run(
        self,
        job: Job,
        *,
        raw: bytearray | None = None,
        prompt: bool = False,
        urgent: Callable[[], bool] = lambda: False,
    ) -> Reply:
        """Run one job to its reply. `raw` (the caller's parameters) is wiped once it is handed over.

        Never raises for what a helper does: a helper that hangs, dies or prints rubbish is a Failed. Cancelling ends
        the process and waits for its end.
        """
        ticket = Ticket(_host(job), urgent, prompt=prompt)
        try:
            await self._admitted(ticket)
            limit = jobs.PROMPT_JOB_LIMIT if prompt else self._limit
            return await self._reply(job, raw, limit)
        except Exception:
            log.exception("a helper's job failed")
            return _failed("the agent met an error that nobody foresaw")
        finally:
            if raw is not None:
                raw[:] = bytes(len(raw))
            self._leave(ticket)

    async def _reply(self, job: Job, raw: bytearray | None, limit: float) -> Reply:
        environment = whitelisted(self._environment)
        try:
            request = [jobs.encode(supplied(job, self._environment))]
        except UnicodeEncodeError:
            return Failed("store_missing", "a variable of the environment store is not UTF-8 text", _TEXT_HINT)
        try:
            result = await run(self._argv, environment, request.pop(), raw, limit)
        except OSError as error:
            return _failed(f"the helper process cannot be started: {error.strerror}")
        with result:
            if result.stderr:
                log.debug("helper: %s", result.stderr)
            if result.timed_out:
                return Failed("timeout", f"the helper did not answer within {limit:.0f} s and was ended", _STOP_HINT)
            try:
                return jobs.decode_reply(result.output)
            except DecodeError:
                return _failed(f"the helper process {result.ending} without a proper answer")

    async def _admitted(self, ticket: Ticket) -> None:
        self._queue.append(ticket)
        self._next()
        try:
            await ticket.turn
        except asyncio.CancelledError:
            if ticket in self._queue:
                self._queue.remove(ticket)
            raise

    def _leave(self, ticket: Ticket) -> None:
        self._running.discard(ticket)
        self._next()

    def _next(self) -> None:
        """Give the free places away, to tickets with waiting callers first, in order of arrival."""
        for ticket in sorted(self._queue, key=lambda t: not t.urgent()):
            if self._fits(ticket):
                self._queue.remove(ticket)
                self._running.add(ticket)
                if not ticket.turn.done():
                    ticket.turn.set_result(None)

    def _fits(self, ticket: Ticket) -> bool:
        same_host = sum(1 for other in self._running if ticket.host and other.host == ticket.host)
        prompting = sum(1 for other in self._running if other.prompt)
        return len(self._running) < AT_ONCE and same_host < PER_HOST and (not ticket.prompt or prompting < PROMPTING)


def _host(job: Job) -> str:
    match job:
        case jobs.Login(target=target) | jobs.Keep(target=target):
            return urlsplit(target.base_url).netloc
        case jobs.Prove(base_url=base_url):
            return urlsplit(base_url).netloc
        case _:
            return ""  # never touches the network


def _failed(message: str) -> Failed:
    return Failed("helper_failed", message, _STOP_HINT)
