"""A real gnome-keyring on a private D-Bus in a throw-away home; nothing of it outlives the session, or the tests.

`with KeyringSession() as session: session.env` is what a process needs to find it.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest
import secretstorage
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import DBusConnection, Proxy, open_dbus_connection
from secretstorage.util import DBusAddressWrapper, format_secret, open_session

PASSWORD: Final = "pw"
BUS: Final = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>{services}
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
</policy></busconfig>"""
NAME: Final = "org.freedesktop.secrets"
LOGIN: Final = "/org/freedesktop/secrets/collection/login"
INTERNAL: Final = "org.gnome.keyring.InternalUnsupportedGuiltRiddenInterface"
TIED: Final = ("setpriv", "--pdeathsig", "KILL")  # so that not even a killed test run leaves a daemon behind
NEEDED: Final = {"dbus-daemon": "dbus", "gnome-keyring-daemon": "gnome-keyring", "setpriv": "util-linux"}


class KeyringSession:
    """A bus and an unlocked keyring. `activation`: the bus starts a daemon (a locked one) when there is none."""

    def __init__(self, *, activation: bool = False, keyring: bool = True) -> None:
        missing = [package for program, package in NEEDED.items() if shutil.which(program) is None]
        if missing:
            pytest.skip(f"NOT TESTED: the real keyring; install {' '.join(missing)}")
        self.root = Path(tempfile.mkdtemp(prefix="d7k-"))  # short: a socket path has 107 bytes
        self._services = "<standard_session_servicedirs/>" if activation else ""
        self._keyring = keyring
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        """The bus."""
        return f"unix:path={self.root}/run/bus"

    @property
    def env(self) -> dict[str, str]:
        """The session, for a process that is to use it."""
        home = {"HOME": str(self.root), "XDG_DATA_HOME": str(self.root / "data")}
        return home | {"XDG_RUNTIME_DIR": str(self.root / "run"), "DBUS_SESSION_BUS_ADDRESS": self.address}

    def __enter__(self) -> Self:
        (self.root / "run").mkdir(mode=0o700)
        config = self.root / "bus.conf"
        config.write_text(BUS.format(path=self.root / "run/bus", services=self._services))
        self._run("dbus-daemon", f"--config-file={config}", "--nofork", "--print-address=1")
        if self._keyring:
            self.start_daemon()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(OSError, LookupError):
            os.kill(self.daemon_pid(), signal.SIGKILL)  # one that the bus started is no child of ours
        for process in reversed(self._processes):
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def start_daemon(self) -> None:
        """An unlocked daemon; returns once it owns its name on the bus."""
        with self.connection() as connection:
            proxy = Proxy(message_bus, connection)
            proxy.AddMatch(f"type='signal',member='NameOwnerChanged',arg0='{NAME}'")
            argv = ("gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets")
            daemon = self._run(*argv, ready=False)
            assert daemon.stdin
            daemon.stdin.write(PASSWORD.encode())
            daemon.stdin.close()
            while not proxy.NameHasOwner(NAME)[0]:
                connection.receive(timeout=10)
        with self.connection() as connection:
            secretstorage.get_collection_by_alias(connection, "default")

    def daemon_pid(self) -> int:
        """The process that owns the keyring's name. Raises LookupError if there is none."""
        with self.connection() as connection:
            proxy = Proxy(message_bus, connection)
            if not proxy.NameHasOwner(NAME)[0]:
                raise LookupError(NAME)
            return int(proxy.GetConnectionUnixProcessID(NAME)[0])

    def kill_daemon(self) -> None:
        """SIGKILL; returns once the bus has noticed."""
        with self.connection() as connection:
            proxy = Proxy(message_bus, connection)
            proxy.AddMatch(f"type='signal',member='NameOwnerChanged',arg0='{NAME}'")
            os.kill(int(proxy.GetConnectionUnixProcessID(NAME)[0]), signal.SIGKILL)
            while proxy.NameHasOwner(NAME)[0]:
                connection.receive(timeout=10)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """The daemon is there and does nothing."""
        pid = self.daemon_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def put(self, user: str, text: bytes) -> None:
        """The item of service d7agent and this user, as keyring writes it."""
        attributes = {"application": "Python keyring library", "service": "d7agent", "username": user}
        with self.connection() as connection:
            secretstorage.Collection(connection).create_item("x", attributes, text, replace=True)

    def get(self, user: str) -> bytes | None:
        """The secret of that item; None if there is none."""
        with self.connection() as connection:
            collection = secretstorage.Collection(connection)
            items = collection.search_items({"service": "d7agent", "username": user})
            return next((item.get_secret() for item in items), None)

    def clear(self, *users: str) -> None:
        """No item of these users."""
        with self.connection() as connection:
            for user in users:
                for item in secretstorage.Collection(connection).search_items({"service": "d7agent", "username": user}):
                    item.delete()

    def lock(self) -> None:
        """As the desktop locks the keyring."""
        with self.connection() as connection:
            secretstorage.Collection(connection, LOGIN).lock()

    def unlock(self) -> None:
        """As the desktop's login unlocks the keyring: without a prompt."""
        with self.connection() as connection:
            session = open_session(connection)
            service = DBusAddressWrapper("/org/freedesktop/secrets", INTERNAL, connection)
            secret = format_secret(session, PASSWORD.encode(), "text/plain")
            service.call("UnlockWithMasterPassword", "o(oayays)", LOGIN, secret)

    @contextlib.contextmanager
    def connection(self) -> Iterator[DBusConnection]:
        """A connection to the bus."""
        with closing(open_dbus_connection(self.address)) as connection:
            yield connection

    def _run(self, *argv: str, ready: bool = True) -> subprocess.Popen[bytes]:
        """Start a daemon that ends with us; `ready`: it says so on stdout."""
        process = subprocess.Popen(
            [*TIED, *argv],
            env={"PATH": os.environ["PATH"], **self.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._processes.append(process)
        assert process.stdout
        if ready:
            assert select.select([process.stdout], [], [], 10)[0], f"{argv[0]} did not start"
            assert process.stdout.readline(), f"{argv[0]} ended at once"
        return process
