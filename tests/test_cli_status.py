import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from d7agent.cli import spans, table
from d7agent.core.clock import SystemClock
from tests.support import cli, fakeagent
from tests.support.fakeagent import FakeAgent
from tests.support.terminal import Terminal

STATES = {
    "fresh": "fresh",
    "stale": "stale",
    "expired": "expired",
    "rejected": "rejected by D7",
    "empty": "no token yet",
    "no_credential": "no credential",
    "locked": "locked",
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A user's home."""
    with cli.short_folder() as path:
        yield path


@pytest.fixture
def d7agent(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> cli.Inside:
    """The command line, run by a user who lives in the folder."""
    return cli.inside(folder, capfd, monkeypatch)


def now() -> int:
    """Unix seconds."""
    return int(SystemClock().now().wall)


def busy_profile(**more: Any) -> dict[str, Any]:
    """A profile with a token that has lived a quarter of an hour of its hour."""
    begin = now() - 900
    times = {"issued_at": begin, "expires_at": begin + 3600, "valid_for": 2700, "refresh_at": begin + 2700}
    return fakeagent.profile(**times, refresh_why="75 % of its life", **more)


def test_json_is_versioned_and_whole(folder: Path, d7agent: cli.Inside) -> None:
    """Programs get all that the agent says, with a version; --json and --format json are one."""
    with FakeAgent(cli.own_socket(folder)) as agent:
        run = d7agent("status", "--json", "-p", "work")
        assert d7agent("status", "--format", "json", "-p", "work").out == run.out
    assert json.loads(run.out) == {"version": 1, "agent": fakeagent.about(), "profiles": [fakeagent.profile()]}
    assert agent.asked("GetStatus") == [{"profile": "work"}] * 2


def test_the_table_tells_what_a_person_asks(folder: Path, d7agent: cli.Inside) -> None:
    """Profile, state, time left as a bar and in words, the next refresh and why, the store; no colour in a pipe."""
    with FakeAgent(cli.own_socket(folder), GetStatus=fakeagent.status(busy_profile())):
        run = d7agent("status")
    assert (run.status, run.err) == (0, "")
    rows = [line.split("  ") for line in run.out.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells[0][0].startswith("Agent 0.1.0, pid 4194305, up ")
    assert cells[2] == ["Profile", "State", "Time left", "Next refresh", "Store"]
    assert cells[3][:3] == ["default", "fresh", "████████░░ 45 min"]
    assert cells[3][3] in ("in 30 min, 75 % of its life", "in 29 min 59 s, 75 % of its life")
    assert cells[3][4] == "keyring (SecretService)"
    assert "\x1b" not in run.out


@pytest.mark.parametrize("state", STATES)
def test_each_state_is_a_word(folder: Path, d7agent: cli.Inside, state: str) -> None:
    """Colour is never alone in telling the state."""
    with FakeAgent(cli.own_socket(folder), GetStatus=fakeagent.status(fakeagent.profile(state=state))):
        assert f"  {STATES[state]}  " in d7agent("status").out


def test_a_terminal_gets_colour_unless_it_says_no(folder: Path) -> None:
    """Colour on a terminal, none with NO_COLOR; the words are the same."""
    with FakeAgent(cli.own_socket(folder), GetStatus=fakeagent.status(busy_profile(state="stale"))):
        shown = {}
        for name, more in (("colour", {}), ("plain", {"NO_COLOR": "1"})):
            env = cli.environment(folder, **more)
            with Terminal([*cli.COMMAND, "status"], env, columns=120) as terminal:
                assert terminal.wait() == 0
                shown[name] = terminal.shown
    assert "\x1b[33mstale" in shown["colour"]
    assert "\x1b[3" not in shown["plain"]
    assert "stale" in shown["plain"]


def test_a_narrow_terminal_gets_a_list(folder: Path) -> None:
    """In 40 columns each value has a line of its own, and none is cut."""
    with FakeAgent(cli.own_socket(folder), GetStatus=fakeagent.status(busy_profile())):
        env = cli.environment(folder, NO_COLOR="1")
        with Terminal([*cli.COMMAND, "status"], env, columns=40) as terminal:
            assert terminal.wait() == 0
    for line in (
        "  State:        fresh",
        "  Time left:    ████████░░ 45 min",
        "  Store:        keyring (SecretService)",
    ):
        assert f"{line}\r\n" in terminal.shown


def test_an_error_comes_with_its_next_step(folder: Path, d7agent: cli.Inside) -> None:
    """Below the table: when, what, D7's code, and what to do."""
    error = {"reason": "refused", "message": "D7 refused the login", "at": now() - 65, "code": "APPLICATION_NOT_EXISTS"}
    rejected = fakeagent.profile(profile="work", state="rejected", last_error=error)
    with FakeAgent(cli.own_socket(folder), GetStatus=fakeagent.status(rejected)):
        out = d7agent("status").out
    assert "D7 refused the login (APPLICATION_NOT_EXISTS)\n" in out
    assert "work: 1 min" in out
    assert "work: next: store a valid credential with `d7agent login work`\n" in out


def test_all_that_is_wrong_is_told(folder: Path, d7agent: cli.Inside) -> None:
    """A faulty configuration, a sink, a clock, misreports, the environment store, the lock."""
    profile = fakeagent.profile(
        store="environment:PROD_", skew=-3600, misreports=3, sinks=[{"path": "/x", "ok": False, "error": "disk full"}]
    )
    status = fakeagent.status(profile, locked=True, config_problems=["config.toml: acess: no such key"], systemd=True)
    with FakeAgent(cli.own_socket(folder), GetStatus=status):
        out = d7agent("status").out
    for part in (
        "LOCKED: `d7agent unlock`",
        "under systemd",
        "configuration: config.toml: acess: no such key",
        "default: always-fresh file /x: disk full",
        "a program reported as refused: 3",
        "clock differs from D7's by 1 h",
        "the agent's own environment",
    ):
        assert part in out


def test_what_d7_says_is_not_markup(folder: Path, d7agent: cli.Inside) -> None:
    """Brackets stay brackets, control characters become harmless."""
    error = {"reason": "refused", "message": "[red]x[/red] \x1b[31m :smile:", "at": now()}
    with FakeAgent(cli.own_socket(folder), GetStatus=fakeagent.status(fakeagent.profile(last_error=error))):
        assert "[red]x[/red] ?[31m :smile:" in d7agent("status").out


def test_no_profile_is_no_crash(folder: Path, d7agent: cli.Inside) -> None:
    """An agent without profiles, and one that says next to nothing."""
    with FakeAgent(cli.own_socket(folder), GetStatus={"parameters": {"agent": {}, "profiles": []}}):
        run = d7agent("status")
    assert (run.status, run.err) == (0, "")
    assert "`d7agent login` makes one" in run.out


def test_json_needs_no_rich(folder: Path) -> None:
    """Only the table pays for rich."""
    with FakeAgent(cli.own_socket(folder)):
        for line, loaded in ((["status", "--json"], False), (["status"], True)):
            argv = [cli.COMMAND[0], "-X", "importtime", *cli.COMMAND[1:], *line]
            run = cli.run([], cli.environment(folder), command=argv)
            assert ("rich" in {row.rpartition("|")[2].strip() for row in run.err.splitlines()}) is loaded


@pytest.mark.parametrize(
    ("left", "bar"),
    [(3600, "##########"), (2700, "########--"), (1, "----------"), (0, "----------"), (9999, "##########")],
)
def test_the_bar_shows_the_share_that_is_left(left: int, bar: str) -> None:
    """Ten cells, never more; plain signs where the terminal has no others."""
    profile = fakeagent.profile(issued_at=0, expires_at=3600, valid_for=left)
    assert table.time_left(profile, "#-").partition(" ")[0] == bar


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-5, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3540, "59 min"),
        (3661, "1 h 1 min"),
        (90_000, "1 d 1 h"),
        (86_405, "1 d"),
    ],
)
def test_spans_have_two_units_at_most(seconds: float, text: str) -> None:
    """As people say them."""
    assert spans.span(seconds) == text
