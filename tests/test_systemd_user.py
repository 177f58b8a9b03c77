"""At home in a real `systemd --user`: activation, reload, restart, watchdog, hardening, and nothing lost on the way."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from d7agent.sandbox import Sandbox, Settings
from tests.support.systemd_session import COMMAND, OWNER, PREFIX, UserManager

SECRET = "sandbox-secret"
CREDENTIAL = f"sandbox-id\n{SECRET}\n"
HOME = f"/home/{OWNER}"
CONFIG = f"{HOME}/.config/d7agent"
UNITS = f"{HOME}/.config/systemd/user"
RUNTIME = "/run/user/61711"
SOCKET = f"{RUNTIME}/d7agent/agent.sock"


class User(UserManager):
    """OWNER at work."""

    def d7agent(self, *arguments: str, text: str = "") -> str:
        """A d7agent command that works; its stdout."""
        return self.out("d7agent", *arguments, user=OWNER, text=text)

    def ctl(self, *arguments: str) -> str:
        """A systemctl command that works; its stdout."""
        return self.out("systemctl", "--user", *arguments, user=OWNER)

    def shown(self, name: str, unit: str = "d7agent.service") -> str:
        """A property of a unit."""
        return self.ctl("show", "-P", name, unit)

    def login(self, url: str, *arguments: str) -> None:
        """Store the sandbox's credential."""
        self.d7agent("login", "--stdin", "--base-url", url, *arguments, text=CREDENTIAL)

    def status(self) -> dict[str, Any]:
        """GetStatus."""
        return dict(json.loads(self.d7agent("status", "--json")))

    def drop_in(self, text: str) -> None:
        """Change the service, as `systemctl edit` does."""
        self.write(f"{UNITS}/d7agent.service.d/test.conf", text, user=OWNER)
        self.ctl("daemon-reload")


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(Settings(lifetime=600)) as sandbox:
        yield sandbox


@pytest.fixture
def user() -> Iterator[User]:
    with User() as manager:
        manager.d7agent("service", "install")
        yield manager


@pytest.fixture
def served(user: User, box: Sandbox) -> User:
    """With a credential in a private folder."""
    user.login(box.url, "--store", f"directory:{HOME}/cred")
    return user


def test_the_first_token_starts_the_service(served: User, box: Sandbox) -> None:
    """Nothing runs but systemd's socket, which alone is enabled; `token` starts the service by it."""
    token = served.d7agent("token")
    served.ctl("stop", "d7agent.service")
    assert served.shown("ActiveState") == "inactive"
    assert served.shown("ActiveState", "d7agent.socket") == "active"
    assert served.d7agent("token") == token
    assert served.shown("ActiveState") == "active"
    assert served.shown("UnitFileState", "d7agent.socket") == "enabled"
    assert served.shown("UnitFileState") == "static"
    assert box.stats.logins == 1


def test_the_socket_outlives_the_agent(served: User) -> None:
    """Socket 0600 in a folder 0700; neither a stop nor a restart of the service takes the inherited file away."""
    what = ("stat", "--format=%a %i", SOCKET)
    before = served.out(*what)
    served.ctl("restart", "d7agent.service")
    served.ctl("stop", "d7agent.service")
    assert served.out(*what) == before
    assert before.startswith("600 ")
    assert served.out("stat", "--format=%a", f"{RUNTIME}/d7agent") == "700"


def test_reload_returns_when_it_is_done(served: User) -> None:
    """After `systemctl reload` the new profile is there; with a faulty file it fails, and all stays as it was."""
    served.write(f"{CONFIG}/profiles/second.toml", 'store = "environment"\n', user=OWNER)
    served.ctl("reload", "d7agent.service")
    assert {profile["profile"] for profile in served.status()["profiles"]} == {"default", "second"}

    served.write(f"{CONFIG}/config.toml", "defualt_profile = 'x'\n", user=OWNER)
    done = served.run("systemctl", "--user", "reload", "d7agent.service", user=OWNER)
    assert done.returncode != 0
    assert "defualt_profile" in served.journal()
    assert "defualt_profile" in served.shown("StatusText")
    assert served.shown("ActiveState") == "active"
    assert {profile["profile"] for profile in served.status()["profiles"]} == {"default", "second"}

    served.write(f"{CONFIG}/config.toml", "default_profile = 'default'\n", user=OWNER)
    served.ctl("reload", "d7agent.service")
    assert "second: no_credential" in served.shown("StatusText")


def test_the_status_line_tells_profile_and_next_refresh(served: User) -> None:
    """`systemctl status` shows the profile's state and when the next refresh is due."""
    served.ctl("reload", "d7agent.service")
    assert served.shown("StatusText").startswith("default: fresh, next refresh 2")


def test_killed_it_comes_back_with_the_same_token(served: User, box: Sandbox) -> None:
    """SIGKILL: who asks meanwhile is answered by the next agent, with the same token, without a login, without D7."""
    token = served.d7agent("token")
    box.stop()
    served.ctl("kill", "--signal=KILL", "d7agent.service")
    assert served.d7agent("token") == token
    assert served.shown("NRestarts") == "1"
    assert served.status()["profiles"][0]["logins_hour"] == 1


