"""The unit files as they ship: right for systemd, hardened, in the wheel, and with the traps of their kind avoided."""

import configparser
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from d7agent.cli import units
from d7agent.cli.launcher import launcher, quoted
from d7agent.cli.output import Failure
from tests.support.sources import ROOT
from tests.test_packaging import wheel  # noqa: F401  a fixture

FOLDER = ROOT / "systemd"
MOST_EXPOSED = {  # of 10, by systemd-analyze 252; a user's manager offers less
    ("user", units.SERVICE): 6.4,
    ("system", units.SERVICE): 1.9,
    ("system", units.METRICS): 1.0,
}
FLAVOURS = ("user", "system")


def analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    if shutil.which("systemd-analyze") is None:
        pytest.skip("NOT TESTED: the units; install systemd")
    env = {"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": "/run"}
    argv = ["systemd-analyze", *arguments]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=30)


def settled(folder: Path, flavour: str) -> list[str]:
    """The units as `service install` would write them, for a command that exists; their paths."""
    place = units.Place(system=flavour == "system", units=str(folder))
    names = [name for name in place.files(252) if name.endswith((".service", ".socket", ".timer"))]
    units.write({f"{folder}/{name}": units.rendered(place, name, "/bin/true") for name in names})
    return [f"{folder}/{name}" for name in names]


def options(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text("utf-8"))
    return parser


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_systemd_finds_no_fault(flavour: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` knows every key and value and says nothing."""
    flags = ["--user"] if flavour == "user" else []
    done = analyze("verify", *flags, "--man=no", "--recursive-errors=no", *settled(tmp_path, flavour))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_fault_would_be_found(tmp_path: Path) -> None:
    """The same check fails for a key that systemd does not know."""
    path = Path(settled(tmp_path, "system")[1])
    path.write_text(path.read_text() + "\n[Service]\nProtectEverything=yes\n")
    assert analyze("verify", "--man=no", "--recursive-errors=no", str(path)).returncode != 0


@pytest.mark.parametrize(("flavour", "name"), MOST_EXPOSED)
def test_hardening_does_not_slip(flavour: str, name: str, tmp_path: Path) -> None:
    """The exposure by `systemd-analyze security` stays below what was reached."""
    settled(tmp_path, flavour)
    threshold = f"--threshold={MOST_EXPOSED[flavour, name] * 10:.0f}"
    done = analyze("security", "--offline=true", threshold, f"{tmp_path}/{name}")
    assert done.returncode == 0, done.stdout.splitlines()[-1]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_only_the_socket_is_to_be_enabled(flavour: str) -> None:
    """[Install] stands in the socket unit alone."""
    assert options(FOLDER / flavour / "d7agent.socket").has_section("Install")
    assert not options(FOLDER / flavour / "d7agent.service").has_section("Install")


def test_modes_of_the_sockets() -> None:
    """The user's socket is his own; the host's is open to all, since peer credentials decide there."""
    user, system = (options(FOLDER / flavour / "d7agent.socket")["Socket"] for flavour in FLAVOURS)
    assert (user["ListenStream"], user["SocketMode"], user["DirectoryMode"]) == (
        "%t/d7agent/agent.sock",
        "0600",
        "0700",
    )
    assert (system["ListenStream"], system["SocketMode"]) == ("/run/d7agent/agent.sock", "0666")
    assert system["DirectoryMode"] == "0755"


def test_no_folder_of_systemd_s_takes_the_socket_away() -> None:
    """The user's unit has neither RuntimeDirectory= nor StateDirectory=; the host's keeps its runtime folder."""
    user, system = (options(FOLDER / flavour / "d7agent.service")["Service"] for flavour in FLAVOURS)
    assert not {"RuntimeDirectory", "StateDirectory"} & set(user)
    assert system["RuntimeDirectoryPreserve"] == "yes"


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_no_user_namespace(flavour: str) -> None:
    """No option that makes one: peers' uids would become 65534, callers' programs unreadable."""
    service = options(FOLDER / flavour / "d7agent.service")["Service"]
    assert "PrivateUsers" not in service
    if flavour == "user":
        assert not [key for key in service if key.startswith(("Protect", "Private", "ReadOnly", "Temporary"))]


def test_the_drop_in_waits_for_a_systemd_that_knows_it() -> None:
    """Type=notify-reload is written from systemd 253 on, and `reload` still runs our command, which can fail."""
    place = units.user_place({"HOME": "/home/x"})
    assert not [name for name in place.files(252) if "notify-reload" in name]
    assert place.files(253)[units.DROP_IN].endswith("/d7agent.service.d/notify-reload.conf")
    for flavour in FLAVOURS:
        drop_in = options(FOLDER / flavour / units.DROP_IN)["Service"]
        assert dict(drop_in) == {"Type": "notify-reload"}


def test_the_wheel_has_every_file(wheel: zipfile.ZipFile) -> None:  # noqa: F811
    """What `service install` looks for is in the package, byte for byte."""
    for path in FOLDER.rglob("*"):
        if path.is_file():
            assert wheel.read(f"d7agent/_units/{path.relative_to(FOLDER)}") == path.read_bytes()


@pytest.mark.parametrize(
    ("path", "word"),
    [("/usr/bin/d7agent", "/usr/bin/d7agent"), ("/a b/d7agent", '"/a b/d7agent"'), ("/50%/d7agent", "/50%%/d7agent")],
)
def test_the_command_s_path_is_quoted(path: str, word: str) -> None:
    """Blanks and percent signs in a path mean themselves in ExecStart=."""
    assert quoted(path) == word


@pytest.mark.parametrize("path", ['/a"b/d7agent', "/a\nb/d7agent", "/a$b/d7agent"])
def test_a_path_that_systemd_cannot_have_is_refused(path: str) -> None:
    """Better an error than a unit that starts something else."""
    with pytest.raises(Failure):
        quoted(path)


def test_the_launcher_is_this_installation_s() -> None:
    """Whatever way the command was started, the unit gets the launcher of this very environment."""
    import sys

    assert Path(launcher()) == Path(sys.executable).with_name("d7agent")
