"""The table of faults, D7's part: what its answers and the way to it can do to a login, one row a fault.

Each row meets a profile without a token, in a real agent whose helpers ask a real HTTP server.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

from d7agent.client.blocking import AgentError
from d7agent.sandbox import DEFAULT_SECRET, Sandbox, Settings
from tests.support import d7client
from tests.support.live import Live
from tests.support.scene import Scene, failed_once, is_fresh
from tests.support.tcp import Tcp, says

# What the agent does next: tries again by itself; waits until D7's own time; rests until the credential changes or
# someone runs `renew`; or nothing is wrong.
Then = Literal["again", "waits", "rests", "served"]
UNAVAILABLE, REJECTED = 6, 5  # exit statuses
PORTAL = "a proxy or a login page"
names = (f"p{number}" for number in itertools.count())


class Row(NamedTuple):
    """A fault; the exit status of `token` and words of its two lines; what comes next; the logins D7 has seen then."""

    fault: str
    exit: int
    words: tuple[str, ...]
    then: Then
    logins: int = 2


ROWS = (
    Row("unauthorized", UNAVAILABLE, ("HTTP 401", "ACCESS_TOKEN_SIGNATURE_VERIFICATION_FAILED"), "again"),
    Row("expired", UNAVAILABLE, ("HTTP 401", "ACCESS_TOKEN_EXPIRED"), "again"),
    Row("not-found", REJECTED, ("HTTP 404", "APPLICATION_NOT_EXISTS", "d7agent login"), "rests", 1),
    Row("forbidden", REJECTED, ("HTTP 403", "ACCESS_DENIED", "d7agent login"), "rests", 1),
    Row("bad-request", REJECTED, ("HTTP 400", "BAD_REQUEST"), "rests", 1),
    Row("invalid", REJECTED, ("HTTP 422", "body.client_id: field required"), "rests", 1),
    Row("string-detail", REJECTED, ("HTTP 400", "There was an error parsing the body"), "rests", 1),
    Row("invalid:status=400", REJECTED, ("HTTP 400", "body.client_id: field required"), "rests", 1),
    Row("string-detail:status=401", UNAVAILABLE, ("HTTP 401", "There was an error"), "again"),
    Row("invalid:status=401", UNAVAILABLE, ("HTTP 401", "body.client_id: field required"), "again"),
    Row("string-detail:status=403", REJECTED, ("HTTP 403", "There was an error", "d7agent login"), "rests", 1),
    Row("invalid:status=403", REJECTED, ("HTTP 403", "body.client_id: field required"), "rests", 1),
    Row("string-detail:status=404", REJECTED, ("HTTP 404", "There was an error", "d7agent login"), "rests", 1),
    Row("invalid:status=404", REJECTED, ("HTTP 404", "body.client_id: field required"), "rests", 1),
    Row("string-detail:status=422", REJECTED, ("HTTP 422", "There was an error"), "rests", 1),
    Row("status:status=422,code=NOT_VALID", REJECTED, ("HTTP 422", "NOT_VALID"), "rests", 1),
    Row("status:status=400", UNAVAILABLE, ("HTTP 400 with text/html", PORTAL), "again"),
    Row("status:status=401", UNAVAILABLE, ("HTTP 401 with text/html", PORTAL), "again"),
    Row("status:status=422", UNAVAILABLE, ("HTTP 422 with text/html", PORTAL), "again"),
    Row("not-found-html", UNAVAILABLE, ("HTTP 404 with text/html", PORTAL), "again"),
    Row("forbidden-html", UNAVAILABLE, ("HTTP 403 with text/html", PORTAL), "again"),
    Row("rate-limited:after=3600", UNAVAILABLE, ("HTTP 429", "tried again by itself"), "waits", 1),
    Row("rate-limited:after=3600,form=date", UNAVAILABLE, ("HTTP 429",), "waits", 1),
    Row("rate-limited:form=none", UNAVAILABLE, ("HTTP 429",), "again"),
    Row("rate-limited:after=999999", UNAVAILABLE, ("HTTP 429",), "waits", 1),
    Row("rate-limited:after=1e9", UNAVAILABLE, ("HTTP 429",), "again"),
    Row("rate-limited:after=-5", UNAVAILABLE, ("HTTP 429",), "again"),
    Row("string-detail:status=429", UNAVAILABLE, ("HTTP 429", "There was an error"), "again"),
    Row("string-detail:status=503", UNAVAILABLE, ("HTTP 503", "There was an error"), "again"),
    Row("unavailable:after=3600", UNAVAILABLE, ("HTTP 503", "tried again by itself"), "waits", 1),
    Row("unavailable", UNAVAILABLE, ("HTTP 503",), "again"),
    Row("server-error", UNAVAILABLE, ("HTTP 500",), "again"),
    Row("status:status=408", UNAVAILABLE, ("HTTP 408",), "again"),
    Row("status:status=425", UNAVAILABLE, ("HTTP 425",), "again"),
    Row("status:status=502", UNAVAILABLE, ("HTTP 502",), "again"),
    Row("status:status=504", UNAVAILABLE, ("HTTP 504",), "again"),
    Row("status:status=204", UNAVAILABLE, ("HTTP 204",), "again"),
    Row("status:status=418", UNAVAILABLE, ("HTTP 418",), "again"),
    Row("redirect", UNAVAILABLE, ("HTTP 307", "not followed"), "again"),
    Row("redirect:status=301", UNAVAILABLE, ("HTTP 301", "not followed"), "again"),
    Row("redirect:status=302", UNAVAILABLE, ("HTTP 302", "not followed"), "again"),
    Row("redirect:status=303", UNAVAILABLE, ("HTTP 303", "not followed"), "again"),
    Row("redirect:status=308", UNAVAILABLE, ("HTTP 308", "not followed"), "again"),
    Row("not-json", UNAVAILABLE, ("no JSON", PORTAL), "again"),
    Row("empty", UNAVAILABLE, ("is empty",), "again"),
    Row("not-utf8", UNAVAILABLE, ("not UTF-8",), "again"),
    Row("json-nested", UNAVAILABLE, ("nested too deeply",), "again"),
    Row("json-list", UNAVAILABLE, ("no JSON object",), "again"),
    Row("token-missing", UNAVAILABLE, ("no access_token",), "again"),
    Row("token-null", UNAVAILABLE, ("no access_token",), "again"),
    Row("token-number", UNAVAILABLE, ("no access_token",), "again"),
    Row("token-empty", UNAVAILABLE, ("is empty",), "again"),
    Row("token-control", UNAVAILABLE, ("characters that fit no header line",), "again"),
    Row("token-too-large:size=20000", UNAVAILABLE, ("too large",), "again"),
    Row("token-too-large", UNAVAILABLE, ("larger than 1024 KiB",), "again"),
    Row("token-type", UNAVAILABLE, ("token_type is not bearer",), "again"),
    Row("token-type:value=", UNAVAILABLE, ("token_type is not bearer",), "again"),
    Row("token-type:form=null", UNAVAILABLE, ("token_type is not bearer",), "again"),
    Row("token-type:form=number", UNAVAILABLE, ("token_type is not bearer",), "again"),
    Row("token-type:form=list", UNAVAILABLE, ("token_type is not bearer",), "again"),
    Row("token-type:form=missing", 0, (), "served", 1),
    Row("token-type:value=Bearer", 0, (), "served", 1),
    Row("duplicate-keys", UNAVAILABLE, ("names a key twice",), "again"),
    Row("exp-past", UNAVAILABLE, ("already expired", "clock"), "again"),
    Row("exp-negative", UNAVAILABLE, ("already expired",), "again"),
    Row("exp-string", 0, (), "served", 1),
    Row("exp-float", 0, (), "served", 1),
    Row("exp-year-9999", 0, (), "served", 1),
    Row("exp-huge", 0, (), "served", 1),
    Row("iat-future", 0, (), "served", 1),
    Row("date-absurd", 0, (), "served", 1),
    Row("date-missing", 0, (), "served", 1),
    Row("date-skew:seconds=-3600", 0, (), "served", 1),
    Row("slow:delay=1", 0, (), "served", 1),
    Row("truncated", UNAVAILABLE, ("broke off",), "again"),
    Row("close", UNAVAILABLE, ("closed the connection without an answer",), "again"),
    Row("reset", UNAVAILABLE, ("closed the connection without an answer",), "again"),
    Row("too-large", UNAVAILABLE, ("larger than 1024 KiB",), "again"),
    Row("too-large:announce=yes", UNAVAILABLE, ("larger than 1024 KiB",), "again"),
    Row("gzip-bomb", UNAVAILABLE, ("larger than 1024 KiB",), "again"),
)


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a CA that the agent trusts."""
    folder = tmp_path_factory.mktemp("tls")
    with Sandbox(Settings(tls=True, tls_dir=folder)):
        yield folder


