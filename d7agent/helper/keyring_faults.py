"""Every way out of keyring, secretstorage and D-Bus, sorted once.

By the names of the exceptions' classes: importing those classes would load all of keyring for a bus that is not there.
"""

from typing import Final

from d7agent.helper.faults import JobFault, StoreLocked, StoreUnreachable, plain

BUS_HINT: Final = (
    "start the agent in your desktop session or give it DBUS_SESSION_BUS_ADDRESS, or choose directory:PATH"
)
DAEMON_HINT: Final = (
    "start a keyring (gnome-keyring, KWallet, KeePassXC), or choose: d7agent login --store directory:PATH"
)
DESKTOP_HINT: Final = "log in to the desktop, or unlock the keyring there; the agent then goes on by itself"
LOCKED: Final = frozenset({"KeyringLocked", "LockedException"})
NO_BUS: Final = frozenset(
    {"FileNotFoundError", "ConnectionError", "KeyError", "ValueError"}
)  # the last for an address that is none
NO_DAEMON: Final = frozenset({"SecretServiceNotAvailableException", "NoKeyringError", "InitError", "RuntimeError"})
BELOW_US: Final = frozenset({"keyring", "secretstorage", "jeepney"})  # packages whose words hold no secret
IS_LOCKED: Final = "org.freedesktop.Secret.Error.IsLocked"


def sorted_fault(error: BaseException, *, bus: bool = True) -> JobFault:
    """The fault for an exception that came out of a keyring call. Only words that keyring itself wrote are repeated.

    `bus`: the backend speaks to the session bus, so that a missing file is the bus's socket.
    """
    if isinstance(error, JobFault):
        return error
    known = _raised_below_us(error)
    kinds = {kind.__name__ for cause in _causes(error) for kind in type(cause).__mro__}
    words = plain(str(error)) if known else type(error).__name__
    if kinds & LOCKED or IS_LOCKED in str(getattr(error, "name", "")):
        return StoreLocked("the keyring is locked", DESKTOP_HINT)
    if "PromptDismissedException" in kinds or "Cancelled by user" in words:
        return StoreLocked("the keyring is locked or not made yet, and its prompt was not answered", DESKTOP_HINT)
    if bus and "PermissionError" in kinds:
        return StoreUnreachable("the session bus belongs to another user", BUS_HINT)
    if bus and kinds & NO_BUS:
        return StoreUnreachable("there is no session bus to find a keyring on", BUS_HINT)
    if kinds & NO_DAEMON and known:
        return StoreUnreachable(f"the keyring is not there: {words}", DAEMON_HINT)
    if "DBusErrorResponse" in kinds:
        return StoreUnreachable(f"the keyring answered {plain(str(getattr(error, 'name', 'an error')))}", DAEMON_HINT)
    return StoreUnreachable(f"the keyring failed with {type(error).__name__}", DAEMON_HINT)


def _raised_below_us(error: BaseException) -> bool:
    """Whether it comes from those packages' own code: a plugin may raise the same class and put the secret into it."""
    step, module = error.__traceback__, ""
    while step:
        module = str(step.tb_frame.f_globals.get("__name__", ""))
        step = step.tb_next
    return module.partition(".")[0] in BELOW_US


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
