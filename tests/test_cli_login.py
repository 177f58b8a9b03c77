import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from d7agent.cli import credential
from tests.support import cli, fakeagent
from tests.support.fakeagent import FakeAgent
from tests.support.terminal import Terminal

ID, SECRET = "client-id-0123", "S3CRET-never-shown"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A user's home."""
    with cli.short_folder() as path:
        yield path


@pytest.fixture
def d7agent(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> cli.Inside:
    """The command line, run by a user who lives in the folder."""
    return cli.inside(folder, capfd, monkeypatch)


def person(folder: Path, *line: str) -> Terminal:
    """A person who types this command line at a terminal."""
    return Terminal([*cli.COMMAND, *line], cli.environment(folder))


def test_login_asks_and_does_not_show_the_secret(folder: Path) -> None:
    """The client id appears as it is typed, the secret does not; both reach the agent and no argv or environment."""
    with FakeAgent(cli.own_socket(folder)) as agent, person(folder, "login") as terminal:
        terminal.until("Client id: ")
        terminal.type(f"{ID}\n")
        terminal.until("Client secret: ")
        for name in ("cmdline", "environ"):
            assert SECRET.encode() not in Path(f"/proc/{terminal.process.pid}/{name}").read_bytes()
        terminal.type(f"{SECRET}\n")
        assert terminal.wait() == 0
        assert ID in terminal.shown
        assert SECRET not in terminal.shown
        assert "Logged in: profile default." in terminal.shown
    assert agent.asked("StoreCredential") == [{"profile": "default", "client_id": ID, "client_secret": SECRET}]


def test_login_asks_for_a_ready_made_token_without_showing_it(folder: Path) -> None:
    """`--token`: one hidden question; what was pasted is cleaned."""
    with FakeAgent(cli.own_socket(folder)) as agent, person(folder, "login", "work", "--token") as terminal:
        terminal.until("Access token: ")
        terminal.type(f" 'Bearer {SECRET}' \n")
        assert terminal.wait() == 0
        assert SECRET not in terminal.shown
    assert agent.asked("StoreCredential") == [{"profile": "work", "access_token": SECRET}]


def test_a_person_who_presses_ctrl_c_gets_the_terminal_back(folder: Path) -> None:
    """Status 130, nothing stored, and the echo is on again."""
    with FakeAgent(cli.own_socket(folder)) as agent, person(folder, "login", "--token") as terminal:
        terminal.until("Access token: ")
        terminal.interrupt()
        assert terminal.wait() == 130
        assert "Traceback" not in terminal.shown
        assert agent.asked("StoreCredential") == []


@pytest.mark.parametrize(
    ("line", "stdin", "sent"),
    [
        ("login --stdin", f"{ID}\n{SECRET}\n", {"profile": "default", "client_id": ID, "client_secret": SECRET}),
        ("login --stdin", f"\n{ID} \r\n'{SECRET}'", {"profile": "default", "client_id": ID, "client_secret": SECRET}),
        ("login work --token --stdin", f"Bearer {SECRET}\n", {"profile": "work", "access_token": SECRET}),
        ("login -p work --token --stdin", f"{SECRET}\n", {"profile": "work", "access_token": SECRET}),
        (
            "login --token --stdin --no-verify --base-url http://localhost:1 --store directory:/d",
            SECRET,
            {
                "profile": "default",
                "access_token": SECRET,
                "base_url": "http://localhost:1",
                "store": "directory:/d",
                "verify": False,
            },
        ),
    ],
)
def test_what_is_piped_in_reaches_the_agent_clean(
    folder: Path, d7agent: cli.Inside, line: str, stdin: str, sent: dict[str, object]
) -> None:
    """The scripts' way: id and secret a line each, or a token; nothing but what was given is sent."""
    with FakeAgent(cli.own_socket(folder)) as agent:
        run = d7agent(*line.split(), stdin=stdin)
    assert (run.status, run.err) == (0, "")
    assert SECRET not in run.out
    assert agent.asked("StoreCredential") == [sent]


@pytest.mark.parametrize(
    ("line", "stdin"),
    [
        ("login --stdin", ""),
        ("login --stdin", f"{SECRET}\n"),
        ("login --stdin", f"{ID}\n{SECRET}\nmore\n"),
        ("login --stdin", f"{ID}\n{SECRET}\x07\n"),
        ("login --stdin", f"{ID}\n{'S' * 17_000}\n"),
        ("login --stdin", f"{ID}\n''\n"),
        ("login --token --stdin", f"{SECRET}\n{SECRET}\n"),
        ("login", f"{ID}\n{SECRET}\n"),
        ("login --token", SECRET),
        ("login --from-env", SECRET),
    ],
)
def test_a_wrong_input_stores_nothing_and_repeats_nothing(
    folder: Path, d7agent: cli.Inside, line: str, stdin: str
) -> None:
    """Status 2, two lines that say what was expected, and no call."""
    with FakeAgent(cli.own_socket(folder)) as agent:
        run = d7agent(*line.split(), stdin=stdin)
    assert (run.status, run.out, cli.is_two_lines(run.err)) == (2, "", True)
    assert SECRET not in run.err
    assert agent.asked("StoreCredential") == []


def test_login_takes_the_credential_from_the_environment(
    folder: Path, d7agent: cli.Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--from-env`: id and secret, else the ready-made token, which `--token` prefers."""
    monkeypatch.setenv("D7_API_TOKEN", "tok")
    with FakeAgent(cli.own_socket(folder)) as agent:
        assert d7agent("login", "--from-env").status == 0
        monkeypatch.setenv("D7_CLIENT_ID", ID)
        monkeypatch.setenv("D7_CLIENT_SECRET", SECRET)
        assert d7agent("login", "--from-env").status == 0
        assert d7agent("login", "--from-env", "--token").status == 0
    assert agent.asked("StoreCredential") == [
        {"profile": "default", "access_token": "tok"},
        {"profile": "default", "client_id": ID, "client_secret": SECRET},
        {"profile": "default", "access_token": "tok"},
    ]


def test_login_names_the_agents_default_profile(folder: Path, d7agent: cli.Inside) -> None:
    """Without a name it is the one that the agent's configuration says."""
    with FakeAgent(cli.own_socket(folder), GetStatus=fakeagent.status(default_profile="alerts")) as agent:
        d7agent("login", "--token", "--stdin", stdin="tok")
        d7agent("logout", "--yes")
    assert agent.asked("StoreCredential")[0]["profile"] == "alerts"
    assert agent.asked("ForgetCredential") == [{"profile": "alerts"}]


@pytest.mark.parametrize("store", ["command:pass show d7", "environment", "environment:PROD_", "directory:%d"])
def test_nothing_is_asked_where_the_store_has_the_secret(folder: Path, d7agent: cli.Inside, store: str) -> None:
    """Such a credential is proved where it is, whether the store is given now or was before; no terminal is needed."""
    known = fakeagent.status(fakeagent.profile(store=store))
    answer = {"parameters": {"profile": fakeagent.profile(store=store)}}
    with FakeAgent(cli.own_socket(folder), StoreCredential=answer) as agent:
        run = d7agent("login", "--store", store)
        agent.scripts["GetStatus"] = known
        again = d7agent("login")
    assert (run.status, again.status, run.err) == (0, 0, "")
    assert agent.asked("StoreCredential") == [{"profile": "default", "store": store}, {"profile": "default"}]
    assert "It stays where it is: " in run.out
    assert "pass show" not in run.out


def test_a_folder_is_asked_for_only_where_it_can_be_written(folder: Path) -> None:
    """A private folder, there or to be made, is filled by `login`; a mount of secrets is only read."""
    (folder / "mount").mkdir()
    (folder / "mount" / "..data").symlink_to("..2026")
    assert credential.takes_secrets(f"directory:{folder}")
    assert credential.takes_secrets(f"directory:{folder}/new/er")
    assert not credential.takes_secrets(f"directory:{folder}/mount")
    assert not credential.takes_secrets("directory:/run/credentials/d7agent.service")
    assert not credential.takes_secrets("directory:/proc/self")
    assert not credential.takes_secrets("directory:%d")
    assert credential.takes_secrets("keyring:keyring.backends.SecretService.Keyring")


def test_success_says_what_was_proved_where_it_is_kept_and_what_comes_next(folder: Path, d7agent: cli.Inside) -> None:
    """The four things a user wants to know, byte for byte."""
    with FakeAgent(cli.own_socket(folder)):
        run = d7agent("login", "--token", "--stdin", stdin="tok")
        unproved = d7agent("login", "--token", "--stdin", "--no-verify", stdin="tok")
    assert run.out == (
        "Logged in: profile default.\n"
        "D7 at https://api.d7networks.com accepted the credential; the agent holds a token good for 59 min.\n"
        "It is kept in: keyring:keyring.backends.SecretService.Keyring.\n"
        "Next: d7agent header | curl -H @- https://api.d7networks.com/messages/v1/balance\n"
    )
    assert "D7 was not asked" in unproved.out


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            fakeagent.error("CredentialRejected", "D7 refuses the login", code="APPLICATION_NOT_EXISTS"),
            "D7 answered APPLICATION_NOT_EXISTS: D7 refuses the login. Nothing was stored",
        ),
        (
            fakeagent.error(
                "CredentialRejected", "D7 answered 404 APPLICATION_NOT_EXISTS.", code="APPLICATION_NOT_EXISTS"
            ),
            "D7 answered 404 APPLICATION_NOT_EXISTS. Nothing was stored",
        ),
        (fakeagent.error("TokenUnavailable", "connect timed out"), "connect timed out. Nothing was stored"),
        (fakeagent.error("StoreUnavailable", "locked; nothing was stored"), "locked; nothing was stored"),
        (fakeagent.error("StoreUnavailable", "stored, but no file"), "stored, but no file"),
    ],
)
def test_failure_says_what_d7_answered_and_that_nothing_was_stored(
    folder: Path, d7agent: cli.Inside, answer: dict[str, object], said: str
) -> None:
    """One line with both, in the agent's own words where it says so itself."""
    with FakeAgent(cli.own_socket(folder), StoreCredential=answer):
        run = d7agent("login", "--stdin", stdin=f"{ID}\n{SECRET}\n")
    assert run.err == f"d7agent: error: {said}\nd7agent: hint: do better\n"
    assert SECRET not in run.err


def test_an_agent_that_goes_during_login_leaves_it_open(folder: Path, d7agent: cli.Inside) -> None:
    """Nobody claims that nothing was stored when that is not known."""
    with FakeAgent(cli.own_socket(folder), StoreCredential=fakeagent.CLOSE):
        run = d7agent("login", "--stdin", stdin=f"{ID}\n{SECRET}\n")
    assert run.status == 3
    assert "not known" in run.err
    assert "othing was stored" not in run.err


def test_a_locked_agent_is_told_before_anything_is_asked(folder: Path) -> None:
    """Status 7 without a prompt."""
    locked = fakeagent.status(locked=True)
    answer = fakeagent.error("Locked")
    with FakeAgent(cli.own_socket(folder), GetStatus=locked, GetToken=answer), person(folder, "login") as terminal:
        assert terminal.wait() == 7
        assert "Client id" not in terminal.shown


def test_logout_asks_a_person_first(folder: Path) -> None:
    """Anything but yes forgets nothing."""
    with FakeAgent(cli.own_socket(folder)) as agent:
        for answer, status in (("n", 1), ("", 1), ("y", 0), ("YES", 0)):
            with person(folder, "logout", "work") as terminal:
                terminal.until("Forget the credential of profile work? [y/N]")
                terminal.type(f"{answer}\n")
                assert terminal.wait() == status
        assert agent.asked("ForgetCredential") == [{"profile": "work"}] * 2


def test_logout_says_what_it_cannot_do_and_what_it_left(folder: Path, d7agent: cli.Inside) -> None:
    """D7 revokes nothing, and files that a person wrote are named."""
    with FakeAgent(cli.own_socket(folder), ForgetCredential={"parameters": {"kept": ["/etc/d7/client_id"]}}):
        run = d7agent("logout", "--yes")
    assert run.out == (
        "Logged out: the agent has forgotten credential and token of profile default.\n"
        "Kept, because a person wrote it: /etc/d7/client_id\n"
        "D7 cannot revoke tokens: to end those in use, delete the application in D7's control panel.\n"
    )


def test_lock_asks_twice_and_unlock_once_without_showing(folder: Path) -> None:
    """The passphrase reaches the agent and not the screen; `lock` says that a restart opens it."""
    with FakeAgent(cli.own_socket(folder)) as agent:
        with person(folder, "lock") as terminal:
            terminal.until("New passphrase: ")
            terminal.type(f"{SECRET}\n")
            terminal.until("The same again: ")
            terminal.type(f"{SECRET}\n")
            assert terminal.wait() == 0
            assert SECRET not in terminal.shown
            assert "not kept over a restart" in terminal.shown
        with person(folder, "unlock") as terminal:
            terminal.until("Passphrase: ")
            terminal.type(f"{SECRET}\n")
            assert terminal.wait() == 0
            assert SECRET not in terminal.shown
    assert agent.asked("Lock") == agent.asked("Unlock") == [{"passphrase": SECRET}]


def test_two_different_passphrases_lock_nothing(folder: Path) -> None:
    """A slip of the finger does not shut the owner out."""
    with FakeAgent(cli.own_socket(folder)) as agent, person(folder, "lock") as terminal:
        terminal.until("New passphrase: ")
        terminal.type("one\n")
        terminal.until("The same again: ")
        terminal.type("two\n")
        assert terminal.wait() == 2
        assert "differ" in terminal.shown
    assert agent.asked("Lock") == []


def test_no_echo_means_no_question(folder: Path) -> None:
    """Where the terminal's echo cannot be turned off, a secret is not asked for at all."""
    with FakeAgent(cli.own_socket(folder)) as agent:
        run = cli.run(["lock"], cli.environment(folder), stdin="phrase\n", command=["setsid", "-w", *cli.COMMAND])
    assert (run.status, run.out, cli.is_two_lines(run.err)) == (2, "", True)
    assert agent.asked("Lock") == []


def test_secrets_are_in_no_argv_of_the_documentation() -> None:
    """No option of `login` takes a secret as its value."""
    done = subprocess.run([*cli.COMMAND, "login", "--help"], capture_output=True, text=True, check=True, timeout=20)
    values = [
        line.split()[1]
        for line in done.stdout.splitlines()
        if line.strip().startswith("--") and line.split()[1].isupper()
    ]
    assert values == ["URL", "STORE", "PATH"]
