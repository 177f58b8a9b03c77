"""Where secrets are not, from outside: what every command says, what children are given, a whole life under systemd."""

import json
import re
import secrets
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from d7agent.cli.app import COMMANDS
from d7agent.sandbox import Sandbox, Settings
from tests.support.live import Live
from tests.support.scene import Scene, is_fresh
from tests.support.systemd_session import COMMAND, OWNER, UserManager

PASSPHRASE = "correct horse battery staple"
JWT = re.compile(r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}")  # any token of the sandbox, or half of it


@pytest.fixture
def secret() -> str:
    return secrets.token_hex(24)


@pytest.fixture
def box(secret: str) -> Iterator[Sandbox]:
    with Sandbox(Settings(lifetime=600, applications={"the-id": secret})) as sandbox:
        yield sandbox


# Every command: its calls, and whether its purpose is to print the token (on stdout; stderr never has it).
SHOWS, HIDES = True, False
CALLS: dict[str, tuple[bool, list[list[str]]]] = {
    "token": (SHOWS, [["token"], ["token", "-p", "nobody"]]),
    "header": (SHOWS, [["header", "--format", form] for form in ("header", "value", "curl", "json")]),
    "env": (SHOWS, [["env"], ["env", "--shell", "fish"]]),
    "exec": (SHOWS, [["exec", "--", "env"], ["exec", "--", "/nonexistent"]]),
    "watch": (SHOWS, [["watch", "-p", "nobody"]]),
    "renew": (SHOWS, [["renew"], ["renew", "-p", "nobody"]]),
    "reject": (SHOWS, [["reject"]]),
    "login": (HIDES, [["login", "--stdin"], ["login", "--stdin", "--token"], ["login", "--from-env"], ["login"]]),
    "status": (HIDES, [["status"], ["status", "--json"], ["status", "--format", "openmetrics"]]),
    "check": (HIDES, [["check"], ["check", "--live"], ["check", "-w", "9999:"]]),
    "doctor": (HIDES, [["doctor"], ["doctor", "--json"]]),
    "reload": (HIDES, [["reload"]]),
    "start": (HIDES, [["start"], ["start", "--", "true"]]),
    "service": (HIDES, [["service", "status"]]),
    "sandbox": (HIDES, [["sandbox", "--fault", "nonsense"]]),
    "run": (HIDES, [["run"]]),
    "lock": (HIDES, [["lock", "--stdin"]]),
    "unlock": (HIDES, [["unlock", "--stdin"]]),
    "logout": (HIDES, [["logout", "--yes"]]),
    "stop": (HIDES, [["stop"]]),
}
TYPED = {"reject": "{token}\n", "lock": f"{PASSPHRASE}\n", "unlock": f"{PASSPHRASE}x\n", "login": "the-id\n{secret}x\n"}


def test_every_command_is_known() -> None:
    """A new command gets its calls here before it gets a user."""
    assert CALLS.keys() == COMMANDS.keys()


def test_what_every_command_says(box: Sandbox, secret: str) -> None:
    """No call of any command, good or bad, says the secret; none but those that are for it prints the token.

    The agent says neither, at its most talkative.
    """
    with Live(D7AGENT_DEBUG="1") as live:
        live.start()
        (live.root / "cred").mkdir(mode=0o700)
        live.login(box.url, "--store", f"directory:{live.root}/cred", credential=f"the-id\n{secret}\n")
        token = live.run("token", check=True).stdout.strip()
        for command, (shows, calls) in CALLS.items():
            for call in calls:
                typed = TYPED.get(command, "").format(token=token, secret=secret)
                given = {"D7_CLIENT_ID": "the-id", "D7_CLIENT_SECRET": f"{secret}x"} if "--from-env" in call else {}
                done = live.run(*call, text=typed, environment=given)
                assert secret not in done.stdout + done.stderr, call
                assert PASSPHRASE not in done.stdout + done.stderr, call
                assert "Traceback" not in done.stderr, call
                assert not JWT.search(done.stderr), call
                assert shows or not JWT.search(done.stdout), call
        said = live.journal()
        assert "is ready" in said
        assert [hidden for hidden in (secret, PASSPHRASE) if hidden in said] == []
        assert not JWT.search(said)


PARENT = """tr '\\0' '\\n' </proc/$PPID/environ >>"$0.seen" 2>/dev/null"""


def dumping(path: Path, then: str = "") -> Path:
    """A program that writes its environment down."""
    path.write_text(f'#!/bin/sh\nenv >>"$0.seen"\n{then}\n')
    path.chmod(0o700)
    return path


