"""Where an always-fresh file may be put: links, folders and files of others, and what is set before the content is."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from d7agent.agent.sink_file import Trouble, drop, put, still_there
from tests.support.osfaults import NOBODY, umask, unprivileged

CONTENT = b"secret\n"

as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="files can be given to another user by root only: run it as root"
)


def write(path: Path, mode: int = 0o600, group: str | None = None) -> None:
    """Put the content there."""
    assert put(str(path), lambda: bytearray(CONTENT), mode, group, lambda: True) is not None


def refused(path: Path) -> str:
    """Why nothing is put there; whatever stood there before still does, and nothing is left over."""
    before = sorted(path.parent.iterdir())
    with pytest.raises(Trouble) as caught:
        write(path)
    assert sorted(path.parent.iterdir()) == before
    return str(caught.value)


def owned_by_nobody(path: Path) -> Path:
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    return path


def test_mode_and_group_are_set_before_there_is_content(tmp_path: Path) -> None:
    """Nobody can open the file in between; the umask has no say."""
    seen = []

    def make() -> bytearray:
        (temporary,) = tmp_path.iterdir()
        found = temporary.stat()
        seen.append((stat.S_IMODE(found.st_mode), found.st_gid, found.st_size))
        return bytearray(CONTENT)

    with umask(0):
        put(str(tmp_path / "sink"), make, 0o640, str(os.getegid()), lambda: True)
    assert seen == [(0o640, os.getegid(), 0)]
    assert (tmp_path / "sink").read_bytes() == CONTENT


def test_the_buffer_is_wiped(tmp_path: Path) -> None:
    """No second copy of the token stays in memory."""
    buffer = bytearray(CONTENT)
    put(str(tmp_path / "sink"), lambda: buffer, 0o600, None, lambda: True)
    assert buffer == bytes(len(CONTENT))


def test_what_is_no_longer_wanted_is_not_put_in_place(tmp_path: Path) -> None:
    """The former file stays, the new one is gone."""
    write(tmp_path / "sink")
    assert put(str(tmp_path / "sink"), lambda: bytearray(b"late"), 0o600, None, lambda: False) is None
    assert (tmp_path / "sink").read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["sink"]


def test_a_file_is_known_again(tmp_path: Path) -> None:
    """Until it is replaced or gone."""
    path = str(tmp_path / "sink")
    identity = put(path, lambda: bytearray(CONTENT), 0o600, None, lambda: True)
    assert identity is not None
    assert still_there(path, identity)
    Path(path).write_bytes(b"x")
    assert not still_there(path, identity)
    drop(path)
    assert not still_there(path, identity)


def test_a_link_of_our_own_is_replaced_as_the_file_and_followed_as_a_folder(tmp_path: Path) -> None:
    """Relative or absolute; what the file's link led to is left alone."""
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to("./real/../real")
    (tmp_path / "real" / "far").symlink_to(tmp_path / "real" / "made")
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "real" / "sink").symlink_to(tmp_path / "victim")
    write(tmp_path / "folder" / "sink")
    write(tmp_path / "folder" / "far" / "sink")
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "real" / "sink").is_symlink()
    assert (tmp_path / "real" / "made" / "sink").read_bytes() == CONTENT


@as_root
def test_a_link_of_someone_else_is_neither_replaced_nor_followed(tmp_path: Path) -> None:
    """Not in place of the file, not on the way to it, and not to remove something either."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "sink").write_text("precious")
    link, folder = tmp_path / "sink", tmp_path / "folder"
    link.symlink_to(tmp_path / "real" / "sink")
    folder.symlink_to(tmp_path / "real")
    owned_by_nobody(link)
    owned_by_nobody(folder)
    assert f"belongs to uid {NOBODY}" in refused(link)
    assert f"the link {folder} belongs to uid {NOBODY}" in refused(folder / "sink")
    with pytest.raises(Trouble):
        drop(str(folder / "sink"))
    drop(str(link))
    assert link.is_symlink()
    assert (tmp_path / "real" / "sink").read_text() == "precious"


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    """As for the kernel."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"):
        write(tmp_path / "a" / "sink")


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


@pytest.mark.parametrize(
    ("make", "says"),
    [(Path.mkdir, "there is a folder"), (os.mkfifo, "no plain file"), (a_socket, "no plain file")],
    ids=["folder", "fifo", "socket"],
)
def test_what_is_no_file_is_not_replaced(tmp_path: Path, make: Callable[[Path], None], says: str) -> None:
    """Nor removed."""
    path = tmp_path / "sink"
    make(path)
    assert says in refused(path)
    drop(str(path))
    assert os.path.lexists(path)


@as_root
def test_a_file_of_someone_else_is_not_replaced(tmp_path: Path) -> None:
    """Nor removed: he may have put it there to be told when it changes."""
    (tmp_path / "sink").write_text("theirs")
    owned_by_nobody(tmp_path / "sink")
    assert f"belongs to uid {NOBODY}" in refused(tmp_path / "sink")
    drop(str(tmp_path / "sink"))
    assert (tmp_path / "sink").read_text() == "theirs"


@as_root
def test_a_folder_of_someone_else_is_refused(tmp_path: Path) -> None:
    """Its owner could swap the file."""
    (tmp_path / "folder").mkdir()
    owned_by_nobody(tmp_path / "folder")
    assert f"the folder {tmp_path}/folder belongs to uid {NOBODY}" in refused(tmp_path / "folder" / "sink")


