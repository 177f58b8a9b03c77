"""The `environment` store: D7_CLIENT_ID and D7_CLIENT_SECRET, or D7_API_TOKEN, for containers. Read-only."""

import re
from typing import Final

from d7agent.core.jobs import Target
from d7agent.helper.faults import Invalid, StoreUnreachable
from d7agent.helper.stores import AlwaysOpen, Credential, Shelf, assembled
from d7agent.helper.token_file import state_shelf

NAMES: Final = {
    "client_id": "D7_CLIENT_ID",
    "client_secret": "D7_CLIENT_SECRET",  # the variable's name, no secret  # nosec B105
    "access_token": "D7_API_TOKEN",  # the same  # nosec B105
}
PREFIX: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class EnvironmentStore(AlwaysOpen):
    """The agent's variables, their names after `prefix`, as the target brings them."""

    writable = False
    pinned = None

    def __init__(self, prefix: str, target: Target) -> None:
        if prefix and not PREFIX.fullmatch(prefix):
            raise Invalid("store", "the prefix of an environment store has to be a name like MYAPP_")
        self._names = {part: prefix + name for part, name in NAMES.items()}
        self._set = target.variables
        self._client_id = target.client_id
        self._target = target

    @property
    def shelf(self) -> Shelf | None:
        """A file in the agent's state folder, if it has one."""
        return state_shelf(self._target)

    def read(self) -> Credential | None:
        """The credential; an empty variable is the same as none. Raises StoreMissing."""
        texts = {part: self._set[name].reveal() for part, name in self._names.items() if name in self._set}
        found = {part: text for part, text in texts.items() if text}
        return assembled(found, f"the environment ({', '.join(self._names.values())})", self._client_id)

    def write(self, _: Credential) -> None:
        """Never: nobody can write the environment of a running process."""
        raise StoreUnreachable("the environment cannot be written", "set the variables where the agent is started")

    def delete(self) -> tuple[str, ...]:
        """What is left: the variables that are set."""
        return tuple(
            f"environment variable {name}"
            for name in self._names.values()
            if name in self._set and self._set[name].reveal()
        )