@pytest.fixture(scope="module")
def scene(trusted: Path) -> Iterator[Scene]:
    """One agent for all rows."""
    with Live(SSL_CERT_FILE=str(trusted / "sandbox-ca.pem")) as live:
        live.start()
        yield Scene(live)


def works(box: Sandbox, scene: Scene, name: str) -> bool:
    """Whether the agent's token is one that D7 accepts."""
    with scene.agent() as agent:
        return d7client.balance(box, agent.token(name, max_wait=0)).status == 200


def refusal(scene: Scene, name: str) -> AgentError:
    """What a caller without patience is told. Asked in this process: the next attempt comes within 0.75 s."""
    with scene.agent() as agent, pytest.raises(AgentError) as caught:
        agent.token(name, max_wait=0)
    return caught.value


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.fault)
def test_d7(scene: Scene, row: Row) -> None:
    """The caller hears of the fault in these words; the agent does what the row says, with so many logins in all."""
    name = next(names)
    endless = row.then in ("waits", "rests")
    with Sandbox(Settings(lifetime=600)) as box:
        box.faults.add(row.fault, **({} if endless else {"times": 1}))
        scene.add(name, box.url)
        scene.wait(name, failed_once)
        {"again": tried_again, "waits": waits, "rests": rests, "served": served}[row.then](scene, box, name, row)
        assert box.stats.logins == row.logins + (1 if endless else 0)
        assert box.stats.redirects_followed == 0
        assert scene.status(name)["logins_hour"] == box.stats.logins
    scene.nothing_lost()


