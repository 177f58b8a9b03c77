"""Files that are there whole or not at all, as the operating system really lets writing them fail."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from d7agent.agent import files
from d7agent.agent.atomic import make_folder, remove
from tests.support.osfaults import file_size_limit, on_full_disk, umask, unprivileged


def mode_of(path: Path | str) -> int:
    """The permission bits."""
    return stat.S_IMODE(os.lstat(path).st_mode)


def leftovers(folder: Path | str) -> list[str]:
    """Temporary files in a folder."""
    return [name for name in os.listdir(folder) if name.endswith(".tmp")]


@pytest.mark.parametrize("mask", [0o000, 0o777])
def test_a_file_has_exactly_its_mode_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    """And the folders made for it are ours alone."""
    path = tmp_path / "a" / "b" / "file"
    with umask(mask):
        files.write_atomic(str(path), b"text", 0o640, str(os.getegid()))
    assert path.read_bytes() == b"text"
    assert (mode_of(path), mode_of(path.parent), mode_of(path.parent.parent)) == (0o640, 0o700, 0o700)
    assert path.stat().st_gid == os.getegid()


def test_a_folder_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    """It is not ours to change."""
    tmp_path.chmod(0o750)
    make_folder(str(tmp_path))
    assert mode_of(tmp_path) == 0o750


def test_a_link_in_place_of_the_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """What it led to is not touched."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "file"
    path.symlink_to(victim)
    files.write_atomic(str(path), b"new", 0o600)
    assert (victim.read_text(), path.read_text(), path.is_symlink()) == ("precious", "new", False)


def test_a_link_in_place_of_the_temporary_file_is_not_followed_either(tmp_path: Path) -> None:
    """Its name can be guessed."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".file.tmp").symlink_to(victim)
    files.write_atomic(str(tmp_path / "file"), b"new", 0o600)
    assert victim.read_text() == "precious"
    assert leftovers(tmp_path) == []


def test_what_stands_in_the_temporary_files_place_and_cannot_be_removed_is_gone_around(tmp_path: Path) -> None:
    """As another user's file in a folder like /tmp."""
    (tmp_path / ".file.tmp").mkdir()
    files.write_atomic(str(tmp_path / "file"), b"new", 0o600)
    assert (tmp_path / "file").read_bytes() == b"new"
    assert leftovers(tmp_path) == [".file.tmp"]


def check_failure(path: Path, group: str | None = None) -> OSError:
    """A failed write: the error names the path, what was there is whole, and nothing is left over."""
    path.write_text("old")
    with pytest.raises(OSError, match=r".") as caught:
        files.write_atomic(str(path), b"new" * 10_000, 0o600, group)
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert leftovers(path.parent) == []
    return caught.value


def test_a_write_that_fails_midway_leaves_what_was_there(tmp_path: Path) -> None:
    """The kernel takes some of the bytes and then no more."""
    with file_size_limit(1000):
        assert check_failure(tmp_path / "file").strerror == "File too large"


def test_a_group_that_does_not_exist(tmp_path: Path) -> None:
    """Said by name, before anything is written."""
    assert "there is no group 'no-such-group'" in str(check_failure(tmp_path / "file", "no-such-group"))


def test_a_group_that_we_are_not_in() -> None:
    """The kernel refuses, and no content was ever in the file."""
    with unprivileged() as folder:
        assert check_failure(folder / "file", "0").strerror == "Operation not permitted"


def test_a_read_only_folder() -> None:
    """As a read-only file system, save for the errno."""
    with unprivileged() as folder:
        path = folder / "ro" / "file"
        path.parent.mkdir()
        path.write_text("old")
        path.parent.chmod(0o500)
        with pytest.raises(PermissionError):
            files.write_atomic(str(path), b"new", 0o600)
        assert path.read_text() == "old"


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    """It stays."""
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        files.write_atomic(str(tmp_path / "file"), b"new", 0o600)
    assert leftovers(tmp_path) == []


FULL_DISK = """
import os, sys
from d7agent.agent import files
from d7agent.core.errors import ConfigError
from tests.support.osfaults import paths_in
folder = sys.argv[1]
files.write_atomic(folder + "/file", b"old", 0o600)
paths = paths_in(folder)
files.write_profile(paths, "a", {"client_id": "old"})
open(folder + "/ballast", "wb", 0).write(bytes(1 << 16))
for change in (
    lambda: files.write_atomic(folder + "/file", bytes(100_000), 0o600),
    lambda: files.write_state(folder + "/file", "x" * 100_000),
    lambda: files.write_profile(paths, "a", {"client_id": "n" * 100_000}),
):
    try:
        change()
    except (OSError, ConfigError) as error:
        print(error)
print(open(folder + "/file").read(), files.load(paths).profiles["a"].client_id)
print([name for _, _, names in os.walk(folder) for name in names if name.endswith(".tmp")])
"""


def test_a_full_disk(tmp_path: Path) -> None:
    """A real one of 64 KiB: file, state and profile stay as they were, and the error says why."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = on_full_disk(disk, FULL_DISK.replace("sys.argv[1]", repr(str(disk))))
    if done is None:
        pytest.skip("a full disk needs unshare(1) and the right to mount: run the tests as root")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"[Errno 28] No space left on device: '{disk}/file'",
        f"[Errno 28] No space left on device: '{disk}/file'",
        f"{disk}/config/profiles/a.toml: cannot be written: No space left on device",
        "old old",
        "[]",
    ]


WRITER = """
import sys
from d7agent.agent.files import write_atomic
print(flush=True)
while True:
    for letter in (b"a", b"b"):
        write_atomic(sys.argv[1], letter * 500_000, 0o600)
"""


def test_a_writer_killed_at_any_moment_leaves_the_file_whole(tmp_path: Path) -> None:
    """At most one temporary file stays, and the next writer or `remove` takes it away."""
    path = tmp_path / "file"
    for after in (0.0, 0.001, 0.003, 0.007, 0.02):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(after)  # real time: the moment of the kill, not a wait for anything
            writer.send_signal(signal.SIGKILL)
        assert not path.exists() or path.read_bytes() in (b"a" * 500_000, b"b" * 500_000)
        assert len(leftovers(tmp_path)) <= 1
    (tmp_path / ".file.tmp").write_text("half")
    files.write_atomic(str(path), b"c", 0o600)
    assert leftovers(tmp_path) == []
    (tmp_path / ".file.tmp").write_text("half")
    assert remove(str(path))
    assert os.listdir(tmp_path) == []
    assert not remove(str(path))
    assert not remove(str(tmp_path / "none" / "file"))
