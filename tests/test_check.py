import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d7agent.cli import verdicts
from d7agent.cli.balance import verdict
from d7agent.cli.perfdata import Perf
from d7agent.cli.ranges import parse_range
from d7agent.cli.verdicts import CRITICAL, OK, UNKNOWN, WARNING, Limits, effective, judge
from d7agent.core.clock import SystemClock
from d7agent.core.jobs import Failed, Proved
from d7agent.sandbox import Sandbox, Settings
from tests.support import cli, fakeagent
from tests.support.fakeagent import ACCESS_TOKEN, FakeAgent, profile, status
from tests.support.live import Live

# A guideline's plugin: one line, a word, text without a bar, values as LABEL=VALUE[UOM];warn;crit;min;max.
LINE = re.compile(r"D7AGENT (OK|WARNING|CRITICAL|UNKNOWN) - [^|\n]+(\|[^|\n]+)?\n")
VALUE = re.compile(r"(?:'[^'=]+'|[^\s'=]+)=(?:U|-?\d+(?:\.\d+)?)(?:s|)?(?:;[^;\s]*){0,4}")


@pytest.fixture
def folder() -> Iterator[Path]:
    with cli.short_folder() as path:
        yield path


@pytest.fixture
def d7agent(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> cli.Inside:
    return cli.inside(folder, capfd, monkeypatch)


def fine(**more: Any) -> dict[str, Any]:
    """A profile whose token has 2,700 of its 3,600 seconds left."""
    now = int(SystemClock().now().wall)
    times = {"issued_at": now - 900, "expires_at": now + 2700, "valid_for": 2700, "last_login": now - 900}
    return profile(**(times | more))


def trouble(reason: str, **more: Any) -> dict[str, Any]:
    return fine(last_error={"reason": reason, "message": "it | broke", "at": 1_790_000_000}, failures=3, **more)


def parts(found: cli.Run) -> tuple[int, str, dict[str, str]]:
    """Status, text and values of a plugin's line, which must keep to the guidelines."""
    assert LINE.fullmatch(found.out), found.out
    text, _, values = found.out.rstrip("\n").partition("|")
    assert all(VALUE.fullmatch(value) for value in values.split()), values
    assert verdicts.WORDS[found.status] == text.split()[1]
    return found.status, text, dict(value.split("=", 1) for value in values.split())


# The ranges of the guidelines: what alerts, and what does not.
RANGES: dict[str, tuple[list[float], list[float]]] = {
    "10": ([-1, 11], [0, 10]),
    "10:": ([9, -5], [10, 1e9]),
    "~:10": ([11], [-1e9, 10]),
    "10:20": ([9, 21], [10, 20]),
    "@10:20": ([10, 15, 20], [9, 21]),
    "@10": ([0, 10], [-1, 11]),
    "-5:5.5": ([-6, 5.6], [-5, 5.5]),
}


@pytest.mark.parametrize("text", RANGES)
def test_ranges_alert_as_the_guidelines_say(text: str) -> None:
    """Each form of a range alerts outside of it, or inside with @."""
    bad, good = RANGES[text]
    found = parse_range(text)
    assert [found.alerts(value) for value in bad + good] == [True] * len(bad) + [False] * len(good)


@pytest.mark.parametrize("text", ["", "@", ":", "x", "20:10", "10:~", "1e3", "10:20:30", "10 :", "٣:", "--5"])
def test_rubbish_is_no_range(text: str) -> None:
    """What the guidelines do not know is refused, and not guessed at."""
    with pytest.raises(ValueError, match="must"):
        parse_range(text)


@given(st.text(max_size=12))
def test_no_text_breaks_the_range_parser(text: str) -> None:
    """Any text is a range or a ValueError."""
    try:
        parse_range(text).alerts(1)
    except ValueError:
        return


def test_perfdata_has_the_form_of_the_guidelines() -> None:
    """Label, value, unit, thresholds and minimum; U for the unknown; quotes for a label with blanks."""
    assert str(Perf("left", 90, "s", "600:", "300:")) == "left=90s;600:;300:;0"
    assert str(Perf("left", None, "s")) == "left=U;;;0"
    assert str(Perf("it's a=b", 1.5)) == "'it_s a_b'=1.5;;;0"


JUDGED: dict[str, tuple[dict[str, Any], int, str]] = {
    "fresh": (fine(), OK, "good for 45 min"),
    "no expiry": (profile(), OK, "no expiry"),
    "refresh due, nothing failed": (fine(state="stale"), OK, "good for"),
    "logins fail": (trouble("connect", state="stale"), WARNING, "3 failed logins in a row"),
    "renewal refused, token good": (trouble("refused", state="stale"), CRITICAL, "cannot be renewed"),
    "keyring locked, token good": (trouble("store_locked", state="stale"), CRITICAL, "cannot be renewed"),
    "rejected": (trouble("refused", state="rejected", valid_for=None), CRITICAL, "D7 refuses the credential"),
    "no credential": (profile(state="no_credential"), CRITICAL, "no credential"),
    "expired": (trouble("dns", state="expired", valid_for=None), CRITICAL, "has expired"),
    "locked": (profile(state="locked"), CRITICAL, "locked by a passphrase"),
    "first login under way": (profile(state="empty"), WARNING, "under way"),
    "first login fails": (trouble("dns", state="empty", valid_for=None), CRITICAL, "it | broke"),
    "sink": (fine(sinks=[{"path": "/x", "ok": False, "error": "disk full"}]), WARNING, "/x: disk full"),
    "budget": (fine(budget_left=0), WARNING, "budget"),
    "12 % left": (fine(valid_for=432), WARNING, "range 540:"),
    "9 % left": (fine(valid_for=324), CRITICAL, "range 360:"),
    "ready-made, 5 days": (fine(issued_at=None, valid_for=432_000), WARNING, "5 d"),
    "ready-made, 5 hours": (fine(issued_at=None, valid_for=18_000), CRITICAL, "5 h"),
    "same bytes until they expire": (fine(valid_for=30, unchanged=True), OK, "30 s"),
    "state of another version": (profile(state="dancing"), UNKNOWN, "dancing"),
}


@pytest.mark.parametrize("case", JUDGED)
def test_each_state_has_its_level(case: str) -> None:
    """What a person has to end is critical while the token is still good, so that the page itself gets through."""
    given_profile, level, words = JUDGED[case]
    found = judge(given_profile, effective(given_profile, Limits()))
    assert (found.level, words in found.text) == (level, True), found


def test_given_ranges_take_the_place_of_the_defaults() -> None:
    """With --warn and --critical the shares of a life have no part."""
    limits = Limits(parse_range("100:"), parse_range("50:"))
    levels = [judge(one, effective(one, limits)).level for one in (fine(valid_for=left) for left in (120, 99, 49))]
    assert levels == [OK, WARNING, CRITICAL]


def test_ok_line(folder: Path, d7agent: cli.Inside) -> None:
    """A named profile: time left, last login, failures and logins, with thresholds in the perfdata."""
    with FakeAgent(cli.own_socket(folder), GetStatus=status(fine())) as agent:
        code, text, values = parts(d7agent("check", "-p", "default"))
        assert agent.asked("GetStatus") == [{"profile": "default"}]
    assert code == 0
    assert text == ("D7AGENT OK - default: token good for 45 min, last login 15 min ago, 1 login in the last hour")
    assert values["left"] == "2700s;540:;360:;0"
    assert int(values["since_login"].partition("s")[0]) in range(900, 960)
    assert (values["failures"], values["logins_hour"]) == ("0;;;0", "1;;;0")


def test_all_profiles_and_the_worst_counts(folder: Path, d7agent: cli.Inside) -> None:
    """Without -p every profile is judged; the line names those in trouble, the worst first; labels tell them apart."""
    states = status(fine(), trouble("dns", profile="b", state="stale"), profile(profile="c", state="no_credential"))
    with FakeAgent(cli.own_socket(folder), GetStatus=states):
        code, text, values = parts(d7agent("check"))
    assert code == 2
    assert text.startswith("D7AGENT CRITICAL - 2 of 3 profiles: c: no credential is stored; b: 3 failed logins")
    assert "it / broke" in text
    assert {name.partition("_")[0] for name in values} == {"default", "b", "c"}
    assert values["c_left"] == "U;;;0"


def test_many_profiles_fit_one_line(folder: Path, d7agent: cli.Inside) -> None:
    """No more than a handful is named; the rest is counted."""
    many = [profile(profile=f"p{number}", state="no_credential") for number in range(40)]
    with FakeAgent(cli.own_socket(folder), GetStatus=status(*many)):
        _, text, _ = parts(d7agent("check"))
    assert text.endswith("and 35 more")


def test_ranges_on_the_command_line(folder: Path, d7agent: cli.Inside) -> None:
    """--warn and --critical are heard in their short and long forms, and shown in the perfdata."""
    with FakeAgent(cli.own_socket(folder), GetStatus=status(fine())):
        assert parts(d7agent("check", "-p", "default", "-w", "3000:", "-c", "600:"))[0] == 1
        code, _, values = parts(d7agent("check", "--warning", "1:", "--critical", "@0:3000"))
    assert (code, values["default_left"]) == (2, "2700s;1:;@0:3000;0")


def test_a_faulty_configuration_is_a_warning(folder: Path, d7agent: cli.Inside) -> None:
    """The agent runs on with the last good one; somebody should know."""
    with FakeAgent(cli.own_socket(folder), GetStatus=status(fine(), config_problems=["x.toml:3: bad"])):
        code, text, _ = parts(d7agent("check"))
    assert (code, "configuration: x.toml:3: bad" in text) == (1, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["-w", "abc"],
        ["-c", "9:1"],
        ["-t", "0"],
        ["-t"],
        ["-p", "NOT A NAME"],
        ["surplus"],
    ],
)
def test_bad_usage_is_unknown(d7agent: cli.Inside, arguments: list[str]) -> None:
    """Status 3 and one line on stdout: Nagios would read click's 2 as CRITICAL. Stray arguments are not repeated."""
    found = d7agent("check", *arguments)
    code, text, _ = parts(found)
    assert (code, found.err, "bad usage" in text, "surplus" in text) == (3, "", True, False)