def test_the_watchdog_restarts_a_stopped_agent(served: User, box: Sandbox) -> None:
    """An agent that turns no more is ended and started anew; one that turns is left alone."""
    token = served.d7agent("token")
    served.drop_in("[Service]\nWatchdogSec=2s\nRestartSec=100ms\n")
    served.ctl("restart", "d7agent.service")
    pid = served.shown("MainPID")
    served.ctl("kill", "--signal=STOP", "d7agent.service")
    assert served.d7agent("token") == token
    assert served.shown("NRestarts") == "1"
    assert served.shown("MainPID") != pid
    assert "atchdog" in served.journal()
    assert box.stats.logins == 1


def test_a_restart_loses_no_connection_attempt(served: User) -> None:
    """A client that connects and asks all the while is answered every time, through three restarts."""
    program = (
        "import select, sys; from d7agent.client import blocking as d7; n = 0; print('asking', flush=True)\n"
        "while not select.select([sys.stdin], [], [], 0)[0]:\n with d7.Agent() as a: a.token(); n += 1\n"
        "print(n)"
    )
    argv = served.argv(f"{PREFIX}/bin/python", "-P", "-c", program, user=OWNER)
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as asking:
        assert asking.stdout
        assert asking.stdout.readline() == "asking\n"
        for _ in range(3):
            served.ctl("restart", "d7agent.service")
        said, errors = asking.communicate(timeout=20)
        assert asking.returncode == 0, errors
    assert int(said) > 3


def test_keyring_tls_and_callers_under_hardening(user: User) -> None:
    """In the hardened unit: gnome-keyring over %t/bus, a login over TLS by host name, callers known by their program.

    Nothing in the journal is a secret.
    """
    with Sandbox(Settings(lifetime=600, tls=True)) as box:
        assert box.ca_file
        user.write(f"{HOME}/ca.pem", box.ca_file.read_text(), user=OWNER)
        user.drop_in(f"[Service]\nEnvironment=SSL_CERT_FILE={HOME}/ca.pem\nExecStart=\nExecStart={COMMAND} run -v\n")
        unlock = "printf pw | gnome-keyring-daemon --replace --unlock --components=secrets"
        user.out("systemd-run", "--user", "--unit=keyring", "--property=Type=forking", "sh", "-c", unlock, user=OWNER)
        user.out("gdbus", "wait", "--session", "--timeout=10", "org.freedesktop.secrets", user=OWNER)
        user.login(box.url.replace("127.0.0.1", "localhost"))
        token = user.out(
            "systemd-run", "--user", "--quiet", "--wait", "--pipe", "--unit=asker", COMMAND, "token", user=OWNER
        )
        user.ctl("restart", "d7agent.service")
        assert user.d7agent("token") == token
        found = user.status()
        assert box.stats.logins == 1
    assert found["profiles"][0]["store"] == "keyring:keyring.backends.SecretService.Keyring"
    assert found["agent"]["systemd"]
    assert {caller["exe"] for caller in found["agent"]["callers"]} != {None}
    raw = user.raw_journal()
    assert "is ready" in raw
    assert SECRET not in raw
    assert token not in raw


def test_sinks_and_hooks_in_the_hardened_unit(user: User, box: Sandbox) -> None:
    """An always-fresh file in the runtime folder appears and goes with the agent; a hook runs, and gets no token."""
    hook = ["/bin/sh", "-c", f"env >{HOME}/hooked.new && mv {HOME}/hooked.new {HOME}/hooked"]
    user.write(f"{CONFIG}/config.toml", f"[hooks]\non_refreshed = {json.dumps(hook)}\n", user=OWNER)
    profile = f'store = "directory:{HOME}/cred"\nbase_url = "{box.url}"\n[[sinks]]\npath = "%t/d7agent/default.env"\n'
    user.write(f"{CONFIG}/profiles/default.toml", profile, user=OWNER)
    user.login(box.url)
    token = user.d7agent("token")
    assert f"D7_API_TOKEN={token}\n" in user.out("cat", f"{RUNTIME}/d7agent/default.env") + "\n"
    user.ctl("stop", "d7agent.service")
    assert user.run("test", "-e", f"{RUNTIME}/d7agent/default.env").returncode == 1
    environment = user.out("cat", f"{HOME}/hooked")
    assert "D7AGENT_EVENT=" in environment
    assert token not in environment


def test_callers_are_known_by_program_and_unit(served: User) -> None:
    """A caller in a unit of its own shows in status with that unit and its executable."""
    served.out("systemd-run", "--user", "--quiet", "--wait", "--unit=asker", COMMAND, "token", user=OWNER)
    callers = served.status()["agent"]["callers"]
    asker = next(caller for caller in callers if caller.get("unit") == "user/asker.service")
    assert "/python3" in asker["exe"]


def test_root_may_ask_a_user_s_agent(served: User) -> None:
    """Root is recognised as root: the unit has no user namespace in which it would be nobody."""
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
        'asked = s.send(b\'{"method":"io.d7agent.GetToken"}\\0\'); print(s.recv(65536))'
    )
    assert served.d7agent("token") in served.out(f"{PREFIX}/bin/python", "-c", program, SOCKET)
