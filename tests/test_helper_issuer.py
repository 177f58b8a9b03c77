import re
import socket
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from d7agent import __version__
from d7agent.core.jobs import Failed, Granted, Login, Prove, Proved
from d7agent.core.model import Secret
from d7agent.helper.answers import Issued
from d7agent.helper.faults import JobFault
from d7agent.helper.issuer import login, prove
from d7agent.helper.session import Limits
from d7agent.helper.stores import Application
from d7agent.sandbox import DEFAULT_ID, DEFAULT_SECRET, Sandbox, Settings
from d7agent.sandbox.tokens import READY_TOKEN
from tests.support.helper import NOW, Finished, finish_job, folder, shown, target
from tests.support.tcp import Tcp, says, silent

RIGHT = Application(DEFAULT_ID, Secret(DEFAULT_SECRET))
HTTP_200 = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BODY = b'{"access_token":"a.b.c"}'


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    """One sandbox for all tests that only ask; each sets its own faults."""
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def box(shared: Sandbox) -> Sandbox:
    """The shared sandbox, healthy again and with its counts at nil."""
    shared.clear()
    shared.reset_stats()
    return shared


def failure(url: str, application: Application = RIGHT, limit: float = 10) -> Failed:
    """How a login failed, asked for in this process."""
    with pytest.raises(JobFault) as fault:
        login(url, application, limit)
    assert DEFAULT_SECRET not in str(fault.value.failed)
    return fault.value.failed


def test_a_login_is_a_multipart_form(box: Sandbox) -> None:
    """One POST in the form of D7's own samples, with our name and version; the token and D7's date come back."""
    issued = login(box.url, RIGHT)
    assert isinstance(issued, Issued)
    assert issued.access_token.reveal().count(".") == 2
    assert issued.date is not None
    stats = box.stats
    assert (stats.logins, stats.logins_ok) == (1, 1)
    assert stats.user_agents == [f"d7agent/{__version__}"]
    assert [kind.partition(";")[0] for kind in stats.content_types] == ["multipart/form-data"]


def test_a_base_url_may_have_a_path() -> None:
    """A gateway's path comes before D7's own, and the form's fields are as D7 names them."""
    with Tcp(says(HTTP_200 + b"Content-Length: 24\r\n\r\n" + BODY)) as server:
        login(f"http://127.0.0.1:{server.port}/gateway/d7/", RIGHT)
    head = server.asked[0]
    assert head.startswith(b"POST /gateway/d7/auth/v1/login/application HTTP/1.1\r\n")
    assert re.search(rb'name="client_id"\r\n\r\n' + DEFAULT_ID.encode() + rb"\r\n", head)
    assert b"filename" not in head


def test_secrets_with_strange_letters_arrive_as_they_are() -> None:
    """Quotes, percent signs and letters beyond ASCII are sent as UTF-8, untouched."""
    with Tcp(says(HTTP_200 + b"Content-Length: 24\r\n\r\n" + BODY)) as server:
        login(f"http://127.0.0.1:{server.port}", Application("i&d", Secret('pä"%26+s')))
    assert 'pä"%26+s\r\n'.encode() in server.asked[0]


ANSWERS: list[tuple[str, str]] = [
    ("unauthorized", "refused"),
    ("not-found", "refused"),
    ("not-found-html", "http_status"),
    ("forbidden", "refused"),
    ("forbidden-html", "http_status"),
    ("bad-request", "refused"),
    ("invalid", "refused"),
    ("string-detail", "refused"),
    ("rate-limited", "rate_limited"),
    ("server-error", "http_status"),
    ("unavailable:after=3", "http_status"),
    ("redirect", "http_status"),
    ("redirect:status=302", "http_status"),
    ("not-json", "bad_reply"),
    ("empty", "bad_reply"),
    ("not-utf8", "bad_reply"),
    ("json-nested", "bad_reply"),
    ("json-list", "bad_reply"),
    ("token-missing", "bad_reply"),
    ("token-empty", "bad_reply"),
    ("token-null", "bad_reply"),
    ("token-number", "bad_reply"),
    ("token-type", "bad_reply"),
    ("duplicate-keys", "bad_reply"),
    ("token-control", "bad_reply"),
    ("token-too-large:size=20000", "bad_reply"),
    ("token-too-large", "bad_reply"),
    ("truncated", "bad_reply"),
    ("truncated:keep=0", "bad_reply"),
    ("too-large", "bad_reply"),
    ("too-large:announce=yes", "bad_reply"),
    ("gzip-bomb", "bad_reply"),
    ("close", "connect"),
    ("reset", "connect"),
]


@pytest.mark.parametrize(("fault", "reason"), ANSWERS)
def test_every_answer_is_sorted(box: Sandbox, fault: str, reason: str) -> None:
    """Each answer of D7, or of what stands before it, over a real connection; one request, no second try."""
    box.faults.add(fault)
    failed = failure(box.url)
    assert failed.reason == reason
    assert failed.hint
    assert box.stats.requests == 1
    assert box.stats.redirects_followed == 0


