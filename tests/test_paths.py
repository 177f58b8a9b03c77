"""Where things are, by environment and uid."""

from collections.abc import Mapping

import pytest

from d7agent.core.errors import ConfigError
from d7agent.core.paths import SYSTEM_SOCKET, Paths, client_sockets, system_paths, user_paths

HOME = {"HOME": "/home/ann"}
RUN = {**HOME, "XDG_RUNTIME_DIR": "/run/user/7"}


def user(env: Mapping[str, str], ours: bool = False) -> Paths:
    """The places of uid 7, whose runtime folder exists or does not."""
    return user_paths(env, 7, lambda path: ours and path == "/run/user/7")


def test_without_any_variable_the_defaults_of_the_xdg_specification_hold() -> None:
    """Config, profiles and state below the home folder; the socket below the state folder."""
    paths = user(HOME)
    assert paths.config_file == "/home/ann/.config/d7agent/config.toml"
    assert paths.profile_dirs == ("/home/ann/.config/d7agent/profiles",)
    assert paths.written_dir == "/home/ann/.config/d7agent/profiles"
    assert paths.state_file == "/home/ann/.local/state/d7agent/state.json"
    assert paths.socket == "/home/ann/.local/state/d7agent/run/agent.sock"
    assert not paths.system


def test_variables_are_followed() -> None:
    """Each XDG variable moves its own folder."""
    paths = user({**HOME, "XDG_CONFIG_HOME": "/c/", "XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/r"})
    assert (paths.config_dir, paths.state_dir, paths.socket) == ("/c/d7agent", "/s/d7agent", "/r/d7agent/agent.sock")


@pytest.mark.parametrize("value", ["", "relative", "./x", "~/x"])
def test_relative_values_are_ignored(value: str) -> None:
    """As the specification says: "consider the path invalid and ignore it"."""
    variables = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")
    assert user({**HOME, **dict.fromkeys(variables, value)}) == user(HOME)


def test_the_runtime_folder_is_found_without_its_variable_if_it_is_ours() -> None:
    """/run/user/UID, as under cron or su, but only where the predicate says so."""
    assert user(HOME, ours=True).socket == "/run/user/7/d7agent/agent.sock"
    assert user(HOME, ours=True).expand("%t") == "/run/user/7"


def test_the_socket_without_a_runtime_folder_does_not_depend_on_the_state_variable() -> None:
    """A service and a shell may differ in XDG_STATE_HOME; they must meet all the same."""
    env = {**HOME, "XDG_STATE_HOME": "/elsewhere"}
    assert user(env).socket in client_sockets(None, HOME, 7)


@pytest.mark.parametrize("env", [{}, {"HOME": ""}, {"HOME": "relative"}])
def test_a_missing_home_is_an_error_that_says_so(env: dict[str, str]) -> None:
    """Nothing is put into the current folder by accident."""
    with pytest.raises(ConfigError, match="HOME is not set"):
        user(env)


def test_the_system_flavour() -> None:
    """The admin's profiles are read before those that login wrote."""
    paths = system_paths({})
    assert paths.config_file == "/etc/d7agent/config.toml"
    assert paths.profile_dirs == ("/etc/d7agent/profiles", "/var/lib/d7agent/profiles")
    assert paths.written_dir == "/var/lib/d7agent/profiles"
    assert paths.state_file == "/var/lib/d7agent/state.json"
    assert paths.socket == "/run/d7agent/agent.sock"
    assert paths.system


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("/a/b", "/a/b"),
        ("%t/d7agent/x.env", "/run/user/7/d7agent/x.env"),
        ("%h/x", "/home/ann/x"),
        ("~/x", "/home/ann/x"),
        ("~", "/home/ann"),
        ("%S/x", "/home/ann/.local/state/x"),
        ("%d", "/run/credentials/x"),
        ("/a/100%%", "/a/100%"),
        ("%%h", "%h"),
        ("/a/~/b", "/a/~/b"),
    ],
)
def test_specifiers(text: str, expanded: str) -> None:
    """systemd's letters, and a shell's tilde."""
    assert user({**RUN, "CREDENTIALS_DIRECTORY": "/run/credentials/x"}).expand(text) == expanded


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("%x/a", "must not hold %x"),
        ("/a%", "must not hold %"),
        ("~bob/a", "~USER"),
        ("%t/a", "no runtime folder"),
        ("%d", "no cred"),
    ],
)
def test_specifiers_that_stand_for_nothing(text: str, problem: str) -> None:
    """Unknown letters, other users' homes, and folders that are not there."""
    with pytest.raises(ValueError, match=problem):
        user(HOME).expand(text)


def test_the_system_flavour_has_no_home() -> None:
    """`~` of a service user is nobody's home."""
    with pytest.raises(ValueError, match="no home folder"):
        system_paths({}).expand("~/x")
    assert system_paths({}).expand("%t/d7agent/x") == "/run/d7agent/x"


@pytest.mark.parametrize(
    ("explicit", "env", "candidates"),
    [
        ("/x.sock", {**RUN, "D7AGENT_SOCK": "/y.sock"}, ["/x.sock"]),
        (None, {**RUN, "D7AGENT_SOCK": "/y.sock"}, ["/y.sock", "/run/user/7/d7agent/agent.sock", SYSTEM_SOCKET]),
        (None, RUN, ["/run/user/7/d7agent/agent.sock", SYSTEM_SOCKET]),
        (
            None,
            HOME,
            ["/run/user/7/d7agent/agent.sock", "/home/ann/.local/state/d7agent/run/agent.sock", SYSTEM_SOCKET],
        ),
        (None, {}, ["/run/user/7/d7agent/agent.sock", SYSTEM_SOCKET]),
        ("", {**RUN, "D7AGENT_SOCK": ""}, ["/run/user/7/d7agent/agent.sock", SYSTEM_SOCKET]),
        (None, {**RUN, "D7AGENT_SOCK": SYSTEM_SOCKET}, [SYSTEM_SOCKET, "/run/user/7/d7agent/agent.sock"]),
        (None, {**HOME, "XDG_RUNTIME_DIR": "/" + "r" * 100}, [SYSTEM_SOCKET]),
    ],
)
def test_where_clients_look(explicit: str | None, env: dict[str, str], candidates: list[str]) -> None:
    """--socket alone; else $D7AGENT_SOCK, the user's, the system's; each once, and none that cannot exist."""
    assert client_sockets(explicit, env, 7) == candidates


@pytest.mark.parametrize("path", ["/" + "x" * 107, "/" + "é" * 54, "/a\0b"])
def test_a_path_that_no_socket_can_have_is_an_error_with_a_hint(path: str) -> None:
    """107 bytes, not characters, and only where the user named the path."""
    with pytest.raises(ConfigError, match=r"--socket|no path"):
        client_sockets(path, RUN, 7)
    with pytest.raises(ConfigError):
        client_sockets(None, {**RUN, "D7AGENT_SOCK": path}, 7)


def test_the_longest_path_is_allowed() -> None:
    """107 bytes fit (unix(7))."""
    assert client_sockets("/" + "x" * 106, RUN, 7) == ["/" + "x" * 106]
