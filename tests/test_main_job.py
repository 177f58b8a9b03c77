"""The main job, end to end: a credential goes in, a process gets a valid token out."""

import json
import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest

from d7agent.client.blocking import Agent, CredentialRejected
from d7agent.sandbox import Sandbox, Settings
from tests.support import d7client
from tests.support.live import COMMAND, Live


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(Settings(lifetime=600)) as sandbox:
        yield sandbox


@pytest.fixture
def live() -> Iterator[Live]:
    with Live() as home:
        (home.root / "cred").mkdir(mode=0o700)
        yield home


def login(live: Live, box: Sandbox, *arguments: str) -> None:
    live.login(box.url, "--store", f"directory:{live.root}/cred", *arguments)


def works(box: Sandbox, token: str) -> bool:
    return d7client.balance(box, token).status == 200


def test_login_then_token(live: Live, box: Sandbox) -> None:
    """After one login every process gets the same valid token, and D7 was asked once."""
    live.start()
    login(live, box)
    tokens = {live.run("token", check=True).stdout for _ in range(3)}
    assert len(tokens) == 1
    assert works(box, tokens.pop().strip())
    assert box.stats.logins == 1


def test_wrong_credential_stores_nothing(live: Live, box: Sandbox) -> None:
    """A login with a wrong secret exits 5, says what D7 answered, and leaves neither files nor a profile behind."""
    live.start()
    done = live.run(
        *("login", "--stdin", "--base-url", box.url, "--store", f"directory:{live.root}/cred"), text="id\nwrong\n"
    )
    assert done.returncode == 5
    assert "APPLICATION_NOT_EXISTS" in done.stderr
    assert "wrong" not in done.stdout + done.stderr + live.journal()
    assert not list((live.root / "cred").iterdir())
    assert not list(live.config.glob("profiles/*"))


def test_killed_agent_serves_the_remembered_token_without_d7(live: Live, box: Sandbox) -> None:
    """After SIGKILL, with D7 down, a new agent serves the same token at once and makes no login."""
    live.start()
    login(live, box)
    token = live.run("token", check=True).stdout
    live.kill()
    box.stop()
    live.start()
    assert live.run("token", check=True).stdout == token
    assert live.status()["profiles"][0]["logins_hour"] == 1


def test_refresh_comes_by_itself_and_is_pushed(live: Live) -> None:
    """A subscriber hears of the newer token, made before the old one expired, without anybody asking."""
    with Sandbox(Settings(lifetime=3)) as box:
        live.start()
        login(live, box)
        with Agent(str(live.socket)) as agent:
            stream = agent.stream()
            first, second = next(stream), next(stream)
        assert first["access_token"] != second["access_token"]
        assert second["serial"] == first["serial"] + 1
        assert works(box, second["access_token"])


