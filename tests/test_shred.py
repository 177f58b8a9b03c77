"""Overwriting what is left of a token must not bring the agent down: in a process of its own, for that would end it."""

import subprocess
import sys

# The kernel puts a mapping right below the one before: the area ends where nobody may read. The numbers make the search
# look at the byte behind the last, as Python 3.11.2 does.
WALLED = """if True:
    import ctypes
    from d7agent.agent.shred import PIECE, _Area
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap(None, PIECE, 0, 0x22, -1, 0)
    print(_Area(PIECE).data.find(b"x" * 20, PIECE - 860, PIECE))
"""
CROWDED = """if True:
    import base64, os, random, threading
    from d7agent.agent.shred import shred
    from d7agent.core.model import Secret
    numbers, ended = random.Random(5), threading.Event()
    sink = os.open("/dev/null", os.O_WRONLY)
    def other():
        while not ended.is_set():
            made = [memoryview(bytes(size)) for size in range(10, 300, 7)], [str(n) * 30 for n in range(1000, 1050)]
            os.write(sink, made[1][0].encode())
    thread = threading.Thread(target=other)
    thread.start()
    found = 0
    for _ in range(20):
        token = base64.b64encode(numbers.randbytes(300)).decode()[: numbers.choice([150, 180, 200, 230])]
        dropped = [
            bytes((b"x" * numbers.randrange(size) + token.encode())[: size - 33])
            for size in range(48, 520, 16)
            for _ in range(40)
        ]
        del dropped
        found += shred([Secret(token)])
    ended.set()
    thread.join()
    print(found > 1000)
"""


def outcome(program: str) -> tuple[int, str, str]:
    """Exit status (negative: the signal), stdout and stderr."""
    argv = [sys.executable, "-P", "-X", "faulthandler", "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=50)
    return done.returncode, done.stdout, done.stderr


def test_the_search_stays_within_its_memory() -> None:
    """Not one byte beyond what is its own is looked at, where that would be a crash."""
    assert outcome(WALLED) == (0, "-1\n", "")


def test_copies_are_overwritten_while_other_threads_make_objects() -> None:
    """Thousands of copies in free memory of every size, and a thread that uses it again: all objects stay whole."""
    assert outcome(CROWDED) == (0, "True\n", "")
