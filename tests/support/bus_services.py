"""Services on a private bus that are fakes: a prompter that a person never answers, and a KWallet that is locked."""

import threading
from collections.abc import Callable
from contextlib import closing
from types import TracebackType
from typing import Any, Final, Self

from jeepney import DBusAddress, HeaderFields, MessageType, new_method_call, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import Proxy, open_dbus_connection

Answer = Callable[[str], tuple[str | None, tuple[Any, ...]]]
PROMPTER: Final = "org.gnome.keyring.SystemPrompter"
KWALLET: Final = "org.kde.kwalletd5"


class Service:
    """Owns `name`; each method call gets the signature and body that `answer` has for it. `asked`: it was called."""

    def __init__(self, address: str, name: str, answer: Answer) -> None:
        self._address = address
        self._name = name
        self._answer = answer
        self._ready = threading.Event()
        self.asked = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10), f"the fake did not get the name {self._name}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with closing(open_dbus_connection(self._address)) as connection:
            end = new_method_call(DBusAddress("/", self._name, "d7agent.Test"), "End")
            connection.send_and_get_reply(end, timeout=10)
        self._thread.join()

    def _serve(self) -> None:
        with closing(open_dbus_connection(self._address)) as connection:
            Proxy(message_bus, connection).RequestName(self._name)
            self._ready.set()
            member = ""
            while member != "End":
                message = connection.receive()
                if message.header.message_type == MessageType.method_call:
                    member = message.header.fields[HeaderFields.member]
                    connection.send(new_method_return(message, *self._answer(member)))
                    self.asked.set()


def silent_prompter(address: str) -> Service:
    """gcr's prompter, all of whose methods do nothing: a person who is away."""
    return Service(address, PROMPTER, lambda _: (None, ()))


def wallet(address: str, *, is_open: bool) -> Service:
    """KDE's wallet daemon, as far as it is asked whether its wallet is open."""
    answers: dict[str, tuple[str, tuple[Any, ...]]] = {
        "networkWallet": ("s", ("kdewallet",)),
        "isOpen": ("b", (is_open,)),
    }
    return Service(address, KWALLET, lambda member: answers.get(member, (None, ())))
