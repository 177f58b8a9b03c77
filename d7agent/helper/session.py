"""A store in use by one job: opened without a prompt or with one, every call limited in time."""

from collections.abc import Callable
from typing import Final, TypeVar

from msgspec import Struct

from d7agent.core.jobs import LOGIN_LIMIT, PROMPT_LIMIT, STORE_LIMIT, Target
from d7agent.helper.deadline import within
from d7agent.helper.faults import JobFault, StoreLocked, StoreMissing, StoreUnreachable
from d7agent.helper.stores import Credential, Store, open_store

T = TypeVar("T")
LOGIN_HINT: Final = "run: d7agent login"


class Limits(Struct, frozen=True):
    """Seconds for one store call, for one that a person may have to answer, and for one exchange with D7."""

    store: float = STORE_LIMIT
    prompt: float = PROMPT_LIMIT
    login: float = LOGIN_LIMIT


class Session:
    """The store of one target. Raises JobFault from every method; opening raises StoreLocked rather than prompt."""

    def __init__(self, target: Target, limits: Limits, *, prompt: bool) -> None:
        self.target = target
        self.limits = limits
        self._prompt = prompt
        self._store: Store = self._limited(lambda: open_store(target), limits.store)
        if self._limited(self._store.locked, limits.store):
            if not prompt:
                raise StoreLocked("the keyring is locked")
            self._limited(self._store.unlock, limits.prompt)

    @property
    def kind(self) -> str:
        """The store's kind, for messages."""
        return self.target.store.partition(":")[0]

    def read(self) -> Credential | None:
        """The credential, or None."""
        return self._call(self._store.read)

    def demand(self) -> Credential:
        """The credential. Raises StoreMissing where there is none."""
        credential = self.read()
        if credential is None:
            raise StoreMissing(
                f"the {self.kind} store of profile {self.target.profile} holds no credential", LOGIN_HINT
            )
        return credential

    def writable(self) -> bool:
        """Whether the credential can be replaced."""
        return self._call(lambda: self._store.writable)

    def pinned(self) -> str | None:
        """The store string to write into the profile, if it says more than the present one."""
        return self._call(lambda: self._store.pinned)

    def write(self, credential: Credential) -> None:
        """Replace the credential."""
        self._call(lambda: self._store.write(credential))

    def delete(self) -> tuple[str, ...]:
        """Remove the credential; answers what is left."""
        return self._call(self._store.delete)

    def remembered(self) -> str | None:
        """The remembered token's text; None also for one that cannot be read: it is only a help."""
        try:
            shelf = self._call(lambda: self._store.shelf)
            return self._call(shelf.read) if shelf else None
        except JobFault:
            return None

    def remember(self, text: str) -> bool:
        """Keep the token's text. False where there is no place or it fails: a token is worth more than its copy."""
        try:
            shelf = self._call(lambda: self._store.shelf)
            if shelf:
                self._call(lambda: shelf.write(text))
        except JobFault:
            return False
        return shelf is not None

    def forget_token(self) -> None:
        """Remove the remembered token."""
        if shelf := self._call(lambda: self._store.shelf):
            self._call(shelf.delete)

    def _call(self, call: Callable[[], T]) -> T:
        return self._limited(call, self.limits.prompt if self._prompt else self.limits.store)

    def _limited(self, call: Callable[[], T], seconds: float) -> T:
        return within(seconds, call, lambda: self._late(seconds))

    def _late(self, seconds: float) -> JobFault:
        if seconds == self.limits.prompt:
            return StoreLocked(f"the {self.kind} store was not unlocked within {seconds:g} s")
        hint = "see whether its daemon or disk hangs; it is tried again by itself"
        return StoreUnreachable(f"the {self.kind} store did not answer within {seconds:g} s", hint)
