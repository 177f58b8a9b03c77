"""Configuration, profile and state files, as the operating system really lets them fail."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import Struct

from d7agent.agent import files
from d7agent.agent.atomic import make_folder, remove
from d7agent.agent.profiles import MARKER
from d7agent.agent.reading import MAX_FILE, read_text
from d7agent.core.config import Config, Profile
from d7agent.core.errors import ConfigError
from d7agent.core.paths import Paths
from tests.support.osfaults import file_size_limit, on_full_disk, paths_in, umask, unprivileged


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A user's places, the profiles' folder made."""
    made = paths_in(tmp_path)
    Path(made.written_dir).mkdir(parents=True)
    return made


def put(paths: Paths, name: str, text: str) -> Path:
    """Write a profile file as a person would."""
    path = Path(paths.written_dir, f"{name}.toml")
    path.write_text(text)
    return path


def mode_of(path: Path | str) -> int:
    """The permission bits."""
    return stat.S_IMODE(os.lstat(path).st_mode)


def leftovers(folder: Path | str) -> list[str]:
    """Temporary files in a folder."""
    return [name for name in os.listdir(folder) if name.endswith(".tmp")]


# Reading


def test_without_files_the_configuration_is_the_fallback(tmp_path: Path) -> None:
    """No folder, no file: one profile in the keyring."""
    assert files.load(paths_in(tmp_path)) == files.fallback() == Config(profiles={"default": Profile()})


def test_the_files_are_read_whole(paths: Paths) -> None:
    """The agent's file and every profile, in order of names; a byte order mark does no harm."""
    Path(paths.config_file).write_text('default_profile = "b"')
    put(paths, "b", "max_age = 60")
    put(paths, "a", "\ufeffmax_age = 90")
    config = files.load(paths)
    assert [(name, profile.max_age) for name, profile in config.profiles.items()] == [("a", 90.0), ("b", 60.0)]
    assert config.default_profile == "b"
    assert config.profiles["a"].path == f"{paths.written_dir}/a.toml"


def test_what_editors_leave_is_not_read(paths: Paths) -> None:
    """Backups, swap and lock files, and our own temporary files."""
    for name in ("a.toml~", ".a.toml.swp", ".#a.toml", ".a.toml.tmp", ".hidden.toml", "a.toml.bak", "README"):
        Path(paths.written_dir, name).write_text("rubbish")
    assert files.load(paths) == files.fallback()


def fifo(path: str) -> None:
    """A pipe that nobody writes into."""
    os.mkfifo(path)


def loop(path: str) -> None:
    """A link to itself."""
    os.symlink(path, path)


BAD_FILES: list[tuple[Callable[[str], object], str]] = [
    (fifo, ": is a device or pipe, not a file"),
    (os.mkdir, ": is a folder, not a file"),
    (loop, ": cannot be read: Too many levels of symbolic links"),
    (lambda path: os.symlink("/nowhere/at/all", path), ": is a link to a file that does not exist"),
    (lambda path: os.symlink("/dev/zero", path), ": is a device or pipe, not a file"),
    (
        lambda path: os.symlink("/proc/self/status", path),
        ": keeps changing while it is read: try again when it is written",
    ),
    (lambda path: Path(path).write_bytes(b"# \n# \xff\n"), ":2: not UTF-8 text"),
    (lambda path: Path(path).write_bytes(b"#" * (MAX_FILE + 1)), f": has more than {MAX_FILE} bytes"),
]


@pytest.mark.parametrize(("make", "problem"), BAD_FILES)
@pytest.mark.parametrize("which", ["config", "profile"])
def test_what_is_no_readable_file_is_named_and_never_waited_for(
    paths: Paths, make: Callable[[str], object], problem: str, which: str
) -> None:
    """Whatever is put in place of a file."""
    path = paths.config_file if which == "config" else f"{paths.written_dir}/x.toml"
    make(path)
    with pytest.raises(ConfigError) as caught:
        files.load(paths)
    assert str(caught.value) == f"{path}{problem}"


def test_an_unreadable_file_is_named_beside_the_problems_of_the_others() -> None:
    """One error, all the lines; that the default profile cannot be read does not make it one that does not exist."""
    with unprivileged() as folder:
        paths = paths_in(folder)
        Path(paths.written_dir).mkdir(parents=True)
        Path(paths.config_file).write_text('default_profile = "a"')
        put(paths, "a", "").chmod(0)
        put(paths, "b", "x = 1")
        with pytest.raises(ConfigError) as caught:
            files.load(paths)
    assert [line.partition("; ")[0] for line in str(caught.value).split("\n")] == [
        f"{paths.written_dir}/a.toml: cannot be read: Permission denied",
        f"{paths.written_dir}/b.toml:1: x: unknown key",
    ]


