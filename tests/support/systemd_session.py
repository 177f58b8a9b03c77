"""A real systemd for tests, in namespaces of its own: nothing of it is on the machine, and it ends with the test.

`with UserManager() as systemd: systemd.run("systemctl", "--user", "status", user=OWNER)`. The installed d7agent is a
virtual environment at /srv/d7agent there, which every user can read, wherever it really is.
"""

import contextlib
import itertools
import os
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

import pytest

import d7agent

OWNER: Final = "d7owner"
OTHER: Final = "d7other"
USERS: Final = {OWNER: 61711, OTHER: 61712}
PREFIX: Final = "/srv/d7agent"
COMMAND: Final = f"{PREFIX}/bin/d7agent"
PATH: Final = f"{PREFIX}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NEEDED: Final = {
    "/lib/systemd/systemd": "systemd",
    "/usr/bin/nsenter": "util-linux",
    "/usr/bin/dbus-daemon": "dbus",
    "/usr/lib/systemd/user/dbus.socket": "dbus-user-session",
}
BOOT_LIMIT: Final = 60.0  # seconds; it takes a quarter of one on an idle machine
LIMIT: Final = 50.0  # seconds for one command
NAMESPACES: Final = ("--mount", "--mount-proc", "--pid", "--fork", "--kill-child", "--cgroup", "--ipc", "--uts")
ENTER: Final = 'echo $$ >"$0/cgroup.procs" && exec setpriv --pdeathsig KILL unshare "$@"'

_numbers = itertools.count()


