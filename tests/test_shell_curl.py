"""d7_curl in dash, bash and zsh: real curl against the sandbox, the token nowhere to be seen, one replay at most."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from d7agent.sandbox import Sandbox, Settings
from tests.support import longago
from tests.support.live import COMMAND
from tests.support.shell_library import LIBRARY, SHELLS, Place

MESSAGE = {"messages": [{"channel": "sms", "recipients": ["+1"], "content": "hello"}]}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Settings(lifetime=600)) as box:
        yield box


@pytest.fixture
def box(sandbox: Sandbox) -> Sandbox:
    sandbox.clear()
    sandbox.reset_stats()
    return sandbox


@pytest.fixture(params=SHELLS)
def place(tmp_path: Path, box: Sandbox, request: pytest.FixtureRequest) -> Place:
    """The file holds a good token, and the command would give another good one."""
    found = Place(tmp_path, request.param)
    found.env |= {"BALANCE": f"{box.url}/messages/v1/balance", "SEND": f"{box.url}/messages/v1/send"}
    found.write(box.ledger.mint("sandbox-id"))
    (tmp_path / "asked.answer").write_text(box.ledger.mint("sandbox-id") + "\n")
    (tmp_path / "message").write_text(json.dumps(MESSAGE))
    return found


def in_file(place: Place) -> str:
    """The token of the always-fresh file."""
    return (place.folder / "d7agent" / "default.env").read_text().splitlines()[0].partition("=")[2]


def refuse(box: Sandbox, place: Place) -> None:
    """The token of the file is good no more."""
    box.revoke(in_file(place))


def rejected(place: Place) -> list[str]:
    """The tokens that were reported."""
    file = place.folder / "asked.rejected"
    return file.read_text().splitlines() if file.exists() else []


def leftovers(place: Place) -> list[str]:
    """Folders that d7_curl made for itself."""
    return [path.name for path in place.folder.glob("d7agent.*")]


def test_a_call_is_made_with_the_token_of_the_file(place: Place, box: Sandbox) -> None:
    """Its answer is on stdout, byte for byte, and nothing else anywhere; the command is not asked."""
    assert '"balance"' in place.out('d7_curl -sS "$BALANCE"')
    assert place.asked == []
    assert leftovers(place) == []
    assert box.stats.balances == 1


def test_the_token_is_in_no_argument_list_and_no_environment(place: Place, box: Sandbox) -> None:
    """The kernel is asked for every program that was started, with all it was given."""
    strace = shutil.which("strace")
    assert strace, "NOT TESTED: install strace"
    trace = place.folder / "trace"
    argv = [strace, "-f", "-v", "-s", "65536", "-e", "trace=execve", "-o", str(trace), place.shell, "-c"]
    script = f'set -eua; . {LIBRARY}; d7_curl -sS "$BALANCE"; printf x | d7_curl -sS -d @- "$SEND"'
    subprocess.run([*argv, script], env=place.env, capture_output=True, check=True, timeout=50)
    text = trace.read_text()
    assert "curl" in text
    assert "XDG_RUNTIME_DIR" in text
    assert in_file(place) not in text


def test_stdin_is_the_callers(place: Place, box: Sandbox) -> None:
    """A body that is piped in arrives whole; a closed stdin does no harm."""
    sent = len(box.messages)
    place.out('d7_curl -sSf -H "Content-Type: application/json" --data-binary @- "$SEND" <"$XDG_RUNTIME_DIR/message"')
    assert len(box.messages) == sent + 1
    assert box.messages[-1]["messages"] == MESSAGE["messages"]
    assert '"balance"' in place.out('d7_curl -sS "$BALANCE" <&-')


def test_a_refused_token_is_reported_and_the_call_made_once_more(place: Place, box: Sandbox) -> None:
    """The 401 is not seen; the reported token is the refused one, whole, on the command's stdin."""
    refuse(box, place)
    script = 'd7_curl -sS -H "Content-Type: application/json" -d @"$XDG_RUNTIME_DIR/message" "$SEND"'
    assert '"request_id"' in place.out(script)
    assert place.asked == ["reject", "token"]
    assert rejected(place) == [in_file(place)]
    assert box.stats.sends == 2
    assert leftovers(place) == []


def test_the_profile_is_passed_on(place: Place, box: Sandbox) -> None:
    """D7AGENT_PROFILE names file and agent's profile alike."""
    place.write(in_file(place), name="work")
    refuse(box, place)
    place.out('d7_curl -sS "$BALANCE"', D7AGENT_PROFILE="work")
    assert place.asked == ["reject -p work", "token -p work"]


def test_there_is_no_second_replay(place: Place, box: Sandbox) -> None:
    """If the other token is refused, too, that answer is the caller's; so is curl's exit status."""
    refuse(box, place)
    box.revoke((place.folder / "asked.answer").read_text().strip())
    done = place.run('d7_curl -sS --fail-with-body "$BALANCE"')
    assert done.returncode == 22
    assert "ACCESS_TOKEN_SIGNATURE_VERIFICATION_FAILED" in done.stdout
    assert box.stats.balances == 2