def test_an_unreadable_folder_is_named() -> None:
    """Not to be able to look is not the same as to find nothing."""
    with unprivileged() as folder:
        paths = paths_in(folder)
        Path(paths.written_dir).mkdir(parents=True, mode=0)
        with pytest.raises(ConfigError, match="profiles: cannot be read: Permission denied"):
            files.load(paths)


def test_a_file_in_place_of_the_profiles_folder_is_named(tmp_path: Path) -> None:
    """Somebody wrote `profiles` as a file."""
    paths = paths_in(tmp_path)
    Path(paths.config_dir).mkdir()
    Path(paths.written_dir).touch()
    with pytest.raises(ConfigError, match="profiles: cannot be read: Not a directory"):
        files.load(paths)


def test_a_name_that_is_not_utf8_is_shown_all_the_same(paths: Paths) -> None:
    """The message can be encoded."""
    Path(os.fsdecode(os.fsencode(paths.written_dir) + b"/\xff.toml")).touch()
    with pytest.raises(ConfigError, match=r"\\xff\.toml: the file's name"):
        files.load(paths)


def test_a_file_replaced_while_it_is_read_is_read_again(paths: Paths) -> None:
    """Every read gives one version whole while a writer replaces the file as fast as it can."""
    path = Path(paths.config_file)
    versions = [letter * 200_000 for letter in "ab"]
    files.write_atomic(str(path), versions[0].encode(), 0o600)
    enough = threading.Event()

    def replace() -> None:
        while not enough.is_set():
            for version in versions:
                files.write_atomic(str(path), version.encode(), 0o600)

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        read = []
        for _ in range(100):
            try:
                read.append(read_text(str(path)))
            except ConfigError as error:
                assert "keeps changing" in str(error)  # noqa: PT017  the other honest answer
    finally:
        enough.set()
        writer.join()
    assert read
    assert set(read) <= set(versions)


def test_whether_a_folder_is_ours(tmp_path: Path) -> None:
    """Ours alone: not a link, not one that others can enter, not somebody else's, not missing."""
    own = tmp_path / "own"
    own.mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(own)
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    assert files.is_ours(str(own))
    assert not any(files.is_ours(str(path)) for path in (link, open_to_all, tmp_path / "none", "/proc/1"))


# Writing


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
            time.sleep(after)  # the moment of the kill, not a wait for anything
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


# Profiles


def test_login_makes_a_profile_file_and_logout_removes_it(tmp_path: Path) -> None:
    """0600, marked, and nothing but what was given."""
    paths = paths_in(tmp_path)
    path = files.write_profile(paths, "work", {"base_url": "https://x.test", "store": "keyring"})
    assert path == f"{paths.written_dir}/work.toml"
    first, *rest = Path(path).read_text().splitlines()
    assert first.startswith(MARKER)
    assert rest == ['base_url = "https://x.test"', 'store = "keyring"']
    assert (mode_of(path), mode_of(paths.written_dir)) == (0o600, 0o700)
    assert files.load(paths).profiles == {"work": Profile(name="work", base_url="https://x.test", path=path)}
    assert files.remove_profile(paths, "work") == []
    assert not os.path.exists(path)
    assert files.remove_profile(paths, "work") == []


def test_an_edit_of_a_persons_file_changes_the_keys_alone(paths: Paths) -> None:
    """Comments, order, mode stay; logout leaves the file and says so."""
    path = put(
        paths, "a", '# mine\nmax_age = "1h" # short\nstore = "environment" # for now\n\n[[sinks]]\npath = "%t/a"\n'
    )
    path.chmod(0o640)
    files.write_profile(paths, "a", {"store": "keyring", "client_id": 'a"b'})
    assert path.read_text() == (
        '# mine\nmax_age = "1h" # short\nstore = "keyring" # for now\nclient_id = "a\\"b"\n\n[[sinks]]\npath = "%t/a"\n'
    )
    assert mode_of(path) == 0o640
    assert files.remove_profile(paths, "a") == [str(path)]
    assert path.exists()


def test_a_file_that_says_so_already_is_not_touched(paths: Paths) -> None:
    """No new inode, no event for the watch, and no need for the right to write."""
    path = put(paths, "a", 'store = "keyring"')
    before = path.stat()
    files.write_profile(paths, "a", {"store": "keyring"})
    assert path.stat() == before


@pytest.mark.parametrize(
    ("text", "changes", "problem"),
    [
        ("", {"store": "vault"}, ":1: store: must be"),
        ("\n", {"base_url": "http://evil.test"}, ":2: base_url: must begin with https"),
        ("colour = 1", {"store": "keyring"}, ":1: colour: unknown key"),
        ("half written [", {"store": "keyring"}, ": not valid TOML: "),
        ("store.x = 1", {"store": "keyring"}, ": left as it is: cannot be edited safely"),
    ],
)
def test_an_edit_that_would_not_load_is_refused(paths: Paths, text: str, changes: dict[str, str], problem: str) -> None:
    """And the file stays as it is."""
    path = put(paths, "a", text)
    with pytest.raises(ConfigError) as caught:
        files.write_profile(paths, "a", changes)
    assert str(caught.value).startswith(f"{path}{problem}")
    assert path.read_text() == text


