"""The agent's listening socket: ours alone, its mode right whatever the umask, one agent at a time."""

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from d7agent.agent.sockets import AgentRunning, BoundSocket, bind_socket
from d7agent.core.errors import ConfigError
from tests.support.osfaults import NOBODY, umask, unprivileged


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the socket goes; its folder is still missing."""
    return tmp_path / "run" / "agent.sock"


def bind(path: Path) -> BoundSocket:
    """As a user's agent does."""
    return bind_socket(str(path), 0o600, 0o700)


def answers(path: Path) -> bool:
    """Whether a connect succeeds."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return False
        return True


def mode_of(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.lstat().st_mode)


def refusal(path: Path) -> str:
    """Why this path is refused; it is as it was afterwards."""
    with pytest.raises(ConfigError) as caught:
        bind(path)
    return str(caught.value)


@pytest.mark.parametrize(("mode", "folder_mode"), [(0o600, 0o700), (0o666, 0o755)])
@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777])
def test_socket_and_folder_have_exactly_their_modes(path: Path, mode: int, folder_mode: int, mask: int) -> None:
    """Both flavours, under any umask, which is as before afterwards."""
    with umask(mask):
        bound = bind_socket(str(path), mode, folder_mode)
        assert os.umask(mask) == mask
    assert (mode_of(path), mode_of(path.parent)) == (mode, folder_mode)
    bound.close()
    bind(path).close()


def test_it_can_be_served_and_is_gone_at_the_end(path: Path) -> None:
    """Bound first, listening when the agent is ready; close twice does no harm."""
    bound = bind(path)
    assert not answers(path)
    bound.sock.listen()
    assert answers(path)
    assert not bound.sock.get_inheritable()
    bound.close()
    bound.close()
    assert [entry.name for entry in path.parent.iterdir()] == ["agent.lock"]
    bind(path).close()


def test_a_second_agent_is_told_of_the_first(path: Path) -> None:
    """Whether the first listens yet or not; and the first does not notice."""
    bound = bind(path)
    for _ in range(2):
        with pytest.raises(AgentRunning, match=f"an agent already runs at {path}"):
            bind(path)
        bound.sock.listen()
    assert answers(path)
    bound.close()


def test_something_that_answers_without_the_lock_is_left_alone(path: Path) -> None:
    """A socket that systemd holds for us, or another program."""
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(AgentRunning):
            bind(path)
        assert answers(path)


def test_a_full_backlog_counts_as_an_answer(path: Path) -> None:
    """An agent that is too busy to accept is no dead one."""
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as waiting:
        other.bind(str(path))
        other.listen(0)
        waiting.connect(str(path))
        with pytest.raises(AgentRunning):
            bind(path)


AGENT = """
import signal, sys
from d7agent.agent.sockets import bind_socket
bound = bind_socket(sys.argv[1], 0o600, 0o700)
bound.sock.listen()
print(flush=True)
signal.pause()
"""


def test_what_a_killed_agent_left_is_no_hindrance(path: Path) -> None:
    """The kernel lets its lock go; its socket is replaced."""
    with subprocess.Popen([sys.executable, "-c", AGENT, str(path)], stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        agent.stdout.readline()
        with pytest.raises(AgentRunning):
            bind(path)
        agent.send_signal(signal.SIGKILL)
    assert path.exists()
    bound = bind(path)
    bound.sock.listen()
    assert answers(path)
    bound.close()


RACER = """
import sys
from d7agent.agent.sockets import AgentRunning, bind_socket
sys.stdin.readline()
try:
    bound = bind_socket(sys.argv[1], 0o600, 0o700)
    print("bound", flush=True)
except AgentRunning:
    print("refused", flush=True)
sys.stdin.readline()
"""


def test_of_several_at_once_exactly_one_wins(path: Path) -> None:
    """Also where a dead agent's socket has to be removed first."""
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    argv = [sys.executable, "-c", RACER, str(path)]
    racers = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    said = [racer.stdout.readline() for racer in racers if racer.stdout]
    for racer in racers:
        racer.communicate("\n")
    assert sorted(said) == ["bound\n", "refused\n", "refused\n", "refused\n"]