@pytest.mark.parametrize("how", ["same token", "command fails"])
def test_without_another_token_the_401_is_the_answer(place: Place, box: Sandbox, how: str) -> None:
    """Once, as it came."""
    refuse(box, place)
    if how == "same token":
        (place.folder / "asked.answer").write_text(in_file(place) + "\n")
    else:
        (place.folder / "asked.status").write_text("5\n")
    assert place.out('d7_curl -sS "$BALANCE"').count("ACCESS_TOKEN_SIGNATURE_VERIFICATION_FAILED") == 1
    assert box.stats.balances == 1


@pytest.mark.parametrize("body", ["-d @-", "-T -", "-F file=@-", "-F 'file=<-'", "-T .", "-d @/dev/stdin", "-K -",
                                  "-d @$XDG_RUNTIME_DIR/fifo"])  # fmt: skip
def test_what_cannot_be_sent_twice_is_not(place: Place, box: Sandbox, body: str) -> None:
    """The 401 is seen, and the token reported all the same, so that the next call fares better."""
    refuse(box, place)
    fifo = '"$XDG_RUNTIME_DIR/fifo"'
    call = f'echo "" | d7_curl -sS -X POST {body} "$SEND"'
    done = place.run(f"mkfifo {fifo}; echo a=b >{fifo} & {call}; : <>{fifo}; wait")
    assert "ACCESS_TOKEN_SIGNATURE_VERIFICATION_FAILED" in done.stdout
    assert place.asked == ["reject"]
    assert box.stats.requests == 1
    assert leftovers(place) == []


@pytest.mark.parametrize("status", [404, 422])
def test_other_errors_are_the_callers(place: Place, box: Sandbox, status: int) -> None:
    """No report, no replay; the body arrives."""
    url = '"$SEND" -H Content-Type:application/json -d "{}"' if status == 422 else '"${BALANCE}x"'
    out = place.out(f"d7_curl -sS -w '%{{http_code}}' {url}")
    assert out.endswith(str(status))
    assert "detail" in out
    assert place.asked == []
    assert box.stats.requests == 1


def test_what_was_answered_already_is_not_asked_again(place: Place, box: Sandbox) -> None:
    """Of two calls in one command the first worked: it would be made twice."""
    refuse(box, place)
    good = (place.folder / "asked.answer").read_text().strip()
    script = f'd7_curl -sS -H "Authorization: Bearer {good}" "$BALANCE" --next -sS "$BALANCE"'
    done = place.run(script)
    assert done.returncode == 0
    assert place.asked == []


def test_the_callers_own_options_win(place: Place, box: Sandbox) -> None:
    """-o, -D, -i, -w and -q do what they do in curl; a body that went to a file is replaced by the good one."""
    refuse(box, place)
    out = place.out(
        'cd "$XDG_RUNTIME_DIR"; d7_curl -q -sS -o body -w "%{http_code}" "$BALANCE"; d7_curl -sSi "$BALANCE"'
    )
    assert out.startswith("200HTTP/")
    assert '"balance"' in (place.folder / "body").read_text()
    assert place.asked == ["reject", "token", "reject", "token"]
    out = place.out('cd "$XDG_RUNTIME_DIR"; d7_curl -sS -D head "$BALANCE"')
    assert "ACCESS_TOKEN" in out
    assert "401" in (place.folder / "head").read_text()


def test_no_token_no_call(place: Place, box: Sandbox) -> None:
    """The command's status is d7_curl's, and curl is not started."""
    (place.folder / "d7agent" / "default.env").unlink()
    (place.folder / "asked.status").write_text("7\n")
    done = place.run('d7_curl -sS "$BALANCE"; echo not reached')
    assert (done.returncode, done.stdout) == (7, "")
    assert box.stats.requests == 0


def test_without_a_place_for_the_answer_the_call_is_made_all_the_same(place: Place, box: Sandbox) -> None:
    """Only the replay is lost."""
    refuse(box, place)
    out = place.out('d7_curl -sS "$BALANCE"', D7AGENT_ENV_FILE=str(place.folder / "d7agent" / "default.env"),
                    XDG_RUNTIME_DIR="/nowhere", TMPDIR="/nowhere")  # fmt: skip
    assert "ACCESS_TOKEN" in out


def test_with_a_real_agent() -> None:
    """The sink follows the login; a token that D7 no longer takes is replaced by the agent, and the call works."""
    with Sandbox(Settings(lifetime=600)) as box, longago.logged_in(box) as live:
        profile = live.config / "profiles" / "default.toml"
        profile.write_text(profile.read_text() + '\n[[sinks]]\npath = "%t/d7agent/default.env"\n')
        live.run("reload", check=True)
        sink = live.runtime / "d7agent" / "default.env"
        while not sink.exists():
            assert live.status()["profiles"][0]["sinks"][0]["ok"]
        box.revoke_all()
        script = f"set -eu; . {LIBRARY}; d7_curl -sS {box.url}/messages/v1/balance; echo; d7_token"
        path = f"{Path(COMMAND).parent}:{live.environment['PATH']}"
        env = {**live.environment, "PATH": path}
        done = subprocess.run(["dash", "-c", script], env=env, capture_output=True, text=True, check=True, timeout=50)
        assert '"balance"' in done.stdout
        assert done.stderr == ""
        assert box.stats.logins == 2
        assert done.stdout.splitlines()[-1] == live.run("token", check=True).stdout.strip()
        live.stop()
        assert not sink.exists()
