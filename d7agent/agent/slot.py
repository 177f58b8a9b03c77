"""One path of a sink: what should be there, what is there, and the one piece of work that makes the two the same."""

import asyncio
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from msgspec import Struct

from d7agent.agent import sink_file
from d7agent.agent.aside import Aside
from d7agent.agent.sink_file import Identity, Trouble
from d7agent.core.clock import Clock
from d7agent.core.config import Sink
from d7agent.core.forms import Facts, Unfit, sink_form
from d7agent.core.model import Grant

log = logging.getLogger(__name__)

RETRY_FIRST: Final = 1.0  # seconds after the first failure, doubled by each further one
RETRY_LAST: Final = 60.0  # seconds
GRID: Final = 5.0  # seconds; retries from this length on meet at its multiples, so that many are one wake-up
SLOW: Final = 10.0  # seconds after which a file system counts as hung

Key = tuple[Sink, str, Facts | None]  # what tells two contents apart: settings, the token's fingerprint, the facts


class Content(Struct, frozen=True):
    """What a sink is to hold."""

    grant: Grant
    facts: Facts


class Outcome(Struct, frozen=True):
    """What a piece of work came to: an error, or the file that is there now, if any. `removed`: the old one is gone."""

    error: str = ""
    identity: Identity | None = None
    removed: bool = False


class _Unknown:
    """What an agent before us may have left."""


