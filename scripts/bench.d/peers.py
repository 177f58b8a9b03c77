"""The others: each is started in a throw-away folder, proves that it works, and ends with the bench."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Final, Self, TypeVar

from figures import Report
from place import program
from processes import NULL, Ran, run
from provider import Provider
from wire import SSH_LIST, Service

from tests.support.keyring_session import KeyringSession

HERE: Final = Path(__file__).parent
LIMIT: Final = 20.0  # seconds for any of them to come up
SECRET: Final = "bench-secret"  # noqa: S105  made up
T = TypeVar("T")


class Missing(Exception):
    """This peer cannot be had here."""


class Command:
    """A command of a peer that prints a secret."""

    def __init__(self, argv: Sequence[str], environment: dict[str, str], stdin: bytes = b"") -> None:
        self._argv, self._environment, self._stdin = argv, environment, stdin
        done = subprocess.run(argv, env=environment, input=stdin, capture_output=True, check=False, timeout=LIMIT)
        if done.returncode or not done.stdout.strip():
            raise Missing(f"{argv[0]} {_first_line(done.stderr)}")

    def run(self) -> Ran:
        """Once more."""
        if not self._stdin:
            return run(self._argv, self._environment)
        ours, theirs = os.pipe()
        os.write(theirs, self._stdin)
        os.close(theirs)
        try:
            return run(self._argv, self._environment, ours)
        finally:
            os.close(ours)

    def wall(self) -> float:
        """Milliseconds of one run."""
        return self.run().wall * 1e3


class Peers:
    """All of them, each started when first asked for. `reply_size`: bytes that an echo answers.

    Use it with `with`.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self.reply_size = 1024
        self._stack = ExitStack()
        self.root = Path(tempfile.mkdtemp(prefix="d7p-"))
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(self.root), "LC_ALL": "C.UTF-8"}
        self._stack.callback(shutil.rmtree, self.root, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _attempt(self, name: str, find: Callable[[], T]) -> T | None:
        """What `find` finds; None, with a plain line in the report, where this machine lacks it."""
        try:
            return find()
        except (Missing, OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None)
            self._report.without(name, f"{error}; {_first_line(said)}" if said else str(error))
            return None

    def _daemon(self, *argv: str) -> int:
        process = subprocess.Popen(argv, env=self.environment, stdin=NULL, stdout=NULL, stderr=NULL)

        def end() -> None:
            process.kill()
            process.wait()

        self._stack.callback(end)
        return process.pid

    # On the wire.

    @cached_property
    def ssh_agent(self) -> Service | None:
        """With one key, as its users have."""
        return self._attempt("ssh-agent", self._ssh_agent)

    def _ssh_agent(self) -> Service:
        agent, path, key = _need("ssh-agent"), str(self.root / "ssh.sock"), str(self.root / "key")
        service = Service(path, SSH_LIST, self._daemon(agent, "-D", "-a", path))
        _quiet([_need("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", key], self.environment)
        _until(Path(path).exists)
        _quiet([_need("ssh-add"), "-q", key], self.environment | {"SSH_AUTH_SOCK": path})
        service.prove(b"ssh-ed25519")
        return service

    @cached_property
    def c_echo(self) -> Service | None:
        """The floor."""
        return self._attempt("C echo", self._c_echo)

    def _c_echo(self) -> Service:
        made, path = str(self.root / "echo"), str(self.root / "c.sock")
        _quiet([_need("gcc"), "-O2", "-o", made, str(HERE / "echo.c")], self.environment)
        return self._echo(path, made, path, str(self.reply_size))

    @cached_property
    def asyncio_echo(self) -> Service | None:
        """The floor for Python."""
        path = str(self.root / "p.sock")
        argv = (sys.executable, str(HERE / "echo.py"), path, str(self.reply_size))
        return self._attempt("asyncio echo", lambda: self._echo(path, *argv))

    def _echo(self, path: str, *argv: str) -> Service:
        service = Service(path, b"x" * 34, self._daemon(*argv))
        _until(lambda: _accepts(service))
        return service

    # Commands.

    @cached_property
    def provider(self) -> Provider:
        """Where oidc-agent logs in."""
        return self._stack.enter_context(Provider())

    @cached_property
    def oidc(self) -> dict[str, str] | None:
        """The environment in which `oidc-token bench` and `oidc-token other` work."""
        return self._attempt("oidc-agent", self._oidc)

    def _oidc(self) -> dict[str, str]:
        folder = self.root / "oidc"
        folder.mkdir(mode=0o700)
        environment = self.environment | {"OIDC_CONFIG_DIR": str(folder), "TMPDIR": str(self.root)}
        said = _quiet([_need("oidc-agent")], environment)
        pairs = (part.split("=", 1) for line in said.splitlines() for part in line.split(";") if "=" in part)
        environment |= {name.strip(): value for name, value in pairs}
        self._stack.callback(_quiet, [_need("oidc-agent"), "-k"], environment)
        for account in ("bench", "other"):
            fixed = ("--client-id=cid", "--client-secret=sec", "--rt=rt-0", "--redirect-uri=http://localhost:8080")
            ways = ("--scope=openid profile offline_access", "--pw-cmd=echo pw", "--prompt=none", "--confirm-yes")
            _quiet([_need("oidc-gen"), account, f"--issuer={self.provider.url}", *fixed, *ways], environment)
        return environment

    @cached_property
    def git_cache(self) -> str | None:
        """The socket of a git-credential-cache with one entry."""
        return self._attempt("git-credential-cache", self._git_cache)

    def _git_cache(self) -> str:
        folder = self.root / "git"
        folder.mkdir(mode=0o700)
        path = str(folder / "socket")
        entry = f"protocol=https\nhost=example.invalid\nusername=u\npassword={SECRET}\n\n"
        argv = [_need("git"), "credential-cache", f"--socket={path}"]
        _quiet([*argv, "store"], self.environment, entry)
        self._stack.callback(_quiet, [*argv, "exit"], self.environment)
        return path

    @cached_property
    def session(self) -> KeyringSession | None:
        """A bus and a gnome-keyring, unlocked, with one entry."""
        return self._attempt("gnome-keyring", self._session)

    def _session(self) -> KeyringSession:
        for name in ("dbus-daemon", "gnome-keyring-daemon", "setpriv", "secret-tool"):
            _need(name)
        session = self._stack.enter_context(KeyringSession())
        argv = [_need("secret-tool"), "store", "--label=x", "service", "bench", "username", "u"]
        _quiet(argv, self.environment | session.env, SECRET)
        return session

    def commands(self) -> dict[str, Command]:
        """Those that print a secret, by the name that the table has."""
        made = {
            "oidc-token": self._oidc_token,
            "git credential-cache get": self._git_get,
            "secret-tool lookup": lambda: self._lookup("secret-tool", "lookup", "service", "bench", "username", "u"),
            "keyring get": lambda: self._lookup("keyring", "get", "bench", "u"),
            "aws configure export-credentials": self._aws,
        }
        found = {name: self._attempt(name, make) for name, make in made.items()}
        return {name: command for name, command in found.items() if command is not None}

    def _oidc_token(self) -> Command:
        if self.oidc is None:
            raise Missing("needs oidc-agent")
        return Command([_need("oidc-token"), "bench"], self.oidc)

    def _git_get(self) -> Command:
        if self.git_cache is None:
            raise Missing("needs git-credential-cache")
        argv = [_need("git"), "credential-cache", f"--socket={self.git_cache}", "get"]
        return Command(argv, self.environment, b"protocol=https\nhost=example.invalid\n\n")

    def _lookup(self, *argv: str) -> Command:
        if self.session is None:
            raise Missing("needs gnome-keyring")
        own = Path(sys.executable).with_name(argv[0])
        found = str(own) if own.exists() else _need(argv[0])
        backend = {"PYTHON_KEYRING_BACKEND": "keyring.backends.SecretService.Keyring"}
        return Command([found, *argv[1:]], self.environment | self.session.env | backend)

    def _aws(self) -> Command:
        key = {"AWS_ACCESS_KEY_ID": "AKIABENCH", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}
        argv = [_need("aws"), "configure", "export-credentials", "--format", "env-no-export"]
        return Command(argv, self.environment | key)


def _first_line(said: bytes) -> str:
    lines = [line.strip() for line in said.decode(errors="replace").splitlines()]
    return "says: " + next((line for line in lines if "error" in line.lower()), lines[0]) if lines else "says nothing"


def _need(name: str) -> str:
    found = program(name)
    if found is None:
        raise Missing(f"no {name} on this machine (`scripts/bench --setup` installs what Debian has)")
    return found


def _quiet(argv: Sequence[str], environment: dict[str, str], text: str = "") -> str:
    done = subprocess.run(argv, env=environment, input=text.encode(), capture_output=True, check=True, timeout=LIMIT)
    return done.stdout.decode()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > deadline:
            raise Missing("it does not come up")
        time.sleep(0.01)


def _accepts(service: Service) -> bool:
    try:
        service.connect().close()
    except OSError:
        return False
    return True