def test_no_agent_is_critical_and_none_is_started(folder: Path, d7agent: cli.Inside) -> None:
    """The reason is told; nothing is started or made."""
    code, text, values = parts(d7agent("check"))
    assert (code, values) == (2, {})
    assert str(cli.own_socket(folder)) in text
    assert not cli.own_socket(folder).parent.exists()


def test_an_agent_that_does_not_answer_is_critical_in_time(folder: Path, d7agent: cli.Inside) -> None:
    """-t limits it all: a late answer is what a person must know of."""
    with FakeAgent(cli.own_socket(folder), GetStatus=fakeagent.SILENCE):
        before = SystemClock().now().boot
        code, text, _ = parts(d7agent("check", "-t", "0.3"))
        took = SystemClock().now().boot - before
    assert (code, "did not answer within 0.3 s" in text) == (2, True)
    assert took < 5


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("org.varlink.service.PermissionDenied", 2),
        ("NoSuchProfile", 2),
        ("Locked", 2),
        ("org.varlink.service.InvalidParameter", 3),
        ("com.example.Unheard", 3),
    ],
)
def test_errors_of_the_agent(folder: Path, d7agent: cli.Inside, name: str, level: int) -> None:
    """Whoever gets no token loses alerts: critical. What this version cannot understand is unknown."""
    with FakeAgent(cli.own_socket(folder), GetStatus=fakeagent.error(name, "it went\nwrong", "do better")):
        code, text, _ = parts(d7agent("check"))
    assert (code, "it went wrong (do better)" in text) == (level, True)


