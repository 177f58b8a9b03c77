"""Profile files: written by `login`, removed by `logout`, and a person's own left in peace."""

import os
import stat
from pathlib import Path

import pytest

from d7agent.agent import files
from d7agent.agent.profiles import MARKER
from d7agent.core.config import Profile
from d7agent.core.errors import ConfigError
from d7agent.core.paths import Paths
from tests.support.osfaults import paths_in, unprivileged


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
