"""Certificates for the sandbox: an own CA and a leaf, made by the `openssl` program into one folder."""

import ssl
import subprocess
from pathlib import Path
from typing import Final

from d7agent.sandbox.settings import Certificate, SandboxError

CA: Final = "sandbox-ca"
LEAF: Final = "sandbox-leaf"
LIMIT: Final = 30.0  # seconds for one run of openssl, which takes some 10 ms
NEW_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
LOCAL_NAMES: Final = "IP:127.0.0.1,IP:::1,DNS:localhost"
# What Python 3.13's default contexts (VERIFY_X509_STRICT) ask of a leaf.
EXTENSIONS: Final = """subjectAltName={names}
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
authorityKeyIdentifier=keyid
subjectKeyIdentifier=hash
"""


def server_context(folder: Path, certificate: Certificate) -> tuple[ssl.SSLContext, Path]:
    """A context to serve with and the CA's file, for clients' SSL_CERT_FILE.

    A CA that is in the folder already is used again, so that clients keep trusting it; the leaf is new each time.
    SandboxError if openssl is missing or fails, or the folder cannot be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ca = folder / f"{CA}.pem"
    if not (ca.exists() and ca.with_suffix(".key").exists()):
        _make_ca(folder)
    _make_leaf(folder, certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{LEAF}.pem", folder / f"{LEAF}.key")
    return context, ca


def _make_ca(folder: Path) -> None:
    extensions = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    _openssl(
        folder, "req", "-x509", *NEW_KEY, "-days", "3650", "-subj", "/CN=d7agent sandbox CA", *extensions,
        "-keyout", f"{CA}.key", "-out", f"{CA}.pem",
    )  # fmt: skip


def _make_leaf(folder: Path, certificate: Certificate) -> None:
    names = "DNS:wrong.example" if certificate == "wrong-host" else LOCAL_NAMES
    days = "-1" if certificate == "expired" else "397"
    (folder / f"{LEAF}.cnf").write_text(EXTENSIONS.format(names=names), encoding="ascii")
    _openssl(folder, "req", *NEW_KEY, "-subj", "/CN=d7agent sandbox", "-keyout", f"{LEAF}.key", "-out", f"{LEAF}.csr")
    _openssl(
        folder, "x509", "-req", "-in", f"{LEAF}.csr", "-CA", f"{CA}.pem", "-CAkey", f"{CA}.key", "-CAcreateserial",
        "-days", days, "-extfile", f"{LEAF}.cnf", "-out", f"{LEAF}.pem",
    )  # fmt: skip


def _openssl(folder: Path, *arguments: str) -> None:
    command = ["openssl", *arguments]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=LIMIT)
    except FileNotFoundError:
        raise SandboxError(
            "sandbox: TLS needs the openssl program, which is not on PATH",
            "install it (Debian, Ubuntu: apt-get install openssl) or leave out --tls",
        ) from None
    except subprocess.TimeoutExpired:
        raise SandboxError(f"sandbox: openssl {arguments[0]} did not end within {LIMIT:g} s", "try again") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise SandboxError(
            f"sandbox: openssl {arguments[0]} failed in {folder}: {said[0]}",
            "use OpenSSL 1.1.1 or later and a --tls-dir that can be written",
        ) from None