@pytest.mark.parametrize("fault", ["date-missing", "date-absurd"])
def test_a_token_without_a_usable_date_is_taken(box: Sandbox, fault: str) -> None:
    """The Date header is a help, not a condition."""
    box.faults.add(fault)
    assert login(box.url, RIGHT).date is None


def test_wrong_secret_is_told_with_d7s_words(box: Sandbox) -> None:
    """Code and status of D7 are in the reply, and the secret that was tried is not."""
    failed = failure(box.url, Application(DEFAULT_ID, Secret("wr0ng-secret")))
    assert failed.reason == "refused"
    assert failed.status in (401, 404)
    assert failed.code
    assert failed.code in failed.message
    assert "wr0ng-secret" not in str(failed)


def test_gzip_is_understood() -> None:
    """An answer may come compressed."""
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(BODY) + packer.flush()
    reply = HTTP_200 + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
    with Tcp(says(reply)) as server:
        assert shown(login(f"http://127.0.0.1:{server.port}", RIGHT).access_token) == "a.b.c"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (HTTP_200 + b"Content-Encoding: gzip\r\n\r\nnot gzip at all", "bad_reply"),
        (HTTP_200 + b"Content-Encoding: gzip\r\n\r\n" + zlib.compress(BODY, wbits=31)[:-9], "bad_reply"),
        (HTTP_200 + b"Content-Encoding: br\r\n\r\nxx", "bad_reply"),
        (HTTP_200 + b"Content-Encoding: gzip, gzip, gzip\r\n\r\nxx", "bad_reply"),
        (HTTP_200 + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", "bad_reply"),
        (HTTP_200 + b"Transfer-Encoding: chunked\r\n\r\n18\r\n{", "bad_reply"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "bad_reply"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "bad_reply"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", "bad_reply"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "bad_reply"),
        (b"", "connect"),
    ],
)
def test_what_is_no_answer(reply: bytes, reason: str) -> None:
    """Broken compression, chunks, headers and other protocols end in a sorted failure."""
    with Tcp(says(reply)) as server:
        assert failure(f"http://127.0.0.1:{server.port}").reason == reason


def test_nobody_listens() -> None:
    """A refused connection says who refused it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    failed = failure(f"http://127.0.0.1:{port}")
    assert failed.reason == "connect"
    assert "127.0.0.1" in failed.message
    assert "refused" in failed.message


def test_an_unknown_name() -> None:
    """A name that does not resolve (RFC 6761: .invalid never does) is a DNS failure with the name in it."""
    failed = failure("https://d7.invalid")
    assert failed.reason == "dns"
    assert "d7.invalid" in failed.message


def test_plain_http_to_another_machine_is_never_tried() -> None:
    """The secret does not leave this machine in the clear."""
    assert failure("http://192.0.2.1").invalid == "base_url"


def ask(tmp_path: Path, url: str, seconds: float = 15, env: dict[str, str] | None = None) -> Finished:
    """A login by a real helper, with the sandbox's credential in a folder and an overall limit."""
    files = folder(tmp_path / "credential", client_id=DEFAULT_ID, client_secret=DEFAULT_SECRET)
    job = Login(target(f"directory:{files}", base_url=url), NOW)
    return finish_job(job, env=env, limits=Limits(login=seconds))


@pytest.mark.parametrize("fault", ["hang", "hang:where=headers", "hang:where=body", "drip:rate=20"])
def test_the_total_limit_ends_everything(box: Sandbox, tmp_path: Path, fault: str) -> None:
    """A server that hangs anywhere, or drips, is left behind when the time is up, and the helper is gone as well."""
    box.faults.add(fault)
    done = ask(tmp_path, box.url, 0.6)
    assert isinstance(done.reply, Failed)
    assert done.reply.reason == "timeout"
    assert done.seconds < 5
    box.drop_connections()


def test_a_connection_that_never_stands_ends_in_time(tmp_path: Path) -> None:
    """A full backlog answers no SYN: the total limit holds for connecting too."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        done = ask(tmp_path, f"http://127.0.0.1:{listener.getsockname()[1]}", 0.6)
        for filler in fillers:
            filler.close()
    assert isinstance(done.reply, Failed)
    assert done.reply.reason == "timeout"


def test_tls_with_our_own_ca(tmp_path: Path) -> None:
    """SSL_CERT_FILE names a CA to trust, and the login goes over TLS."""
    with Sandbox(Settings(tls=True)) as box:
        reply = ask(tmp_path, box.url, env={"SSL_CERT_FILE": str(box.ca_file)}).reply
    assert isinstance(reply, Granted)


@pytest.mark.parametrize(
    ("certificate", "trusted", "hint"),
    [("good", False, "SSL_CERT_FILE"), ("expired", True, "clock"), ("wrong-host", True, "base_url")],
)
def test_tls_that_cannot_be_trusted(tmp_path: Path, certificate: str, trusted: bool, hint: str) -> None:
    """An unknown CA, an expired certificate and another host's each have their own remedy; no login is sent."""
    with Sandbox(Settings(tls=True, certificate=certificate)) as box:  # type: ignore[arg-type]
        env = {"SSL_CERT_FILE": str(box.ca_file)} if trusted else {}
        reply = ask(tmp_path, box.url, env=env).reply
        assert box.stats.logins == 0
    assert isinstance(reply, Failed)
    assert reply.reason == "tls"
    assert hint in reply.hint