def test_a_thousand_at_once_make_one_login(live: Live, box: Sandbox) -> None:
    """1,000 simultaneous GetToken on an agent without a token: one login, no error, one token for all."""
    live.start()
    login(live, box, "--no-verify")
    tokens: list[str] = []

    def ask() -> None:
        with Agent(str(live.socket)) as agent:
            tokens.append(agent.token())

    threads = [threading.Thread(target=ask) for _ in range(1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 1000
    assert len(set(tokens)) == 1
    assert box.stats.logins == 1


def test_logout_forgets(live: Live, box: Sandbox) -> None:
    """After `logout` there is no token, no file and no profile; the command says that D7 has no revocation."""
    live.start()
    login(live, box, "work")
    done = live.run("logout", "work", "--yes", check=True)
    assert "control panel" in done.stdout + done.stderr
    assert live.run("token", "-p", "work").returncode == 4
    assert not [path for path in (live.root / "cred").iterdir() if path.name != ".d7agent"]
    assert not list(live.config.glob("profiles/*"))


def test_two_profiles_do_not_share_a_folder(live: Live, box: Sandbox) -> None:
    """A login that would overwrite the credential of another profile is refused (exit 2); logout leaves what is its."""
    live.start()
    login(live, box)
    line = ("login", "two", "--stdin", "--base-url", box.url, "--store", f"directory:{live.root}/cred")
    done = live.run(*line, text="sandbox-id\nsandbox-secret\n")
    assert (done.returncode, "holds the credential of profile default" in done.stderr) == (2, True), done.stderr
    store = f'base_url = "{box.url}"\nstore = "directory:{live.root}/cred"\n'
    (live.config / "profiles" / "two.toml").write_text(store)
    live.run("reload", check=True)
    assert works(box, live.run("token", "-p", "two", check=True).stdout.strip())
    live.run("logout", "two", "--yes", check=True)
    live.run("renew", check=True)
    assert (live.root / "cred" / "client_secret").exists()


def test_lock_and_unlock(live: Live, box: Sandbox) -> None:
    """A locked agent hands out nothing (exit 7); a wrong passphrase is refused; the right one brings a token back."""
    live.start()
    login(live, box)
    live.run("lock", "--stdin", text="open sesame\n", check=True)
    assert live.run("token").returncode == 7
    assert not list((live.root / "cred").glob(".default.token"))
    assert live.run("lock", "--stdin", text="again\n").returncode == 7
    assert live.run("unlock", "--stdin", text="wrong\n").returncode == 8
    live.run("unlock", "--stdin", text="open sesame\n", check=True)
    assert works(box, live.run("token", check=True).stdout.strip())


def test_bad_edit_keeps_the_last_good_configuration(live: Live, box: Sandbox) -> None:
    """`reload` of a bad file fails with file and key, tokens stay, status shows the problem; a mended one clears it."""
    live.start()
    login(live, box)
    token = live.run("token", check=True).stdout
    bad = live.config / "config.toml"
    bad.write_text("defualt_profile = 'default'\n")
    done = live.run("reload")
    assert done.returncode == 1
    assert "config.toml" in done.stderr
    assert "defualt_profile" in done.stderr
    assert live.run("token", check=True).stdout == token
    assert "defualt_profile" in live.status()["agent"]["config_problems"][0]
    bad.write_text("default_profile = 'default'\n")
    live.run("reload", check=True)
    assert live.status()["agent"]["config_problems"] == []
    assert live.run("token", check=True).stdout == token


def test_sighup_reads_the_configuration_again(live: Live, box: Sandbox) -> None:
    """SIGHUP is a reload: a new profile is there for the next status of a stream."""
    live.start()
    login(live, box)
    with Agent(str(live.socket)) as agent:
        stream = agent.call("GetStatus", {}, more=True)
        next(stream)
        (live.config / "profiles" / "second.toml").write_text('store = "environment"\n')
        assert live.process is not None
        live.process.send_signal(signal.SIGHUP)
        while {profile["profile"] for profile in next(stream)["profiles"]} != {"default", "second"}:
            pass


def test_edited_credential_leads_to_a_new_login(live: Live, box: Sandbox) -> None:
    """An edit of a watched directory store is noticed: the agent logs in with what stands there now."""
    box.configure(applications={"sandbox-id": "sandbox-secret", "other-id": "other-secret"})
    live.start()
    login(live, box)
    (live.root / "cred" / "client_secret").write_text("other-secret")
    (live.root / "cred" / "client_id").write_text("other-id")
    box.wait_for(lambda stats: stats.logins_ok >= 2, timeout=10)


def test_ready_made_token_is_held_and_served(live: Live, box: Sandbox) -> None:
    """A ready-made token is proved by one balance call, stored and served; no login is made."""
    token = box.settings.ready_token
    live.start()
    live.run(
        *("login", "--token", "--stdin", "--base-url", box.url, "--store", f"directory:{live.root}/cred"),
        text=f"  'Bearer {token}'\n",
        check=True,
    )
    assert live.run("token", check=True).stdout.strip() == token
    assert (box.stats.logins, box.stats.balances) == (0, 1)


def test_rejected_application_ends_in_one_error(live: Live, box: Sandbox) -> None:
    """When D7 no longer knows the application callers hear so (exit 5) and the agent stops logging in."""
    box.configure(lifetime=2)
    live.start()
    login(live, box)
    box.configure(applications={"other": "other"})
    with Agent(str(live.socket)) as agent, pytest.raises(CredentialRejected, match="Application not exists"):
        for _ in agent.stream():
            pass
    done = live.run("token")
    assert (done.returncode, "Application not exists" in done.stderr) == (5, True)
    assert live.status()["profiles"][0]["state"] == "rejected"
    assert box.stats.logins_failed == 1


def test_watch_prints_json_lines(live: Live, box: Sandbox) -> None:
    """`watch` prints the token now and every newer one, a JSON object a line."""
    live.start()
    login(live, box)
    with subprocess.Popen([COMMAND, "watch"], env=live.environment, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        assert works(box, first["access_token"])
        watching.terminate()


def test_stop_ends_the_agent(live: Live, box: Sandbox) -> None:
    """`stop` ends the agent with status 0 and takes the socket away."""
    live.start()
    live.run("stop", check=True)
    assert live.process is not None
    assert live.process.wait(10) == 0
    live.process = None
    assert not live.socket.exists()


def test_lock_ends_a_login_under_way(live: Live, box: Sandbox) -> None:
    """A login that hangs when `lock` comes is ended: nothing of it is stored, and the agent is locked at once."""
    live.start()
    box.faults.add("hang")
    command = [COMMAND, "login", "--stdin", "--base-url", box.url, "--store", f"directory:{live.root}/cred"]
    with subprocess.Popen(
        command, env=live.environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as logging_in:
        assert logging_in.stdin is not None
        logging_in.stdin.write("sandbox-id\nsandbox-secret\n")
        logging_in.stdin.close()
        box.wait_for(lambda stats: stats.open_logins == 1, timeout=10)
        live.run("lock", "--stdin", text="open sesame\n", check=True)
        assert logging_in.wait(10) == 7
    assert not (live.root / "cred" / "client_secret").exists()


def test_two_logins_of_a_profile_come_one_after_the_other(live: Live, box: Sandbox) -> None:
    """Two `login`s at once both succeed, never at the same time, and the agent serves a token that works."""
    live.start()
    command = [COMMAND, "login", "--stdin", "--base-url", box.url, "--store", f"directory:{live.root}/cred"]
    both = [
        subprocess.Popen(command, env=live.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("sandbox-id\nsandbox-secret\n")
        process.stdin.close()
    assert [process.wait(20) for process in both] == [0, 0]
    for process in both:
        assert process.stdout is not None
        process.stdout.close()
    assert box.stats.max_open_logins == 1
    assert works(box, live.run("token", check=True).stdout.strip())
