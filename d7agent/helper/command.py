"""The `command` store: a program that prints the credential, such as `pass show d7`. Read-only."""

import json
import shlex
from typing import Any, Final

from d7agent.core.jobs import Target
from d7agent.helper.faults import Invalid, StoreMissing, StoreUnreachable, plain
from d7agent.helper.process import Ran, run
from d7agent.helper.stores import PARTS, AlwaysOpen, Credential, Shelf, assembled
from d7agent.helper.token_file import state_shelf

LIMIT: Final = 14.0  # seconds; just under STORE_LIMIT, so that the program is ended before the store call is given up


class CommandStore(AlwaysOpen):
    """One argv, run without a shell."""

    writable = False
    pinned = None

    def __init__(self, argument: str, target: Target, limit: float = LIMIT) -> None:
        try:
            self._argv = shlex.split(argument)
        except ValueError:
            self._argv = []
        if not self._argv or not self._argv[0]:
            hint = "write it as in a shell: command:pass show d7/production"
            raise Invalid("store", "the words of a command store cannot be read", hint)
        self._target = target
        self._limit = limit

    @property
    def shelf(self) -> Shelf | None:
        """A file in the agent's state folder, if it has one."""
        return state_shelf(self._target)

    @property
    def _name(self) -> str:
        return f"the command {plain(self._argv[0])}"

    def read(self) -> Credential | None:
        """The credential that the command prints; None if it prints nothing. Raises StoreUnreachable, StoreMissing."""
        ran = run(self._argv, self._limit, self._name)
        if ran.code != 0:
            raise StoreUnreachable(f"{self._name} failed with {_ending(ran)}", "run it yourself and see what it wants")
        if not ran.out.strip():
            return None
        return assembled(self._parts(ran.out), self._name, self._target.client_id)

    def _parts(self, out: str) -> dict[str, str]:
        if out.lstrip().startswith("{"):
            return self._object(out)
        if len(out.strip().splitlines()) > 1:
            hint = "let it print JSON with client_id and client_secret, or the secret on one line"
            raise StoreMissing(f"{self._name} prints several lines that are no JSON", hint)
        if self._target.client_id is None:
            hint = "write client_id = … into the profile, or let the command print JSON"
            raise StoreMissing(f"{self._name} prints a client secret, and the profile has no client_id for it", hint)
        return {"client_secret": out}

    def _object(self, out: str) -> dict[str, str]:
        try:
            found: Any = json.loads(out)
        except (ValueError, RecursionError):
            found = None
        parts = {part: found[part] for part in PARTS if part in found} if isinstance(found, dict) else {}
        if not parts or not all(isinstance(value, str) for value in parts.values()):
            hint = "let it print client_id and client_secret, or access_token, as strings"
            raise StoreMissing(f"{self._name} prints JSON without a credential", hint)
        return parts

    def write(self, _: Credential) -> None:
        """Never: a command only tells."""
        raise StoreUnreachable(f"{self._name} cannot be written to", "put the credential where the command finds it")

    def delete(self) -> tuple[str, ...]:
        """What is left: whatever the command reads."""
        return (f"what {self._name} prints",)


def _ending(ran: Ran) -> str:
    how = f"exit code {ran.code}" if ran.code >= 0 else f"signal {-ran.code}"
    words = plain(next(iter(ran.err.strip().splitlines()), ""), *ran.out.split())
    return f"{how}: {words}" if words else how