def test_a_ca_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """OpenSSL passes over a missing SSL_CERT_FILE without a word; we do not."""
    with Sandbox(Settings(tls=True)) as box:
        reply = ask(tmp_path, box.url, env={"SSL_CERT_FILE": "/nonexistent/ca.pem"}).reply
    assert isinstance(reply, Failed)
    assert "/nonexistent/ca.pem" in reply.hint


def test_https_to_a_server_without_tls() -> None:
    """A port that answers in plain words does not speak TLS."""
    with Tcp(says(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        assert failure(f"https://127.0.0.1:{server.port}").reason == "tls"


def proxied(tmp_path: Path, answer: bytes, **env: str) -> tuple[Failed, list[bytes]]:
    """A login to a host that only a proxy can reach, and what the proxy was asked."""
    with Tcp(says(answer)) as server:
        proxy = {"HTTPS_PROXY": f"http://me:p%40ss@127.0.0.1:{server.port}"}
        reply = ask(tmp_path, "https://d7.invalid", env=proxy | env).reply
    assert isinstance(reply, Failed)
    return reply, server.asked


def test_a_proxy_is_asked_for_a_tunnel(tmp_path: Path) -> None:
    """Through HTTPS_PROXY goes a CONNECT with the proxy's own password, and nothing of the login before TLS stands."""
    reply, asked = proxied(tmp_path, b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
    assert asked[0].startswith(b"CONNECT d7.invalid:443 HTTP/1.")
    assert b"Basic bWU6cEBzcw==" in asked[0]
    assert DEFAULT_SECRET.encode() not in asked[0]
    assert reply.reason == "connect"
    assert "407" in reply.message
    assert "p@ss" not in str(reply)


def test_a_proxy_that_ends_the_tunnel(tmp_path: Path) -> None:
    """A tunnel that leads to no TLS is a failure of the way, not of the credential."""
    reply, _ = proxied(tmp_path, b"HTTP/1.1 200 OK\r\n\r\nrubbish that is no TLS at all, certainly not")
    assert reply.reason in ("tls", "connect")
    assert not reply.permanent


def test_a_proxy_whose_name_is_unknown(tmp_path: Path) -> None:
    """The proxy is named, not D7, when it is the proxy that cannot be found."""
    reply, asked = proxied(tmp_path, b"", HTTPS_PROXY="http://proxy.invalid:1")
    assert asked == []
    assert reply.reason == "dns"
    assert "proxy.invalid" in reply.message


def test_no_proxy_goes_straight(tmp_path: Path) -> None:
    """NO_PROXY keeps the proxy out of it."""
    reply, asked = proxied(tmp_path, b"", NO_PROXY=".invalid")
    assert asked == []
    assert reply.reason == "dns"
    assert "d7.invalid" in reply.message


def test_a_good_token_is_proved(box: Sandbox) -> None:
    """One GET of the balance with the token as a bearer."""
    proof = prove(box.url, Secret(READY_TOKEN))
    assert (proof.works, proof.refused, proof.status) == (True, False, 200)
    assert proof.body
    assert box.stats.balances == 1


def test_a_bad_token_is_refuted(box: Sandbox) -> None:
    """401 with one of D7's token codes."""
    proof = prove(box.url, Secret("no.such.token"))
    assert (proof.works, proof.refused, proof.status) == (False, True, 401)
    assert proof.code == "ACCESS_TOKEN_SIGNATURE_VERIFICATION_FAILED"


def test_prove_as_a_job(box: Sandbox) -> None:
    """The helper answers Proved, or Failed where D7 itself said nothing."""
    job = Prove(box.url, Secret(READY_TOKEN))
    assert isinstance(finish_job(job).reply, Proved)
    box.faults.add("server-error:on=api")
    reply = finish_job(job).reply
    assert isinstance(reply, Failed)
    assert reply.reason == "http_status"


def test_a_tls_handshake_that_hangs_ends_in_time(tmp_path: Path) -> None:
    """Something that accepts and says nothing is ended by the total limit."""
    with Tcp(silent) as server:
        done = ask(tmp_path, f"https://127.0.0.1:{server.port}", 0.6)
    assert isinstance(done.reply, Failed)
    assert done.reply.reason == "timeout"


def test_the_form_is_what_curl_reads_back(box: Sandbox) -> None:
    """The sandbox takes the very request D7's curl sample makes, so that both sides of these tests mean the same."""
    form = ["-F", f"client_id={DEFAULT_ID}", "-F", f"client_secret={DEFAULT_SECRET}"]
    curl = ["curl", "-sS", "--noproxy", "*", *form, f"{box.url}/auth/v1/login/application"]
    assert b"access_token" in subprocess.run(curl, capture_output=True, check=True, timeout=10).stdout
