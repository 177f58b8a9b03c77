"""A time limit that holds whatever the call is blocked in.

The call runs in a daemon thread. One that is late is left behind: the helper answers and leaves by os._exit, and the
kernel ends the thread. A signal would not do, because Python goes on with an interrupted socket read (PEP 475), and
getaddrinfo heeds neither signals nor socket timeouts.
"""

from collections.abc import Callable
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T], late: Callable[[], Exception]) -> T:
    """What `call` returns or raises; raises `late()` if it takes more than `seconds`."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001  carried over to the caller, who sorts it
            errors.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if results:
        return results[0]
    raise late()