@pytest.mark.parametrize("reply", [b"rubbish\0", b'{"parameters":{"profiles":7}}\0', b"{}\0", b'{"parameters":[]}\0'])
def test_rubbish_is_unknown(folder: Path, d7agent: cli.Inside, reply: bytes) -> None:
    """An answer that is none ends in one line and status 3, never in a traceback."""
    with FakeAgent(cli.own_socket(folder), GetStatus=reply):
        found = d7agent("check")
    assert (parts(found)[0], found.err) == (3, "")


REPLIES = [
    (Proved(works=True, refused=False, status=200, body='{"balance": 99.99}'), OK, "balance 99.99"),
    (Proved(works=True, refused=False, status=200, body="[1]"), OK, "balance [1]"),
    (Proved(works=False, refused=True, status=401, code="ACCESS_TOKEN_EXPIRED"), CRITICAL, "ACCESS_TOKEN_EXPIRED"),
    (Proved(works=False, refused=False, status=403), CRITICAL, "HTTP 403"),
    (Failed("connect", "no\nway"), CRITICAL, "no way"),
    (Failed("rate_limited", "too many"), WARNING, "too many"),
]


@pytest.mark.parametrize(("reply", "level", "words"), REPLIES)
def test_what_d7_says_to_a_token(reply: Proved | Failed, level: int, words: str) -> None:
    """Whatever keeps alerts from being delivered now is critical; a rate limit passes."""
    found = verdict(reply)
    assert (found.level, words in found.text) == (level, True)