def check_words(row: Row, code: int, text: str) -> None:
    assert code == row.exit, text
    assert [words for words in row.words if words not in text] == [], text


def tried_again(scene: Scene, box: Sandbox, name: str, row: Row) -> None:
    told = refusal(scene, name)
    check_words(row, told.exit_code, f"{told.message}\n{told.hint}")
    assert told.fields["retry_after"] >= 1
    scene.wait(name, is_fresh)
    assert works(box, scene, name)


def waits(scene: Scene, box: Sandbox, name: str, row: Row) -> None:
    done = scene.ask(name, "--max-wait", "20")
    check_words(row, done.returncode, done.stderr)
    with scene.agent() as agent, pytest.raises(AgentError) as caught:
        agent.token(name)
    assert 3500 < caught.value.fields["retry_after"] <= 3600
    recovers_by_renew(scene, box, name, row)


def rests(scene: Scene, box: Sandbox, name: str, row: Row) -> None:
    done = scene.ask(name, "--max-wait", "20")
    check_words(row, done.returncode, done.stderr)
    status = scene.status(name)
    assert status["state"] == "rejected"
    assert "refresh_at" not in status
    recovers_by_renew(scene, box, name, row)


def recovers_by_renew(scene: Scene, box: Sandbox, name: str, row: Row) -> None:
    assert box.stats.logins == row.logins
    box.clear()
    assert scene.live.run("renew", "--profile", name).returncode == 0
    assert works(box, scene, name)


def served(scene: Scene, box: Sandbox, name: str, row: Row) -> None:
    done = scene.ask(name)
    check_words(row, done.returncode, done.stderr)
    assert is_fresh(scene.status(name))
    if not row.fault.startswith("exp-huge"):  # a number that the sandbox itself cannot read
        assert works(box, scene, name)


