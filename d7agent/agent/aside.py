"""Work that may block on a file system, done beside the loop: a hung one costs a thread, never an answer."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

AT_ONCE: Final = 4  # threads; so many hung file systems, and the next one waits
STACK: Final = 256 * 1024  # bytes; the work is a handful of system calls

Work = Callable[[], None]


class Aside:
    """Runs work in the order in which it comes, in threads that end when there is none: at rest it costs nothing.

    The threads are daemons, so that one hung in the kernel does not hold up the end of the process.
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self._queue: deque[Work] = deque()
        self._lock = threading.Lock()
        self._threads = 0

    def run(self, work: Work) -> None:
        """Have `work` done soon; it must not raise. Where no thread can be had, it is done at once, by the caller."""
        with self._lock:
            self._queue.append(work)
            if self._threads >= self._at_once:
                return
            self._threads += 1
        if not _started(self._drain):
            self._drain()

    def _drain(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._threads -= 1
                    return
                work = self._queue.popleft()
            work()


def _started(target: Work) -> bool:
    """Whether a thread could be started; the process may be at its limit (RLIMIT_NPROC, TasksMax=)."""
    usual = threading.stack_size(STACK)
    try:
        threading.Thread(target=target, name="aside", daemon=True).start()
    except RuntimeError:
        return False
    finally:
        threading.stack_size(usual)
    return True
