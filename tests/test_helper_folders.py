"""The `directory` store's folder, as others leave it to us: closed, or kept locked."""

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from d7agent.core.jobs import Failed, Recall, decode_reply, encode
from d7agent.core.model import Secret
from d7agent.helper.directory import DirectoryStore
from d7agent.helper.faults import StoreUnreachable
from d7agent.helper.stores import Application
from tests.support.another_user import as_another
from tests.support.helper import NOW, USUAL, environment, folder, target


@pytest.mark.parametrize("link", [False, True])
def test_a_folder_that_cannot_be_entered_is_named(tmp_path: Path, link: bool) -> None:
    """Another user's folder, or a link into one: the store is out of reach, and that is no bug."""
    closed = tmp_path / "closed"
    (closed / "in").mkdir(parents=True)
    closed.chmod(0)
    place = tmp_path / "link" if link else closed / "in"
    if link:
        place.symlink_to(closed / "in")
    job = encode(Recall(target(f"directory:{place}"), NOW)) + b"\0"
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    done = subprocess.run(
        as_another(*USUAL), input=job, env=environment(None), capture_output=True, check=True, cwd="/"
    )
    closed.chmod(0o700)
    reply = decode_reply(done.stdout)
    assert isinstance(reply, Failed)
    assert (reply.reason, "Permission denied" in reply.message) == ("store_unreachable", True)


def test_a_folder_that_others_keep_locked_is_not_waited_for(tmp_path: Path) -> None:
    """Who may look into a folder can lock it (flock): a write gives up after a second, and a read does not care."""
    path = folder(tmp_path / "c", client_id="id-1", client_secret="secret-1")
    store, other = DirectoryStore(str(path), target("directory"), {}), Application("id-2", Secret("secret-2"))
    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert store.read() == Application("id-1", Secret("secret-1"))
    with pytest.raises(StoreUnreachable) as fault:
        store.write(other)
    os.close(fd)
    assert "keeps its folder locked" in fault.value.failed.message
    store.write(other)
    assert store.read() == other
