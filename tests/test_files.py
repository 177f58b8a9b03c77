"""Configuration and state files, as the operating system really lets them fail."""

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import Struct

from d7agent.agent import files
from d7agent.agent.reading import MAX_FILE, read_text
from d7agent.core.config import Config, Profile
from d7agent.core.errors import ConfigError
from d7agent.core.paths import Paths
from tests.support.osfaults import paths_in, unprivileged
from tests.support.staging import READ_ONLY, mounted


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


def test_without_files_the_configuration_is_the_fallback(tmp_path: Path) -> None:
    """No folder, no file: one profile in the keyring."""
    assert (
        files.load(paths_in(tmp_path)) == files.salvage(paths_in(tmp_path)) == Config(profiles={"default": Profile()})
    )


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
    assert files.load(paths) == files.salvage(paths)


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


STRANGER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: other users' files; run the tests as root")


def refused(paths: Paths, *left: str) -> list[str]:
    """The problems with which the configuration is refused; nothing stands in for a profile that is: these are left."""
    with pytest.raises(ConfigError) as caught:
        files.load(paths)
    assert tuple(files.salvage(paths).profiles) == left
    return str(caught.value).splitlines()


@as_root
@pytest.mark.parametrize("which", ["config.toml", "profiles/x.toml"])
@pytest.mark.parametrize("link", [False, True])
def test_a_file_of_someone_else_is_refused(paths: Paths, which: str, link: bool) -> None:
    """It names hooks and programs that would run as us, be it linked from elsewhere; root's own is taken."""
    path = Path(paths.config_dir, which)
    real = Path(paths.config_dir).parent / "elsewhere" if link else path
    real.write_text("")
    if link:
        path.symlink_to(real)
    os.chown(real, STRANGER, STRANGER)
    (said,) = refused(paths, *(["default"] if which == "config.toml" else []))
    assert f"{path}: refused: the file {path} belongs to uid {STRANGER}, who could change it" in said
    assert said.endswith(": chown it to root, or choose another place")
    os.chown(real, 0, 0)
    files.load(paths)


@pytest.mark.parametrize("mode", [0o666, 0o602])
def test_a_file_that_others_can_write_is_refused(paths: Paths, mode: int) -> None:
    """With what to do about it; read it they may."""
    path = Path(paths.config_file)
    path.write_text("")
    path.chmod(mode)
    assert refused(paths, "default") == [
        f"{path}: refused: others can write to the file {path} (mode {mode:04o}): chmod go-w {path}"
    ]
    path.chmod(0o644)
    files.load(paths)


def test_a_folder_that_others_can_write_is_refused(paths: Paths) -> None:
    """One line for all the profiles in it; nothing is written there either, and nothing lost when it is mended."""
    put(paths, "a", "")
    put(paths, "b", "")
    folder = Path(paths.written_dir)
    folder.chmod(0o777)
    said = f"refused: others can write to the folder {folder} (mode 0777): chmod go-w {folder} (or +t)"
    assert refused(paths)[0] == f"{folder}: {said}"
    with pytest.raises(ConfigError) as caught:
        files.write_profile(paths, "c", {"store": "environment"})
    assert str(caught.value) == f"{folder}/c.toml: {said}"
    folder.chmod(0o755)
    assert files.load(paths).profiles.keys() == {"a", "b"}


@as_root
def test_a_folder_of_someone_else_is_refused(tmp_path: Path) -> None:
    """However high up it is."""
    paths = paths_in(tmp_path / "theirs" / "ours")
    Path(paths.written_dir).mkdir(parents=True)
    put(paths, "a", "")
    os.chown(tmp_path / "theirs", STRANGER, STRANGER)
    assert f"the folder {tmp_path}/theirs belongs to uid {STRANGER}" in refused(paths)[0]


LOAD = """
from d7agent.agent import files
from tests.support.osfaults import paths_in
print(*files.load(paths_in({folder!r})).profiles)
"""


def test_a_read_only_mount_of_any_mode(paths: Paths, tmp_path: Path) -> None:
    """Kubernetes mounts configuration with mode 0777, and read-only: nobody can write to it there."""
    put(paths, "a", "").chmod(0o666)
    for folder in (paths.written_dir, paths.config_dir):
        Path(folder).chmod(0o777)
    assert refused(paths)
    program = [sys.executable, "-c", LOAD.format(folder=str(tmp_path))]
    done = subprocess.run(
        [*mounted(READ_ONLY, Path(paths.config_dir)), *program], capture_output=True, text=True, check=False, timeout=20
    )
    assert (done.stdout, done.stderr) == ("a\n", "")


@as_root
def test_the_hosts_agent_trusts_root_and_itself(paths: Paths) -> None:
    """Root's config.toml and the profiles that the agent's own user wrote; as `doctor` reads them, who is root."""
    Path(paths.config_file).write_text("")
    os.chown(put(paths, "a", ""), STRANGER, STRANGER)
    os.chown(paths.written_dir, STRANGER, STRANGER)
    assert files.load(paths, STRANGER).profiles.keys() == {"a"}
    with pytest.raises(ConfigError, match="belongs to uid"):
        files.load(paths, STRANGER - 1)


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


def test_good_profiles_are_served_beside_a_faulty_file(tmp_path: Path) -> None:
    """At a start with a mistake in config.toml or in one profile, the other profiles are there all the same."""
    paths = paths_in(tmp_path)
    folder = Path(paths.written_dir)
    folder.mkdir(parents=True)
    (folder / "good.toml").write_text('store = "environment"\n')
    (folder / "bad.toml").write_text("stoer = 1\n")
    Path(paths.config_file).write_text("[hoooks]\n")
    assert files.salvage(paths).profiles.keys() == {"good"}
    assert files.salvage(paths).profiles["good"].store == "environment"


@pytest.mark.parametrize("text", ["stoer = 1\n", 'base_url = "http://127', "\0"])
def test_nothing_stands_in_for_a_faulty_profile(paths: Paths, text: str) -> None:
    """At a start with no good profile there is none: the fallback's keyring and base URL are not what was meant."""
    put(paths, "default", text)
    assert files.salvage(paths).profiles == {}
    Path(paths.config_file).write_text('[hooks]\non_rejected = ["/bin/true"]\n')
    salvaged = files.salvage(paths)
    assert (salvaged.profiles, salvaged.hooks.on_rejected) == ({}, ("/bin/true",))


def test_what_killed_writers_have_left_is_taken_away(paths: Paths) -> None:
    """At an agent's start: beside profiles and budgets of any name, and nothing that is not of that shape."""
    ours = (".made.toml.tmp", ".made.toml.0123456789abcdef.tmp")
    others = ("made.toml", ".made.toml.swp", ".notes.tmp", "made.toml.tmp", ".made.toml.abc.tmp")
    for name in (*ours, *others):
        Path(paths.written_dir, name).touch()
    Path(paths.state_dir).mkdir(parents=True)
    for name in ("one.state", ".one.state.tmp"):
        (Path(paths.state_dir) / name).touch()
    files.tidy(paths)
    assert sorted(os.listdir(paths.written_dir)) == sorted(others)
    assert os.listdir(paths.state_dir) == ["one.state"]