def test_a_socket_that_replaced_ours_is_not_unlinked(path: Path) -> None:
    """It is somebody's; ours is gone already."""
    bound = bind(path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        bound.close()
        assert answers(path)


def test_a_socket_that_was_unlinked_can_be_closed(path: Path) -> None:
    """Nothing is left to unlink."""
    bound = bind(path)
    path.unlink()
    bound.close()
    assert not path.exists()


def test_a_folder_or_file_in_its_place_is_refused_and_kept(path: Path) -> None:
    """With what to do about it."""
    path.mkdir(parents=True, mode=0o700)
    path.parent.chmod(0o700)
    assert refusal(path) == f"{path}: is a folder: remove it or choose another path with --socket"
    path.rmdir()
    path.write_text("precious")
    assert refusal(path) == f"{path}: is not a socket: remove it or choose another path with --socket"
    assert path.read_text() == "precious"
    path.unlink()
    path.symlink_to("/nowhere")
    assert refusal(path) == f"{path}: is not a socket: remove it or choose another path with --socket"


def test_another_kind_of_socket_is_refused_and_kept(path: Path) -> None:
    """A datagram socket, such as /dev/log."""
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        assert refusal(path) == f"{path}: the socket cannot be made: Protocol wrong type for socket"
    assert path.exists()


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o1777])
def test_a_folder_that_others_can_write_is_refused(path: Path, mode: int) -> None:
    """They could put a socket of theirs in place of ours."""
    path.parent.mkdir()
    path.parent.chmod(mode)
    assert refusal(path) == f"{path.parent}: others can write it: chmod go-w {path.parent}"
    assert list(path.parent.iterdir()) == []


def test_a_folder_of_somebody_else_is_refused(path: Path) -> None:
    """Even where we could write it, as root can."""
    if os.geteuid() == 0:
        path.parent.mkdir(mode=0o755)
        os.chown(path.parent, NOBODY, -1)
        assert refusal(path) == f"{path.parent}: belongs to uid {NOBODY}, not to us: use a folder of your own"
    else:
        assert refusal(Path("/agent.sock")) == "/: belongs to uid 0, not to us: use a folder of your own"


def test_a_socket_of_somebody_else_is_refused() -> None:
    """In a folder of ours: they were let in once."""
    if os.geteuid() != 0:
        pytest.skip("somebody else's socket in our own folder takes root to make: run the tests as root")
    with unprivileged() as folder:
        path = folder / "agent.sock"
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
        os.seteuid(0)
        os.chown(path, 0, 0)
        os.seteuid(NOBODY)
        assert refusal(path) == f"{path}: belongs to uid 0, not to us: remove it or choose another path"


def test_a_path_that_is_too_long_is_refused_with_a_hint(tmp_path: Path) -> None:
    """Before anything is made."""
    path = tmp_path / ("x" * 100) / "agent.sock"
    assert refusal(path).endswith("choose a shorter path with --socket or D7AGENT_SOCK")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error_with_its_reason() -> None:
    """A file in the way, or no permission."""
    with unprivileged() as folder:
        path = folder / "file" / "agent.sock"
        path.parent.touch()
        assert refusal(path) == f"{path}: the socket cannot be made: Not a directory"
        (folder / "ro").mkdir(mode=0o500)
        assert "Permission denied" in refusal(folder / "ro" / "sub" / "agent.sock")


def test_a_planted_lock_file_is_not_followed(path: Path, tmp_path: Path) -> None:
    """A link there leads nowhere."""
    path.parent.mkdir(mode=0o700)
    (path.parent / "agent.lock").symlink_to(tmp_path / "made")
    assert "Too many levels of symbolic links" in refusal(path)
    assert not (tmp_path / "made").exists()


def test_a_relative_path_is_taken_from_here(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And stays the same wherever the agent goes later."""
    monkeypatch.chdir(path.parent.parent)
    bound = bind_socket("run/agent.sock", 0o600, 0o700)
    assert bound.path == str(path)
    monkeypatch.chdir("/")
    bound.close()
    assert not path.exists()
