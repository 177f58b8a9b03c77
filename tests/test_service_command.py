"""`d7agent service`: what it writes, leaves alone, ends and says, with a real user manager and without any."""

from collections.abc import Iterator

import pytest

from d7agent.sandbox import Sandbox, Settings
from tests.support.live import Live
from tests.support.systemd_session import COMMAND, OWNER, UserManager

HOME = f"/home/{OWNER}"
UNITS = f"{HOME}/.config/systemd/user"
RUNTIME = "/run/user/61711"


@pytest.fixture
def manager() -> Iterator[UserManager]:
    with UserManager() as systemd:
        yield systemd


def service(manager: UserManager, *arguments: str, command: str = "d7agent") -> str:
    return manager.out(command, "service", *arguments, user=OWNER)


def test_install_twice_changes_nothing(manager: UserManager) -> None:
    """The second run writes nothing, leaves the running agent alone, and says so."""
    service(manager, "install")
    assert manager.run("d7agent", "token", user=OWNER).returncode in (4, 9)
    before = manager.out("systemctl", "--user", "show", "-P", "MainPID", "d7agent.service", user=OWNER)
    assert "up to date" in service(manager, "install")
    assert manager.out("systemctl", "--user", "show", "-P", "MainPID", "d7agent.service", user=OWNER) == before != "0"


def test_install_names_the_command_that_was_typed(manager: UserManager) -> None:
    """Through a link such as pipx makes, the unit gets the link; a new installation replaces it and restarts."""
    link = f"{HOME}/.local/bin/d7agent"
    manager.out("mkdir", "-p", f"{HOME}/.local/bin", user=OWNER)
    manager.out("ln", "-s", COMMAND, link, user=OWNER)
    service(manager, "install", command=link)
    assert f"ExecStart={link} run\n" in manager.out("cat", f"{UNITS}/d7agent.service")
    assert manager.run("d7agent", "token", user=OWNER).returncode in (4, 9)
    service(manager, "install")
    assert f"ExecStart={COMMAND} run\n" in manager.out("cat", f"{UNITS}/d7agent.service")
    command = manager.out("systemctl", "--user", "show", "-P", "ExecStart", "d7agent.service", user=OWNER)
    assert COMMAND in command


def test_an_agent_started_otherwise_is_ended_first(manager: UserManager) -> None:
    """`d7agent start` ran an agent; `service install` ends it, and systemd's answers with the same token."""
    with Sandbox(Settings(lifetime=600)) as box:
        manager.out("d7agent", "start", user=OWNER)
        login = ("d7agent", "login", "--stdin", "--base-url", box.url, "--store", f"directory:{HOME}/cred")
        manager.out(*login, user=OWNER, text="sandbox-id\nsandbox-secret\n")
        token = manager.out("d7agent", "token", user=OWNER)
        assert "Ended the agent" in service(manager, "install")
        assert manager.out("d7agent", "token", user=OWNER) == token
        assert box.stats.logins == 1
    assert manager.out("systemctl", "--user", "is-active", "d7agent.service", user=OWNER) == "active"


def test_a_person_s_unit_is_left_alone(manager: UserManager) -> None:
    """A unit that somebody else wrote is neither replaced nor removed; nothing is written beside it."""
    manager.write(f"{UNITS}/d7agent.service", "[Service]\nExecStart=/bin/true\n", user=OWNER)
    done = manager.run("d7agent", "service", "install", user=OWNER)
    assert done.returncode == 1
    assert f"{UNITS}/d7agent.service exists and was not written by d7agent" in done.stderr
    assert "Nothing to do" in service(manager, "uninstall")
    assert manager.out("ls", UNITS) == "d7agent.service"


def test_uninstall_removes_what_it_wrote(manager: UserManager) -> None:
    """Units, the link of the enabled socket and the socket go; a person's drop-in stays; once more is no error."""
    service(manager, "install")
    manager.write(f"{UNITS}/d7agent.service.d/mine.conf", "[Service]\nNice=5\n", user=OWNER)
    assert "Removed" in service(manager, "uninstall")
    left = manager.out("find", UNITS, "-not", "-type", "d").splitlines()
    assert left == [f"{UNITS}/d7agent.service.d/mine.conf"]
    assert manager.run("test", "-e", f"{RUNTIME}/d7agent/agent.sock").returncode == 1
    assert "Nothing to do" in service(manager, "uninstall")


def test_status_tells_what_is_there(manager: UserManager) -> None:
    """Before, with the socket listening, and with the agent running; exit 3 where systemd does not listen."""
    done = manager.run("d7agent", "service", "status", user=OWNER)
    assert (done.returncode, "installed: no" in done.stdout) == (3, True)
    service(manager, "install")
    shown = service(manager, "status")
    assert f"{UNITS}/d7agent.service\n" in shown
    assert f"starts:    {COMMAND}\n" in shown
    assert "enabled, active (listening)" in shown
    assert "not running; the next request starts it" in shown
    manager.run("d7agent", "token", user=OWNER)
    assert "active (running), pid " in service(manager, "status")
    manager.write(f"{UNITS}/d7agent.service", "[Service]\nExecStart=/gone/d7agent run\n", user=OWNER)
    shown = service(manager, "status")
    assert "/gone/d7agent, which is not there any more" in shown
    assert "not written by" in shown


def test_lingering_is_spoken_of(manager: UserManager) -> None:
    """Where logind knows that the user does not linger, `install` and `status` say what that means; else not a word."""
    assert "linger" not in service(manager, "install")
    manager.out("mkdir", "/var/lib/systemd/linger")
    assert "loginctl enable-linger" in service(manager, "install")
    assert "linger:    no" in service(manager, "status")
    manager.out("touch", f"/var/lib/systemd/linger/{OWNER}")
    assert "linger:    yes" in service(manager, "status")


def test_without_a_manager_it_says_what_to_do() -> None:
    """No user manager: two lines, nothing written."""
    with Live() as home:
        done = home.run("service", "install")
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 2
        assert "does not answer" in done.stderr or "there is no systemctl" in done.stderr
        assert not (home.home / ".config").exists()
        assert home.run("service", "uninstall").stdout.startswith("Nothing to do")
        assert home.run("service", "status").returncode == 3


def test_without_systemd_it_says_what_to_do() -> None:
    """No systemctl at all: install says so in two lines, status shows it, uninstall still removes what was written."""
    with Live() as home:
        nowhere = {"PATH": str(home.root)}
        done = home.run("service", "install", environment=nowhere)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 2)
        assert "there is no systemctl" in done.stderr
        assert home.run("service", "status", environment=nowhere).returncode == 3
        unit = home.home / ".config/systemd/user/d7agent.socket"
        unit.parent.mkdir(parents=True)
        unit.write_text("# Written by `d7agent service install`\n")
        assert "Removed" in home.run("service", "uninstall", environment=nowhere, check=True).stdout
        assert not unit.exists()


def test_bad_usage_is_two_lines() -> None:
    """A missing or unknown verb is a usage error."""
    with Live() as home:
        for arguments in ([], ["instal"], ["install", "now"]):
            done = home.run("service", *arguments)
            assert (done.returncode, len(done.stderr.splitlines())) == (2, 2)