@pytest.mark.parametrize("name", ["../x", "A", "", "a/b"])
def test_a_name_that_is_none_never_becomes_a_path(paths: Paths, name: str) -> None:
    """Nothing is written anywhere."""
    with pytest.raises(ConfigError, match="must be a profile name"):
        files.write_profile(paths, name, {})
    with pytest.raises(ConfigError, match="must be a profile name"):
        files.remove_profile(paths, name)


def test_a_link_of_our_own_is_followed_and_kept(paths: Paths, tmp_path: Path) -> None:
    """People keep such files in a repository; what a link leads to was made by a person, marked or not."""
    real = tmp_path / "dotfiles" / "a.toml"
    real.parent.mkdir()
    real.write_text(f"{MARKER}\n")
    link = Path(paths.written_dir, "a.toml")
    link.symlink_to("../../dotfiles/a.toml")
    files.write_profile(paths, "a", {"client_id": "x"})
    assert link.is_symlink()
    assert real.read_text() == f'{MARKER}\nclient_id = "x"\n'
    assert files.remove_profile(paths, "a") == [str(link)]


def test_an_admins_file_stands_above_what_login_writes(tmp_path: Path) -> None:
    """An edit that would have no effect is an error; one that says the same is none; logout leaves the file."""
    own = paths_in(tmp_path)
    admin = tmp_path / "etc"
    admin.mkdir()
    (admin / "a.toml").write_text('store = "environment"')
    paths = Paths(
        own.config_dir, (str(admin), own.written_dir), own.written_dir, own.state_dir, own.socket, own.folders
    )
    assert files.write_profile(paths, "a", {"store": "environment"}) == f"{admin}/a.toml"
    with pytest.raises(ConfigError, match=r"a\.toml: is the administrator's .* store$"):
        files.write_profile(paths, "a", {"store": "keyring"})
    assert files.remove_profile(paths, "a") == [f"{admin}/a.toml"]
    files.write_profile(paths, "b", {"store": "keyring"})
    assert list(files.load(paths).profiles) == ["a", "b"]


def test_a_folder_that_cannot_be_written_is_said_to_be_so() -> None:
    """On login and on logout."""
    with unprivileged() as folder:
        paths = paths_in(folder)
        path = files.write_profile(paths, "a", {"store": "keyring"})
        Path(paths.written_dir).chmod(0o500)
        with pytest.raises(ConfigError, match=r"a\.toml: cannot be written: Permission denied"):
            files.write_profile(paths, "a", {"store": "environment"})
        with pytest.raises(ConfigError, match=r"b\.toml: cannot be written: Permission denied"):
            files.write_profile(paths, "b", {"store": "environment"})
        with pytest.raises(ConfigError, match=r"a\.toml: cannot be removed: Permission denied"):
            files.remove_profile(paths, "a")
        assert files.read_state(path, int)[1].startswith(path)


# State


class Kept(Struct, frozen=True):
    """A state as the agent has one."""

    v: int
    profiles: dict[str, float]


def test_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    """0600, in a folder of our own."""
    path = str(tmp_path / "state" / "state.json")
    assert files.read_state(path, Kept) == (None, "")
    files.write_state(path, Kept(1, {"a": 1.5}))
    assert files.read_state(path, Kept) == (Kept(1, {"a": 1.5}), "")
    assert (mode_of(path), mode_of(tmp_path / "state")) == (0o600, 0o700)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00" * 50, b"{}", b'{"v":1,"profiles":{"a":"x"}}', b'{"v":1', b"[" * 100_000, b'{"v":"\xff"}', b"null"],
)
def test_rubbish_is_no_state_and_is_named(tmp_path: Path, data: bytes) -> None:
    """The agent begins anew, and says why."""
    path = tmp_path / "state.json"
    path.write_bytes(data)
    state, problem = files.read_state(str(path), Kept)
    assert state is None
    assert problem.startswith(f"{path}: not a state file of this version")


def test_a_state_that_is_too_large_is_neither_read_nor_written(tmp_path: Path) -> None:
    """What could not be read again is not written."""
    path = tmp_path / "state.json"
    path.write_bytes(b" " * (files.MAX_STATE + 1))
    assert files.read_state(str(path), Kept) == (None, f"{path}: has more than {files.MAX_STATE} bytes")
    with pytest.raises(OSError, match="too large to be read again"):
        files.write_state(str(path), "x" * files.MAX_STATE)
