import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d7agent.cli.leaks import Leak, leaks, without_tokens
from d7agent.cli.replacements import kind_of, replacement
from d7agent.cli.scan import MAX_FILE, Hit, Trouble, scan
from tests.support import cli
from tests.support.cli import Inside


def jwt(payload: object, parts: int = 3) -> str:
    head, body = (
        base64.urlsafe_b64encode(json.dumps(x).encode()).decode().rstrip("=") for x in ({"alg": "x"}, payload)
    )
    return ".".join([head, body, "c2lnbmF0dXJl-_x"][:parts])


D7 = jwt({"aud": "auth-backend:app", "sub": "0a1b"})
TWO_PART = jwt({"aud": "auth-backend:app"}, 2)
LISTED = jwt({"aud": ["other", "auth-backend:app"]})
FOREIGN = jwt({"aud": "somebody-else"})
OPAQUE = "k3Jd92mXq7Lw81Zt55"


@pytest.fixture
def folder() -> Iterator[Path]:
    with cli.short_folder() as path:
        yield path


@pytest.fixture
def d7agent(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Inside:
    return cli.inside(folder, capfd, monkeypatch)


FOUND = [
    f'D7TOKEN = "{D7}"',
    f"D7TOKEN='{OPAQUE}'",
    f"D7_API_TOKEN={OPAQUE}",
    f"export d7Token={D7}",
    f"  D7_TOKEN: {OPAQUE}",
    f'"d7_api_token": "{OPAQUE}",',
    f"define('D7TOKEN', '{OPAQUE}');",
    f"$config['d7_token'] => '{OPAQUE}'",
    f'Environment="D7TOKEN={D7}"',
    f"ExecStart=/usr/bin/send --token {TWO_PART}",
    f'auth = "Bearer {LISTED}"',
    f'curl -H "Authorization: Bearer {OPAQUE}" https://api.d7networks.com/x',
    f"\"Authorization\" : 'Bearer {OPAQUE}'  # d7networks",
]
LEFT = [
    f'token = "{FOREIGN}"',
    'D7TOKEN = os.environ["D7_API_TOKEN_OF_2026"]',
    "D7TOKEN = settings.d7.token2.of_production",
    "D7TOKEN = load_the_token_from_vault2(profile)",
    'D7TOKEN="$(d7agent token)"',
    "D7TOKEN=$D7_API_TOKEN_NUMBER_2",
    'D7TOKEN = "YOUR_D7_API_TOKEN"',
    'D7_TOKEN_FILE="/etc/nagios/d7/token2.txt"',
    'curl -H "Authorization: Bearer $D7TOKEN" https://api.d7networks.com',
    f'curl -H "Authorization: Bearer {OPAQUE}" https://api.example.com',
    "eyJ.not.a-token",
    f"eyJhbGciOiJIUzI1NiJ9.{'!' * 20}",
]


@pytest.mark.parametrize("line", FOUND)
def test_a_token_is_found(line: str) -> None:
    """By what the JWT says, by the name of the variable, by the header of a call to D7; and no part of it is told."""
    (found,) = leaks(f"first\n{line}\n")
    assert found.line == 2
    assert line[found.begin : found.end] in (D7, TWO_PART, LISTED, OPAQUE)
    assert line[found.begin : found.end] not in found.what + repr(found)


@pytest.mark.parametrize("line", LEFT)
def test_what_is_no_token_of_d7_is_left_alone(line: str) -> None:
    """Tokens of others, variables, calls, placeholders and paths."""
    assert list(leaks(line)) == []


def test_bare_words_are_tokens_only_where_they_can_be() -> None:
    """In Python an unquoted word is a name."""
    assert list(leaks(f"D7TOKEN = {OPAQUE}", quoted=True)) == []


@given(st.text(max_size=200), st.sampled_from([D7, TWO_PART, f"D7TOKEN={OPAQUE}", f'D7TOKEN: "{OPAQUE}"']))
def test_no_text_breaks_the_search(text: str, secret: str) -> None:
    """Whatever stands around a token, nothing crashes, and no replacement in any language holds it."""
    for content in (text, f"{text}{secret}{text}", f"{text} {secret} {secret} {text}"):
        for kind in ("python", "shell", "php", "javascript", "systemd", ""):
            for leak in leaks(content):
                line = replacement(leak, kind, content, "d7agent")
                assert not [token for token in (D7, TWO_PART) if token in line]
                assert leak.text[leak.begin : leak.end] not in line


def test_a_long_line_costs_no_time() -> None:
    """Lines without end cost what they are long, not its square (minutes, here)."""
    lines = ["D7" * 20_000 + "TOKE", "eyJ" * 20_000, "Authorization" * 4_000, "-H '" * 10_000]
    assert list(leaks("\n".join(lines * 20))) == []


KINDS = {
    ("a.py", ""): "python",
    ("notify", "#!/usr/bin/env python3\n"): "python",
    ("a.sh", ""): "shell",
    ("a", "#!/bin/bash\n"): "shell",
    ("a", "#!/usr/bin/env -S dash\n"): "shell",
    ("a.php", ""): "php",
    ("a", "<?php\n"): "php",
    ("a.mjs", ""): "javascript",
    ("a", "#!/usr/bin/env node\n"): "javascript",
    ("a.service", "# x\n[Unit]\n"): "systemd",
    ("override.conf", "[Service]\nEnvironment=A=1\n"): "systemd",
    ("zabbix.conf", "A=1\n"): "",
    ("a.go", "package main\n"): "",
    (".env", "A=1\n"): "",
}


@pytest.mark.parametrize(("path", "text"), KINDS)
def test_the_kind_of_a_file(path: str, text: str) -> None:
    """What it begins with counts more than its name."""
    assert kind_of(path, text) == KINDS[path, text]


def line_for(kind: str, line: str, text: str = "") -> str:
    (leak,) = leaks(line)
    return replacement(leak, kind, text or line, "/opt/d7agent")


PYTHON = '__import__("subprocess").check_output(["/opt/d7agent", "token"], text=True).strip()'
NODE = 'require("node:child_process").execFileSync("/opt/d7agent", ["token"], { encoding: "utf8" }).trim()'
BASH = "#!/bin/bash\n"
REPLACED = [
    ("python", f'    D7TOKEN = "{D7}"  # mine', f"    D7TOKEN = {PYTHON}  # mine"),
    ("python", f'D7TOKEN = """{D7}"""', f"D7TOKEN = {PYTHON}"),
    ("python", f"h = {{'Authorization': f'Bearer {D7}'}}", f"h = {{'Authorization': f'Bearer ' + {PYTHON}}}"),
    ("php", f'$D7TOKEN = "{OPAQUE}";', "$D7TOKEN = (exec('/opt/d7agent token') ?: exit(1));"),
    ("javascript", f"const D7TOKEN = `{D7}`;", f"const D7TOKEN = {NODE};"),
    ("shell", f"D7TOKEN={D7}", "D7TOKEN=$(/opt/d7agent token) || exit 1"),
    ("shell", f'  export D7TOKEN="{D7}"', "  D7TOKEN=$(/opt/d7agent token) || exit 1; export D7TOKEN"),
    ("shell", f"\tlocal D7TOKEN='{OPAQUE}'", "\tlocal D7TOKEN; D7TOKEN=$(/opt/d7agent token) || exit 1"),
    ("shell", f"D7TOKEN={D7} ./send -x", "D7TOKEN=$(/opt/d7agent token) ./send -x"),
    ("shell", f"send --token '{D7}'", 'send --token "$(/opt/d7agent token)"'),
    (
        "shell",
        f'  curl -sS -H "A: b" -H "Authorization: Bearer {D7}" https://x',
        '  /opt/d7agent header | curl -sS -H "A: b" -H @- https://x',
    ),
    (
        "systemd",
        f"Environment=D7TOKEN={D7}",
        "ExecStart=/opt/d7agent exec --env D7TOKEN -- PROGRAM, which reads $D7TOKEN",
    ),
    ("", f"D7TOKEN={D7}", "remove the line and start the program with: /opt/d7agent exec --env D7TOKEN -- PROGRAM"),
]


@pytest.mark.parametrize(("kind", "line", "wanted"), REPLACED)
def test_the_replacement_in_each_language(kind: str, line: str, wanted: str) -> None:
    """One line that asks the agent, with all else on it kept."""
    assert line_for(kind, line) == wanted


def test_a_curl_that_reads_stdin_gets_the_header_otherwise() -> None:
    """Where stdin is taken, or the command began on a former line: a file descriptor in bash, advice in sh."""
    line = f"  -H 'Authorization: Bearer {D7}' \\"
    assert line_for("shell", line, f"{BASH}curl -d @- \\\n{line}\n") == "  -H @<(/opt/d7agent header) \\"
    assert "begin the curl command with: /opt/d7agent header |" in line_for("shell", line, f"curl \\\n{line}\n")


def test_a_unit_keeps_its_command() -> None:
    """The program is started by `d7agent exec`, its prefix and arguments as they were."""
    line = f"Environment=D7_API_TOKEN={D7}"
    text = f"[Service]\n{line}\nExecStart=-/usr/bin/send --all\n"
    command = "ExecStart=-/opt/d7agent exec --env D7_API_TOKEN -- /usr/bin/send --all"
    assert line_for("systemd", line, text) == f"{command}    (and no D7_API_TOKEN in Environment=)"


def test_replacements_run(tmp_path: Path) -> None:
    """Python and the shell understand their lines: the token arrives, and without one the script ends with an error."""
    program = tmp_path / "d7agent"
    scripts = {
        "python": (sys.executable, f'D7TOKEN = "{D7}"', "print(D7TOKEN)"),
        "shell": ("/bin/sh", f'export D7TOKEN="{D7}"', "sh -c 'echo \"$D7TOKEN\"'"),
    }
    for kind, (interpreter, line, use) in scripts.items():
        script = tmp_path / kind
        (leak,) = leaks(line)
        script.write_text(f"{replacement(leak, kind, line, str(program))}\n{use}\n")
        for body, status, out in (("echo fresh", 0, "fresh\n"), ("exit 6", 1, "")):
            program.write_text(f"#!/bin/sh\n{body}\n")
            program.chmod(0o755)
            done = subprocess.run([interpreter, script], capture_output=True, text=True, check=False, timeout=30)
            assert (done.returncode, done.stdout) == (status, out), (kind, done.stderr)


def test_all_that_may_be_a_token_is_taken_out() -> None:
    """Also a second one on the line, and a stranger's."""
    text = f'a "{D7}" {FOREIGN} D7TOKEN={OPAQUE} Authorization: Bearer {OPAQUE}x'
    assert not [token for token in (D7, FOREIGN, OPAQUE) if token in without_tokens(text)]


def tree(folder: Path) -> Path:
    """Scripts with tokens, and much that is no script."""
    root = folder / "tree"
    for name in ("sub/deeper", ".git", "node_modules/x"):
        (root / name).mkdir(parents=True)
    (root / "a.py").write_text(f'\nD7TOKEN = "{D7}"\n')
    (root / "sub" / "deeper" / "b.sh").write_bytes(f"#!/bin/sh\r\nD7TOKEN={OPAQUE}\r\n".encode())
    (root / "latin.sh").write_bytes(b"# \xe9t\xe9\nD7TOKEN=" + OPAQUE.encode() + b"\n")
    for name in (".git/c", "node_modules/x/d.js"):
        (root / name).write_text(f'D7TOKEN = "{D7}"\n')
    (root / "binary").write_bytes(f"\0D7TOKEN = {D7}\n".encode())
    (root / "huge").write_bytes(f"D7TOKEN={D7}\n".encode() + b"x" * MAX_FILE)
    (root / "loop").symlink_to(".")
    (root / "self").symlink_to("self")
    (root / "dangling").symlink_to("/nowhere")
    (root / "again.py").symlink_to("a.py")
    os.link(root / "a.py", root / "sub" / "a-hard-link.py")
    os.mkfifo(root / "fifo")
    return root


def test_folders_are_followed_and_nothing_stops_the_scan(folder: Path) -> None:
    """Each script is looked at once; binaries, huge files, link loops, FIFOs and repositories are passed over."""
    root = tree(folder)
    found = list(scan((str(root), str(root / "a.py")), "d7agent"))
    assert [(Path(one.path).name, one.line) for one in found if isinstance(one, Hit)] == [
        ("a.py", 2),
        ("latin.sh", 2),
        ("b.sh", 2),
    ]
    assert not [one for one in found if isinstance(one, Trouble)]


def test_file_line_and_replacement_are_printed_and_never_the_token(folder: Path, d7agent: Inside) -> None:
    """Status 1 where something was found; the JSON says the same."""
    root = tree(folder)
    found = d7agent("doctor", "--scan", str(root))
    assert found.status == 1
    assert f"{root}/a.py:2: a token is assigned to D7TOKEN\n    -> D7TOKEN = __import__" in found.out
    document = json.loads(d7agent("doctor", "--scan", str(root), "--json").out)
    assert (document["version"], document["ok"], len(document["findings"])) == (1, False, 3)
    assert document["findings"][0]["line"] == 2
    assert not [token for token in (D7, OPAQUE) if token in found.out + found.err + json.dumps(document)]


def test_a_clean_folder_is_well(folder: Path, d7agent: Inside) -> None:
    """Status 0, and it says so."""
    (folder / "clean").mkdir()
    found = d7agent("doctor", "--scan", str(folder / "clean"))
    assert found == (0, "No D7 token was found.\n", "")


def test_what_cannot_be_read_is_told(folder: Path, d7agent: Inside) -> None:
    """A path that is not there is no clean bill of health."""
    found = d7agent("doctor", "--scan", str(folder / "missing"))
    assert (found.status, f"{folder}/missing: No such file" in found.err) == (1, True)


def test_a_leak_does_not_show_its_line() -> None:
    """repr, for logs and tracebacks."""
    assert D7 not in repr(Leak(1, 0, 3, "x", D7))