@as_root
@pytest.mark.parametrize("link", [False, True])
def test_a_folder_of_someone_else_higher_up_is_refused(tmp_path: Path, link: bool) -> None:
    """Its owner could rename what is below, whose owner counts for nothing; also where a link of ours leads there."""
    ours = tmp_path / "theirs" / "ours"
    ours.mkdir(parents=True)
    owned_by_nobody(ours.parent)
    (tmp_path / "link").symlink_to(ours)
    said = refused((tmp_path / "link" if link else ours) / "sink")
    assert f"the folder {tmp_path}/theirs belongs to uid {NOBODY}" in said
    assert "chown it to root, or choose another place" in said


def test_a_folder_higher_up_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    """They could rename what is below; a token that was put there before is removed all the same."""
    folder = tmp_path / "folder" / "ours"
    folder.mkdir(parents=True)
    write(folder / "sink")
    folder.parent.chmod(0o777)
    assert f"others can write to the folder {folder.parent} (mode 0777)" in refused(folder / "sink")
    drop(str(folder / "sink"))
    assert os.listdir(folder) == []


@as_root
def test_no_folder_is_made_below_one_that_is_not_ours(tmp_path: Path) -> None:
    """Not a single one of those that are missing."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    owned_by_nobody(theirs)
    with pytest.raises(Trouble, match="belongs to uid"):
        write(theirs / "a" / "b" / "sink")
    assert os.listdir(theirs) == []


@pytest.mark.parametrize("mode", [0o755, 0o775, 0o700])
def test_homes_as_they_are_go_on_working(tmp_path: Path, mode: int) -> None:
    """Readable by all, writable by the user's private group, closed; in a sticky folder as /tmp is."""
    home = tmp_path / "tmp" / "home"
    home.mkdir(parents=True)
    os.chown(home, -1, os.geteuid())
    home.chmod(mode)
    home.parent.chmod(0o1777)
    write(home / "made" / "sink")
    assert (home / "made" / "sink").read_bytes() == CONTENT
    assert stat.S_IMODE((home / "made").stat().st_mode) == 0o700


def shared(tmp_path: Path) -> Path:
    """A folder as /tmp, in which somebody holds the name of the sink's temporary file."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    (folder / ".sink.tmp").write_text("theirs")
    owned_by_nobody(folder / ".sink.tmp")
    return folder


@as_root
def test_a_temporary_file_of_someone_else_blocks_nothing(tmp_path: Path) -> None:
    """Another name is taken; his file stays and gets nothing."""
    folder = shared(tmp_path)
    write(folder / "sink")
    write(folder / "sink")
    assert sorted(os.listdir(folder)) == [".sink.tmp", "sink"]
    assert (folder / ".sink.tmp").read_text() == "theirs"


@as_root
def test_one_file_at_most_is_left_of_killed_writers(tmp_path: Path) -> None:
    """Under whatever name they wrote, the next one takes it away; files of a similar name are left alone."""
    folder = shared(tmp_path)

    def killed() -> bytearray:
        os._exit(9)

    for _ in range(3):
        child = os.fork()
        if child == 0:
            put(str(folder / "sink"), killed, 0o600, None, lambda: True)
        assert os.waitpid(child, 0)[1] == 9 << 8
        assert len([name for name in os.listdir(folder) if name != ".sink.tmp"]) == 1
    (folder / ".sink.notes.tmp").touch()
    write(folder / "sink")
    assert sorted(os.listdir(folder)) == [".sink.notes.tmp", ".sink.tmp", "sink"]
    drop(str(folder / "sink"))
    assert sorted(os.listdir(folder)) == [".sink.notes.tmp", ".sink.tmp"]


def test_a_long_name_has_room_for_its_temporary_file(tmp_path: Path) -> None:
    """Bytes count, not letters: 255 of them are a file's longest name."""
    name = "ä" * 127
    write(tmp_path / name)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("mode", [0o777, 0o722])
def test_a_folder_that_others_can_write_to_is_refused_unless_it_is_sticky(tmp_path: Path, mode: int) -> None:
    """As /tmp is; and the hint says what to do."""
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(mode)
    assert f"chmod go-w {folder}" in refused(folder / "sink")
    folder.chmod(mode | stat.S_ISVTX)
    write(folder / "sink")


@as_root
def test_a_folder_that_a_group_can_write_to_is_refused_unless_the_group_is_the_users_own(tmp_path: Path) -> None:
    """A private group has its user's number; with umask 002 every folder is of that kind."""
    folder = tmp_path / "folder"
    folder.mkdir()
    os.chown(folder, -1, NOBODY)
    folder.chmod(0o770)
    assert "others can write" in refused(folder / "sink")
    os.chown(folder, -1, os.geteuid())
    folder.chmod(0o770)
    write(folder / "sink")


def test_removing_takes_what_a_killed_writer_left(tmp_path: Path) -> None:
    """And is content where there is nothing, not even the folder."""
    write(tmp_path / "sink")
    (tmp_path / ".sink.tmp").write_text("half")
    drop(str(tmp_path / "sink"))
    assert os.listdir(tmp_path) == []
    drop(str(tmp_path / "none" / "sink"))
    (tmp_path / "file").write_text("")
    drop(str(tmp_path / "file" / "sink"))


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    """The kernel's own words."""
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        write(tmp_path / "file" / "sink")


def test_a_group_we_are_not_in() -> None:
    """The message says what to do; there was never content for the wrong group."""
    with unprivileged() as folder:
        with pytest.raises(Trouble, match="not a member of group 0"):
            write(folder / "sink", group="0")
        assert os.listdir(folder) == []
