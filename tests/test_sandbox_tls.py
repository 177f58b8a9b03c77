import http.client
import ssl
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from d7agent.sandbox import Sandbox, SandboxError, Settings
from tests.support.d7client import (
    RAW_LOGIN,
    connect,
    read_for,
)


def tls_stats(box: Sandbox, ca: Path | None, host: str = "127.0.0.1") -> int:
    """The status of a verified request for the stats."""
    context = ssl.create_default_context(cafile=str(ca) if ca else None)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    connection = http.client.HTTPSConnection(host, urlsplit(box.url).port, timeout=10, context=context)
    try:
        connection.request("GET", "/sandbox/stats")
        return connection.getresponse().status
    finally:
        connection.close()


def test_tls(tmp_path: Path) -> None:
    """A client that knows the CA talks TLS by address and by name; the CA of a folder stays, its keys are private."""
    settings = Settings(tls=True, tls_dir=tmp_path / "tls")
    with Sandbox(settings) as box:
        assert box.url.startswith("https://127.0.0.1:")
        assert box.ca_file is not None
        assert tls_stats(box, box.ca_file) == tls_stats(box, box.ca_file, "localhost") == 200
        first = box.ca_file.read_bytes()
    with Sandbox(settings) as box:
        assert box.ca_file is not None
        assert box.ca_file.read_bytes() == first
        assert tls_stats(box, box.ca_file) == 200
    assert {key.stat().st_mode & 0o777 for key in (tmp_path / "tls").glob("*.key")} == {0o600}


@pytest.mark.parametrize(
    ("certificate", "known", "words"),
    [
        ("good", False, "self-signed certificate|unable to get local issuer"),
        ("wrong-host", True, "mismatch"),
        ("expired", True, "expired"),
    ],
)
def test_tls_that_is_refused(certificate: str, known: bool, words: str) -> None:
    """An unknown CA, a certificate for another host and an expired one are refused by a client, each for its reason."""
    with Sandbox(Settings(tls=True, certificate=certificate)) as box:  # type: ignore[arg-type]
        with pytest.raises(ssl.SSLCertVerificationError, match=words):
            tls_stats(box, box.ca_file if known else None)
        box.wait_for(lambda stats: stats.connections == 1)
        assert box.stats.requests == 0


def test_tls_faults_and_stop_during_handshake() -> None:
    """Faults play over TLS too, and a client that never shakes hands does not hold up the end."""
    with Sandbox(Settings(tls=True, faults=("hang:where=body,times=1",))) as box:
        context = ssl.create_default_context(cafile=str(box.ca_file))
        silent = connect(box)
        with context.wrap_socket(connect(box), server_hostname="127.0.0.1") as sock:
            sock.sendall(RAW_LOGIN)
            assert read_for(sock, 0.2).endswith(b"\r\n\r\n")
            box.wait_for(lambda stats: stats.connections == 2)
            start = time.monotonic()
            box.stop()
            assert time.monotonic() - start < 2
        silent.close()


def test_tls_without_openssl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the openssl program TLS says which package to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match="apt-get install openssl"):
        Sandbox(Settings(tls=True, tls_dir=tmp_path)).start()


def test_temporary_tls_folder_is_removed() -> None:
    """The keys of a sandbox do not stay behind."""
    with Sandbox(Settings(tls=True)) as box:
        assert box.ca_file is not None
        folder = box.ca_file.parent
        assert folder.is_dir()
    assert not folder.exists()
