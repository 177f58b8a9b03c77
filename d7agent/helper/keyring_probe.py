"""Asking a keyring's daemon whether it is locked, which keyring itself cannot do without prompting.

A question takes 2 ms, and no more than one connection to the session bus.
"""

from contextlib import closing
from typing import Final

from d7agent.helper.faults import StoreLocked
from d7agent.helper.keyring_faults import DESKTOP_HINT

SECRET_SERVICE: Final = frozenset({"keyring.backends.SecretService.Keyring", "keyring.backends.libsecret.Keyring"})
KWALLET: Final = "keyring.backends.kwallet.DBusKeyring"
ON_THE_BUS: Final = SECRET_SERVICE | {KWALLET}


def locked(backend: str) -> bool | None:
    """Whether the backend of this class name is locked; None if it has no place for secrets yet.

    One that cannot be asked counts as unlocked. Raises whatever secretstorage and jeepney raise.
    """
    if backend in SECRET_SERVICE:
        return _collection_locked()
    return backend == KWALLET and not _wallet_open()


def unlock(backend: str) -> None:
    """Have the desktop ask for the password, and wait. KWallet does so by itself when used. Raises StoreLocked."""
    if backend not in SECRET_SERVICE:
        return
    import secretstorage

    with closing(secretstorage.dbus_init()) as connection:
        collection = secretstorage.Collection(connection)
        if collection.unlock() or collection.is_locked():
            raise StoreLocked("the keyring is locked, and its prompt was closed without a password", DESKTOP_HINT)


def _collection_locked() -> bool | None:
    import secretstorage

    with closing(secretstorage.dbus_init()) as connection:
        try:
            return secretstorage.Collection(connection).is_locked()
        except secretstorage.ItemNotFoundException:
            return None


def _wallet_open() -> bool:
    from jeepney import DBusAddress, new_method_call
    from jeepney.io.blocking import open_dbus_connection
    from jeepney.wrappers import unwrap_msg

    wallets = DBusAddress("/modules/kwalletd5", "org.kde.kwalletd5", "org.kde.KWallet")
    with closing(open_dbus_connection()) as connection:
        (name,) = unwrap_msg(connection.send_and_get_reply(new_method_call(wallets, "networkWallet")))
        (is_open,) = unwrap_msg(connection.send_and_get_reply(new_method_call(wallets, "isOpen", "s", (name,))))
    return bool(is_open)