def test_the_environment_stores_secret_stays_there(box: Sandbox, secret: str) -> None:
    """The agent's own environment and its helpers' have it; hooks, another store's program and its helper do not."""
    with Live(D7_CLIENT_ID="the-id", D7_CLIENT_SECRET=secret, MINE_D7_API_TOKEN=f"{secret}.token") as live:
        told = json.dumps({"client_id": "the-id", "client_secret": secret})
        program = dumping(live.root / "program", f"{PARENT}\necho {shlex.quote(told)}")  # its parent is a helper
        hook = dumping(live.root / "hook")
        live.config.mkdir(mode=0o700, parents=True)
        (live.config / "config.toml").write_text(f'[hooks]\non_refreshed = ["{hook}"]\n')
        live.start()
        scene = Scene(live)
        scene.configure("mine", box.url, "environment")
        scene.wait("mine", is_fresh)
        scene.configure("other", box.url, f"command:{program}")
        scene.wait("other", is_fresh)
        live.run("renew", "-p", "mine", check=True)
        live.run("logout", "other", "--yes")
        assert live.stop() == 0
        for seen in (program, hook):
            text = Path(f"{seen}.seen").read_text(errors="replace")
            assert "PATH=" in text
            assert secret not in text.replace(told, ""), seen
            assert "D7_CLIENT_SECRET" not in text
        assert secret not in live.journal()


class Owner(UserManager):
    """OWNER with a d7agent of his own, as talkative as it gets."""

    def d7agent(self, *arguments: str, text: str = "") -> str:
        """A command, whatever comes of it: its stdout and stderr."""
        done = self.run("d7agent", *arguments, user=OWNER, text=text)
        return done.stdout + done.stderr

    def ctl(self, *arguments: str) -> str:
        """A systemctl command that works."""
        return self.out("systemctl", "--user", *arguments, user=OWNER)


HOME = f"/home/{OWNER}"
TALKATIVE = f"[Service]\nEnvironment=D7AGENT_DEBUG=1\nExecStart=\nExecStart={COMMAND} run -v\n"


@pytest.fixture
def owner() -> Iterator[Owner]:
    with Owner() as manager:
        manager.d7agent("service", "install")
        manager.write(f"{HOME}/.config/systemd/user/d7agent.service.d/v.conf", TALKATIVE, user=OWNER)
        manager.write(f"{HOME}/.config/d7agent/config.toml", '[hooks]\non_refreshed = ["/bin/false"]\n', user=OWNER)
        manager.ctl("daemon-reload")
        yield manager


def test_a_whole_life_leaves_no_secret_in_the_journal(owner: Owner, box: Sandbox, secret: str) -> None:
    """Wrong and right logins, refreshes, outages, rejects, lock, a kill, logout: every field of every entry is clean.

    While it lives the secret is in the store alone; after `logout` no file has secret or token.
    """
    store = ("--base-url", box.url, "--store", f"directory:{HOME}/cred")
    owner.d7agent("login", "--stdin", *store, text=f"the-id\n{secret}x\n")
    owner.d7agent("login", "--stdin", *store, text=f"the-id\n{secret}\n")
    tokens = [owner.out("d7agent", "token", user=OWNER)]
    said = [owner.d7agent("status"), owner.d7agent("check"), owner.d7agent("doctor")]
    for fault in ("unauthorized", "not-json", "truncated", "server-error", "invalid", "token-control"):
        box.faults.add(fault, times=1)
        said.append(owner.d7agent("login", "--stdin", text=f"the-id\n{secret}\n"))
    said.append(owner.d7agent("reload"))
    tokens.append(owner.out("d7agent", "renew", user=OWNER))
    owner.run("d7agent", "reject", user=OWNER, text=f"{tokens[0]}\n")
    said += [owner.d7agent("lock", "--stdin", text=f"{PASSPHRASE}\n")]
    said += [owner.d7agent(command, "--stdin", text=f"{PASSPHRASE}{typo}\n") for command, typo in UNLOCKS]
    owner.ctl("kill", "--signal=KILL", "d7agent.service")
    tokens.append(owner.out("d7agent", "token", user=OWNER))
    assert holders(owner, secret) == [f"{HOME}/cred/client_secret"]
    said.append(owner.d7agent("logout", "--yes"))
    assert [path for text in (secret, *filter(None, tokens)) for path in holders(owner, text)] == []
    owner.ctl("stop", "d7agent.service")
    raw = owner.raw_journal()
    assert raw.count("d7agent") > 20
    assert [hidden for hidden in (secret, PASSPHRASE) if hidden in raw or hidden in "".join(said)] == []
    assert not JWT.search(raw)
    assert not JWT.search("".join(said))


UNLOCKS = (("unlock", "x"), ("unlock", ""))


def holders(owner: Owner, text: str) -> list[str]:
    """The files of the user's, the runtime folder's and the temporary ones that hold this."""
    places = (HOME, f"/run/user/{owner.out('id', '-u', OWNER)}", "/tmp", "/var/tmp", "/run/systemd")
    found = owner.run("grep", "-rlsFI", "-D", "skip", "--binary-files=text", "-e", text, *places)
    return found.stdout.split()
