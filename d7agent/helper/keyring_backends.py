"""Which keyring backend: loaded by its class name, never by priority alone, by environment or by keyringrc.cfg.

keyring's own choice reads files and variables and scans every installed distribution (50 to 100 ms). It can also end
at one that keeps nothing (`null`), or plain files (`keyrings.alt`, which wins by priority): the user would not know.
"""

import importlib
import re
from typing import Final

from keyring.backend import KeyringBackend

from d7agent.helper.faults import StoreUnreachable
from d7agent.helper.keyring_faults import sorted_fault

CANDIDATES: Final = (
    "keyring.backends.SecretService.Keyring",
    "keyring.backends.kwallet.DBusKeyring",
    "keyring.backends.libsecret.Keyring",
)  # those that keep secrets behind a login; any other has to be named in the profile
CLASS_NAME: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
NAME_HINT: Final = "install the package it comes from, or run: d7agent login --store keyring"
NONE_HINT: Final = (
    "start a keyring (gnome-keyring, KWallet, KeePassXC), or choose: d7agent login --store directory:PATH"
)


def load(name: str) -> KeyringBackend:
    """The backend of this class name, `MODULE.Class`. Raises StoreUnreachable."""
    module, _, cls = name.rpartition(".")
    if not CLASS_NAME.fullmatch(name):
        raise StoreUnreachable("the keyring backend's name is not of the form MODULE.Class", NAME_HINT)
    try:
        found = getattr(importlib.import_module(module), cls, None)
    except ImportError:
        found = None
    if not (isinstance(found, type) and issubclass(found, KeyringBackend)):
        raise StoreUnreachable(f"there is no keyring backend {name}", NAME_HINT)
    return found()


def choose() -> str:
    """The class name of the best real keyring that works here. Raises StoreUnreachable with what is wrong with each."""
    best: tuple[float, str] | None = None
    problems = []
    for name in CANDIDATES:
        try:
            priority = float(type(load(name)).priority)
        except (Exception, SystemExit) as error:  # noqa: BLE001  a backend may raise anything while it looks around
            problems.append(sorted_fault(error).failed.message)
            continue
        best = max(best or (priority, name), (priority, name), key=lambda found: found[0])
    if best is None:
        raise StoreUnreachable(f"no keyring works here: {problems[0]}", NONE_HINT)
    return best[1]
