import os
import select
from pathlib import Path

import pytest

from d7agent.core.model import Secret
from d7agent.helper.command import CommandStore
from d7agent.helper.faults import StoreMissing, StoreUnreachable
from d7agent.helper.stores import Application
from tests.support.helper import target

APPLICATION = Application("id-1", Secret("secret-1"))


def command(line: str, client_id: str | None = None, limit: float = 5) -> CommandStore:
    """The store of this command."""
    return CommandStore(line, target("command", client_id=client_id), limit)


def test_a_command_prints_the_secret_alone() -> None:
    """One line is the client secret, the id comes from the profile."""
    assert command("echo secret-1", client_id="id-1").read() == APPLICATION


def test_a_command_knows_no_shell() -> None:
    """Words are words: nothing is expanded, no second command runs."""
    store = command("echo '$HOME;' `id` \\> x", client_id="id-1")
    assert store.read() == Application("id-1", Secret("$HOME; `id` > x"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sh -c 'echo no such entry >&2; exit 7'", "exit code 7: no such entry"),
        ("sh -c 'echo secret-1; echo at secret-1 >&2; exit 1'", "exit code 1: at …"),
        ("sh -c 'kill -9 $$'", "signal 9"),
        ("/proc/nowhere/pass show", "No such file"),
        ("sleep 60", "did not end within 0.3 s"),
        ("sh -c 'sleep 60 & wait'", "did not end within 0.3 s"),
        ("head -c 100000 /dev/zero", "more than 64 KiB"),
        ("sh -c 'head -c 100000 /dev/zero >&2'", "more than 64 KiB"),
    ],
)
def test_a_command_that_fails(line: str, words: str) -> None:
    """How it ended and its first words are told, without what may be a secret."""
    with pytest.raises(StoreUnreachable) as fault:
        command(line, client_id="i", limit=0.3).read()
    assert words in fault.value.failed.message
    assert "secret-1" not in str(fault.value.failed)
    assert fault.value.failed.hint


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("echo secret-1", "no client_id"),
        ("printf 'a\\nb'", "several lines"),
        ("echo '{}'", "without a credential"),
        ("""echo '{"client_id": 1}'""", "without a credential"),
        ("echo '{\"client_id\"'", "without a credential"),
        ("""echo '{"client_id": "i"}'""", "no client_secret"),
    ],
)
def test_a_command_that_prints_something_else(line: str, words: str) -> None:
    """What was printed instead is described, not shown."""
    with pytest.raises(StoreMissing) as fault:
        command(line).read()
    assert words in fault.value.failed.message
    assert "secret-1" not in str(fault.value.failed)


def test_nothing_of_a_command_stays_behind(tmp_path: Path) -> None:
    """What it left running in the background holds nobody up, and is killed with it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # The reader below gets its end of file only once every process that holds the FIFO open is gone.
    store = command(f"sh -c 'exec 3<>{fifo}; (sleep 60 3>&3) & echo secret-1'", client_id="id-1")
    fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert store.read() == APPLICATION
        assert select.select([fd], [], [], 5)[0]
        assert os.read(fd, 1) == b""
    finally:
        os.close(fd)
