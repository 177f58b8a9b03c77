"""The forms of a token, byte for byte."""

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d7agent.cli.tokens import FORMS as CLI_FORMS
from d7agent.core.config import SinkFormat
from d7agent.core.forms import HEADER_FORMS, Facts, Unfit, header_form, sink_form, wipe

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJhdWQiOiJhdXRoLWJhY2tlbmQ6YXBwIn0.c2ln-_"
FACTS = Facts(profile="work", boot_id="1c1a4e61-caf0", use_before=5000)
REST = '"D7_TOKEN_BOOT_ID":"1c1a4e61-caf0","D7_TOKEN_USE_BEFORE":5000,"profile":"work"'
tokens = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("token", f"{TOKEN}\n"),
        ("header", f"Authorization: Bearer {TOKEN}\n"),
        ("curl", f'header = "Authorization: Bearer {TOKEN}"\n'),
        ("env", f"D7_API_TOKEN={TOKEN}\nD7_TOKEN_BOOT_ID=1c1a4e61-caf0\nD7_TOKEN_USE_BEFORE=5000\n"),
        (
            "json",
            f'{{"D7_API_TOKEN":"{TOKEN}",{REST}}}\n',
        ),
    ],
)
def test_a_sink_holds_exactly_this(form: SinkFormat, content: str) -> None:
    """What other programs parse does not change."""
    assert sink_form(form, TOKEN, FACTS) == content.encode()


def test_a_header_as_json_and_as_a_value() -> None:
    """The two forms that are no sink's."""
    assert header_form("value", TOKEN) == f"Bearer {TOKEN}\n".encode()
    assert header_form("json", TOKEN) == f'{{"Authorization":"Bearer {TOKEN}"}}\n'.encode()


@given(tokens)
def test_the_command_line_prints_the_same(token: str) -> None:
    """`d7agent header --format FORM` and the forms here are one thing, whatever visible ASCII a token is made of."""
    assert set(CLI_FORMS) == set(HEADER_FORMS) - {"token"}
    for form, make in CLI_FORMS.items():
        assert header_form(form, token) == (make(f"Bearer {token}") + "\n").encode()


@given(tokens)
def test_json_gives_every_token_back(token: str) -> None:
    """Quotation marks and backslashes included."""
    found = json.loads(sink_form("json", token, FACTS))
    assert found["D7_API_TOKEN"] == token
    assert (found["profile"], found["D7_TOKEN_USE_BEFORE"]) == ("work", 5000)


@pytest.mark.parametrize("token", ["a'b", "a$(date)", "a`b`", "~root", "a;b", 'a"b', "a\\b", "a#b", "a&b"])
def test_env_refuses_what_a_shell_would_run(token: str) -> None:
    """A file that people source holds no token that is code."""
    with pytest.raises(Unfit):
        sink_form("env", token, FACTS)
    assert sink_form("token", token, FACTS) == f"{token}\n".encode()


def test_env_can_be_sourced(tmp_path: Path) -> None:
    """By any shell, with any sign that RFC 6750 allows in a token."""
    token = "aZ09-._~+/=="
    path = tmp_path / "env"
    path.write_bytes(sink_form("env", token, FACTS))
    script = f'. {path}; printf %s "$D7_API_TOKEN $D7_TOKEN_USE_BEFORE"'
    for shell in ("dash", "bash"):
        done = subprocess.run([shell, "-euc", script], capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == (f"{token} 5000", "")


def test_a_wiped_buffer_holds_nothing() -> None:
    """Its length stays."""
    buffer = sink_form("env", TOKEN, FACTS)
    length = len(buffer)
    wipe(buffer)
    assert buffer == bytes(length)