def test_three_401_in_a_row_are_a_refusal(scene: Scene) -> None:
    """A login answered 401 three times over is a refused credential (exit 5); no fourth is made."""
    name = next(names)
    with Sandbox() as box:
        box.faults.add("unauthorized")
        scene.add(name, box.url)
        scene.wait(name, lambda profile: profile["state"] == "rejected")
        row = Row("unauthorized", REJECTED, ("HTTP 401",), "rests", 3)
        rests(scene, box, name, row)
    scene.nothing_lost()


class Tls(NamedTuple):
    """A certificate that is not to be trusted, and what the caller reads."""

    certificate: str
    ours: bool
    words: tuple[str, ...]


TLS = (
    Tls("wrong-host", True, ("certificate of 127.0.0.1 is not trusted", "for another one")),
    Tls("expired", True, ("certificate has expired", "clock")),
    Tls("good", False, ("certificate of 127.0.0.1 is not trusted", "install the CA")),
)


@pytest.mark.parametrize("row", TLS, ids=["wrong-host", "expired", "unknown-ca"])
def test_tls(scene: Scene, trusted: Path, tmp_path: Path, row: Tls) -> None:
    """A certificate that cannot be trusted gets no secret (exit 6); with a good one the agent logs in by itself."""
    name = next(names)
    folder = trusted if row.ours else tmp_path
    with Sandbox(Settings(tls=True, tls_dir=folder, certificate=row.certificate)) as bad:  # type: ignore[arg-type]
        url, port = bad.url, int(bad.url.rpartition(":")[2])
        scene.add(name, url)
        scene.wait(name, failed_once)
        told = refusal(scene, name)
        check_words(
            Row(row.certificate, UNAVAILABLE, row.words, "again"), told.exit_code, f"{told.message}\n{told.hint}"
        )
        assert bad.stats.logins == 0
    with Sandbox(Settings(tls=True, tls_dir=trusted, port=port)) as good:
        scene.wait(name, is_fresh)
        assert good.stats.logins == 1
    scene.nothing_lost()


def test_plain_http_where_tls_is_spoken(scene: Scene) -> None:
    """A port that does not speak TLS gets no secret, and the caller reads so (exit 6)."""
    name = next(names)
    with Tcp(says(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")) as plain:
        scene.add(name, f"https://127.0.0.1:{plain.port}")
        scene.wait(name, failed_once)
        told = refusal(scene, name)
        row = Row("", UNAVAILABLE, ("TLS with 127.0.0.1 failed", "check base_url"), "again")
        check_words(row, told.exit_code, f"{told.message}\n{told.hint}")
        assert not [asked for asked in plain.asked if DEFAULT_SECRET.encode() in asked]
    scene.nothing_lost()


def test_connect_refused(scene: Scene) -> None:
    """While D7 is down callers hear that it cannot be connected to (exit 6); once it is up the agent logs in once."""
    name = next(names)
    with Sandbox() as box:
        url = box.url
        box.stop()
        scene.add(name, url)
        scene.wait(name, failed_once)
        told = refusal(scene, name)
        row = Row("", UNAVAILABLE, ("cannot be connected to: Connection refused",), "again")
        check_words(row, told.exit_code, f"{told.message}\n{told.hint}")
        box.start()
        scene.wait(name, is_fresh)
        assert box.stats.logins == 1
    scene.nothing_lost()


def test_dns(scene: Scene) -> None:
    """A name that does not resolve is told with the name (exit 6); the right base URL is used at once."""
    name = next(names)
    with Sandbox() as box:
        folder = scene.add(name, "https://d7.invalid")
        scene.wait(name, failed_once)
        told = refusal(scene, name)
        row = Row("", UNAVAILABLE, ("the name of d7.invalid could not be resolved", "resolv.conf"), "again")
        check_words(row, told.exit_code, f"{told.message}\n{told.hint}")
        scene.configure(name, box.url, f"directory:{folder}")
        scene.wait(name, is_fresh)
        assert box.stats.logins == 1
    scene.nothing_lost()