class Systemd:
    """One manager: booted by `with`, gone afterwards. `script`, in this folder, is told the stage and the owner."""

    script: str

    def __init__(self) -> None:
        _need_parts()
        self.stage = Path(tempfile.mkdtemp(prefix="d7s-"))
        self.stage.chmod(0o755)
        self._cgroup = _cgroup_root() / f"d7agent-test-{os.getpid()}-{next(_numbers)}"
        self._process: subprocess.Popen[bytes] | None = None
        self._init = 0

    def __enter__(self) -> Self:
        try:
            _fill(self.stage)
            _sweep(self._cgroup.parent)
            self._cgroup.mkdir()
            self._boot()
            if self.run(f"{PREFIX}/bin/python", "-I", "-c", "pass", user=OWNER).returncode:
                pytest.skip(
                    f"NOT TESTED: a real systemd; other users cannot run {sys.executable} (scripts/test can help)"
                )
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _boot(self) -> None:
        script = Path(__file__).with_name(self.script)
        ready = self.stage / "srv" / "ready"
        os.mkfifo(ready)
        number = os.open(ready, os.O_RDWR | os.O_CLOEXEC)
        with (self.stage / "boot.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", ENTER, str(self._cgroup), *NAMESPACES, str(script), str(self.stage), OWNER],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        pidfd = os.pidfd_open(self._process.pid)
        try:
            booted = select.select([number, pidfd], [], [], BOOT_LIMIT)[0] == [number]
        finally:
            os.close(number)
            os.close(pidfd)
        if not booted:
            raise AssertionError(f"systemd did not boot:\n{(self.stage / 'boot.log').read_text(errors='replace')}")
        (self._init,) = _children(self._process)

    def close(self) -> None:
        """End everything, and leave nothing."""
        process, self._process = self._process, None
        if process is not None:
            for pid in _children(process) or [process.pid]:  # process 1 in there: the kernel ends all others with it
                os.kill(pid, signal.SIGKILL)
            process.wait(BOOT_LIMIT)
        _remove(self._cgroup)
        shutil.rmtree(self.stage, ignore_errors=True)

    def argv(self, *argv: str, user: str = "root", env: Mapping[str, str] | None = None) -> list[str]:
        """The command line that runs `argv` in there as this user."""
        enter = ["nsenter", f"--target={self._init}", "--mount", "--pid", "--cgroup", "--root", "--wd=/"]
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--reset-env"]
        given = {"PATH": PATH, **self.environment(user), **(env or {})}
        return [*enter, *become, "env", *(f"{name}={value}" for name, value in given.items()), *argv]

    def environment(self, user: str) -> dict[str, str]:
        """What a session of this user has in its environment."""
        return {"XDG_RUNTIME_DIR": f"/run/user/{USERS[user]}"} if user in USERS else {}

    def run(
        self, *argv: str, user: str = "root", text: str = "", check: bool = False, env: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in there to its end; `text` is its stdin."""
        done = subprocess.run(
            self.argv(*argv, user=user, env=env),
            input=text, capture_output=True, text=True, check=False, timeout=LIMIT, cwd="/",
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.journal()}")
        return done

    def out(self, *argv: str, user: str = "root", text: str = "", env: Mapping[str, str] | None = None) -> str:
        """The stdout of a command that works, without its line end."""
        return self.run(*argv, user=user, text=text, env=env, check=True).stdout.rstrip("\n")

    def write(self, path: str, text: str, user: str = "root", mode: str = "644") -> None:
        """Put a file there, its folder made."""
        script = 'mkdir -p "${1%/*}" && cat >"$1" && chmod "$2" "$1"'
        self.out("sh", "-c", script, "sh", path, mode, user=user, text=text)

    def journal(self) -> str:
        """All that was logged, in words."""
        argv = self.argv("journalctl", "--no-pager", "--output=short-monotonic", "--all")
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=LIMIT).stdout

    def raw_journal(self) -> str:
        """All fields of all that was logged: what no secret may be in."""
        self.out("journalctl", "--sync")
        return self.out("journalctl", "--no-pager", "--output=json", "--all")


class UserManager(Systemd):
    """The `systemd --user` of OWNER, and nothing below it."""

    script = "userns-systemd"

    def environment(self, user: str) -> dict[str, str]:
        """The session bus, too."""
        found = super().environment(user)
        return found | {"DBUS_SESSION_BUS_ADDRESS": f"unix:path={found['XDG_RUNTIME_DIR']}/bus"} if found else found


def _children(process: "subprocess.Popen[bytes]") -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    except OSError:
        return []


class SystemManager(Systemd):
    """A whole systemd as process 1, with D-Bus and logind; no user is logged in."""

    script = "system-systemd"


def _need_parts() -> None:
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: a real systemd; run the tests as root for that")
    missing = [package for path, package in NEEDED.items() if not os.path.exists(path)]
    if missing:
        pytest.skip(f"NOT TESTED: a real systemd; install {' '.join(missing)}")


def _cgroup_root() -> Path:
    root = Path("/sys/fs/cgroup/unified")
    root = root if root.is_dir() else root.parent
    if not (root / "cgroup.procs").exists():
        pytest.skip(f"NOT TESTED: a real systemd; there is no cgroup2 at {root}")
    return root


def _remove(cgroup: Path) -> None:
    """Remove a cgroup without processes, and those below it."""
    for folder in [folder for folder, _, _ in os.walk(cgroup, topdown=False)]:
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(folder)


def _sweep(root: Path) -> None:
    """Remove what test runs left that were killed: their processes have ended with them."""
    for cgroup in root.glob("d7agent-test-*"):
        if not os.path.exists(f"/proc/{cgroup.name.split('-')[2]}"):
            with contextlib.suppress(OSError):
                _remove(cgroup)


def _fill(stage: Path) -> None:
    """Users, the installed d7agent, and the list of what is to be mounted."""
    users = "".join(f"{name}:x:{uid}:{uid}::/home/{name}:/bin/sh\n" for name, uid in USERS.items())
    groups = "".join(f"{name}:x:{uid}:\n" for name, uid in USERS.items())
    (stage / "passwd").write_text(Path("/etc/passwd").read_text() + users)
    (stage / "group").write_text(Path("/etc/group").read_text() + groups)
    binds = _environment(stage / "srv" / "d7agent")
    (stage / "binds").write_text("".join(f"{source}\t{target}\n" for source, target in binds))
    for path in [stage / "srv", *(stage / "srv").rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)


def _environment(folder: Path) -> list[tuple[str, str]]:
    """The virtual environment we run in, as it is to be at PREFIX: which folders to mount there."""
    packages = sysconfig.get_path("purelib")
    here = str(Path(d7agent.__file__).parents[1])
    inside = Path(packages).relative_to(sys.prefix)
    (folder / inside).mkdir(parents=True)
    (folder / "bin").mkdir()
    binds = [(packages, f"{PREFIX}/{inside}")]
    if here != packages:  # installed as editable
        binds.append((here, here))
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    base = sys.base_prefix
    if base != "/usr":  # it may be in somebody's home
        (folder.parent / "python").mkdir()
        binds.append((base, "/srv/python"))
        base = "/srv/python"
    (folder / "bin" / "python").symlink_to(f"{base}/bin/python{version}")
    (folder / "pyvenv.cfg").write_text(
        f"home = {base}/bin\ninclude-system-site-packages = false\nversion = {version}\n"
    )
    launcher = Path(sys.executable).with_name("d7agent").read_text().splitlines(keepends=True)
    (folder / "bin" / "d7agent").write_text(f"#!{PREFIX}/bin/python\n" + "".join(launcher[1:]))
    (folder / "bin" / "d7agent").chmod(0o755)
    return binds
