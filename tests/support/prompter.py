"""A prompter on a private bus that is asked to unlock the keyring and never shows anything: a person who is away."""

import threading
from contextlib import closing
from types import TracebackType
from typing import Final, Self

from jeepney import DBusAddress, HeaderFields, MessageType, new_method_call, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import Proxy, open_dbus_connection

NAME: Final = "org.gnome.keyring.SystemPrompter"
INTERFACE: Final = "org.gnome.keyring.internal.Prompter"
PATH: Final = "/org/gnome/keyring/Prompter"


class SilentPrompter:
    """Answers every call of gcr's Prompter interface with nothing, until the end. `asked` is set at the first."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._ready = threading.Event()
        self.asked = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10), "the prompter did not get its name"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with closing(open_dbus_connection(self._address)) as connection:
            end = new_method_call(DBusAddress(PATH, NAME, INTERFACE), "End")
            connection.send_and_get_reply(end, timeout=10)
        self._thread.join()

    def _serve(self) -> None:
        with closing(open_dbus_connection(self._address)) as connection:
            Proxy(message_bus, connection).RequestName(NAME)
            self._ready.set()
            member = None
            while member != "End":
                message = connection.receive()
                if message.header.message_type == MessageType.method_call:
                    member = message.header.fields[HeaderFields.member]
                    connection.send(new_method_return(message))
                    self.asked.set()