@pytest.mark.system
def test_live_shows_the_balance_and_logs_nobody_in(tmp_path: Path) -> None:
    """--live asks D7 once with the token of the agent, which stays out of the line; a refused token is critical."""
    credential = tmp_path / "credential"
    credential.mkdir(mode=0o700)
    with Sandbox(Settings()) as box, Live() as live:
        live.start()
        live.login(box.url, "--store", f"directory:{credential}")
        token = live.run("token", check=True).stdout.strip()
        done = live.run("check", "--live")
        assert parts(cli.Run(done.returncode, done.stdout, done.stderr))[0] == 0
        assert "balance 99.99" in done.stdout
        assert (box.stats.logins, box.stats.balances) == (1, 1)
        box.revoke_all()
        refused = live.run("check", "--live")
        assert (refused.returncode, "D7 refuses the token" in refused.stdout) == (2, True)
        assert live.run("check").returncode == 0
        box.stop()
        unreachable = live.run("check", "--live", "-t", "8")
        assert (unreachable.returncode, "D7 cannot be asked" in unreachable.stdout) == (2, True)
        written = done.stdout + refused.stdout + unreachable.stdout + done.stderr + live.journal()
        assert token not in written


@pytest.mark.system
def test_live_keeps_to_its_limit(tmp_path: Path) -> None:
    """A D7 that hangs is critical when the time is up; no helper is left behind with the token."""
    credential = tmp_path / "credential"
    credential.mkdir(mode=0o700)
    with Sandbox(Settings()) as box, Live() as live:
        live.start()
        live.login(box.url, "--store", f"directory:{credential}")
        box.faults.add("hang:on=api")
        done = live.run("check", "--live", "-t", "1.5")
        assert (done.returncode, "did not answer" in done.stdout) == (2, True)
        box.wait_for(lambda stats: stats.open_requests == 0)


def test_the_token_is_never_in_the_line(folder: Path, d7agent: cli.Inside) -> None:
    """Not even where D7 cannot be reached with it."""
    with FakeAgent(cli.own_socket(folder), GetStatus=status(fine(base_url="http://127.0.0.1:9"))):
        found = d7agent("check", "--live")
    assert (parts(found)[0], ACCESS_TOKEN in found.out + found.err) == (2, False)