class Slot:
    """All methods run on the loop, the work itself aside."""

    def __init__(self, path: str, clock: Clock, aside: Aside) -> None:
        self.path = path
        self.profile = ""
        self._clock = clock
        self._aside = aside
        self._sink = Sink(path)
        self._told: Callable[[], None] = lambda: None
        self._left: Callable[[], None] | None = None
        self._content: Content | None = None
        self._wanted: Key | _Unknown | None = _Unknown()
        self._there: Key | _Unknown | None = _Unknown()
        self._until = math.inf
        self._working: float | None = None
        self._warned = False
        self._error = ""
        self._failures = 0
        self._retry: asyncio.TimerHandle | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self.identity: Identity | None = None

    @property
    def untouched(self) -> bool:
        """Whether nobody has said yet what should be there."""
        return isinstance(self._wanted, _Unknown)

    @property
    def busy(self) -> bool:
        """Whether work is under way."""
        return self._working is not None

    @property
    def use_before(self) -> int:
        """Until when the wanted content may be used, on the boot clock; 0 for none."""
        return 0 if self._content is None else self._content.facts.use_before

    def trouble(self, now: float) -> str:
        """What is wrong with the file at boot instant `now`, "" for nothing."""
        if self._working is not None and now - self._working > SLOW:
            return f"its file system has not answered for {now - self._working:.0f} s: see whether it hangs"
        return self._error

    def warn_if_slow(self, now: float) -> None:
        """Log a hung file system, once."""
        if self._working is not None and now - self._working > SLOW and not self._warned:
            self._warned = True
            log.warning("%s: the sink %s: %s", self.profile, self.path, self.trouble(now))
            self._told()

    def assign(self, profile: str, sink: Sink, told: Callable[[], None]) -> None:
        """Take these settings; an old failure is tried again at once. `told` is called when the trouble is another."""
        same = sink == self._sink
        self.profile, self._sink, self._told, self._left = profile, sink, told, None
        if same:
            self._again()

    def leave(self, left: Callable[[], None]) -> None:
        """Remove the file, as often as it takes; `left` is called when it is gone."""
        self._left = left
        self.end()
        self._part()

    def end(self) -> None:
        """Remove the file, now."""
        self.want(None)
        self._again()

    def want(self, content: Content | None) -> None:
        """What should be there from now on."""
        key = None if content is None else self._key(content)
        if key != self._wanted:
            self._content, self._wanted = content, key
            self._again()

    def lost(self) -> None:
        """Somebody removed or replaced the file."""
        log.info("%s: the sink %s was removed or replaced by someone else", self.profile, self.path)
        self._there, self.identity = _Unknown(), None
        self._again()

    async def settled(self) -> None:
        """Wait until no work is under way."""
        if self.busy:
            self._waiting.append(asyncio.get_running_loop().create_future())
            await self._waiting[-1]

    def _key(self, content: Content) -> Key:
        dated = self._sink.format in ("env", "json")
        return self._sink, content.grant.fingerprint, content.facts if dated else None

    def _again(self) -> None:
        """Try now, whatever the backoff."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if not self.busy and not self.untouched and self._wanted != self._there:
            self._start()

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        now = self._clock.now().boot
        self._working, self._warned = now, False
        key, sink, content, dead = self._wanted, self._sink, self._content, now >= self._until

        def work() -> None:
            outcome = Outcome(error="an unexpected error, see the agent's journal")
            try:
                outcome = _carried_out(sink, content, lambda: self._wanted is key, dead=dead)
            finally:
                with suppress(RuntimeError):  # the loop has ended meanwhile
                    loop.call_soon_threadsafe(self._done, key, content, outcome)

        self._aside.run(work)

    def _done(self, key: Key | _Unknown | None, content: Content | None, outcome: Outcome) -> None:
        self._working = None
        if outcome.error:
            self._failed(outcome)
        elif content is None or outcome.identity is not None:
            self._there, self.identity = key, outcome.identity
            self._until = math.inf if content is None else content.facts.use_before
            self._succeeded()
        if self._wanted is not key or not outcome.error:
            self._again()
        if not self.busy:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)
            self._part()

    def _failed(self, outcome: Outcome) -> None:
        self._failures += 1
        if outcome.removed:
            self._there, self.identity, self._until = None, None, math.inf
        loop = asyncio.get_running_loop()
        self._retry = loop.call_at(retry_at(loop.time(), self._failures), self._again)
        if outcome.error != self._error:
            self._error = outcome.error
            log.warning("%s: the sink %s %s; it is tried again", self.profile, self.path, self._error)
            self._told()

    def _succeeded(self) -> None:
        self._failures = 0
        if self._error:
            self._error = ""
            log.info("%s: the sink %s is well again", self.profile, self.path)
            self._told()

    def _part(self) -> None:
        if self._left is not None and not self.busy and self._there is None:
            left, self._left = self._left, None
            left()


def retry_at(now: float, failures: int) -> float:
    """When to try again after the `failures`-th failure in a row, on the clock of `now`."""
    delay = min(RETRY_FIRST * 2.0 ** min(failures - 1, 10), RETRY_LAST)
    return now + delay if delay < GRID else math.ceil((now + delay) / GRID) * GRID


def _carried_out(sink: Sink, content: Content | None, wanted: Callable[[], bool], *, dead: bool) -> Outcome:
    """Write or remove the file. `dead`: what is there is past its time, and no file is better than that."""
    try:
        if content is None:
            sink_file.drop(sink.path)
            return Outcome()
        token, facts = content.grant.access_token, content.facts
        made = sink_file.put(
            sink.path, lambda: sink_form(sink.format, token.reveal(), facts), sink.mode, sink.group, wanted
        )
        return Outcome(identity=made)
    except (OSError, Trouble, Unfit) as error:
        return Outcome(
            error=_text(error, sink, "removed" if content is None else "written"), removed=dead and _gone(sink)
        )


def _gone(sink: Sink) -> bool:
    try:
        sink_file.drop(sink.path)
    except (OSError, Trouble):
        return False
    return True


def _text(error: OSError | Trouble | Unfit, sink: Sink, what: str) -> str:
    if isinstance(error, OSError):
        return f"cannot be {what}: {error.strerror}"
    if isinstance(error, Unfit):
        return f"cannot be {what} as {sink.format}: {error}; choose format token or json"
    return f"cannot be {what}: {error}"
