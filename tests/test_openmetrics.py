import os
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import parser as text_format
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics_format

from d7agent.cli import openmetrics
from tests.support import cli, fakeagent
from tests.support.fakeagent import FakeAgent, profile
from tests.support.sources import ROOT

Values = dict[str, float]
Parse = Callable[[str], Iterable[Metric]]
MOST_EXPOSED = 15  # tenths, of systemd-analyze's 100 for a unit that is not hardened at all

STATUS = fakeagent.status(
    profile(valid_for=100, expires_at=1_800_000_100, issued_at=1_790_000_000, last_login=1_790_000_000, skew=-2),
    profile(
        profile="other",
        state="stale",
        serial=0,
        failures=4,
        misreports=2,
        sinks=[{"path": '/a "b"\\\n', "ok": False, "error": "full"}, {"path": "/c", "ok": True}],
        last_error={"reason": "dns", "message": "it broke", "at": 1_790_000_001},
    ),
    callers=[
        {"uid": 0, "grants": 3, "rejects": 0, "last": 1},
        {"uid": 113, "unit": "nagios.service", "exe": "/usr/bin/python3.11", "grants": 5, "rejects": 1, "last": 1},
    ],
)["parameters"]


@pytest.fixture
def folder() -> Iterator[Path]:
    with cli.short_folder() as path:
        yield path


@pytest.fixture
def d7agent(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> cli.Inside:
    return cli.inside(folder, capfd, monkeypatch)


by_openmetrics: Parse = openmetrics_format.text_string_to_metric_families
by_text_format: Parse = text_format.text_string_to_metric_families


def parsed(text: str) -> Values:
    """All samples by name and labels, as the parsers of both formats see them, which must be the same."""
    first, second = (_samples(parse(text)) for parse in (by_openmetrics, by_text_format))
    assert first == second
    return first


def _samples(families: Iterable[Metric]) -> Values:
    samples = [sample for family in families for sample in family.samples]
    assert not [sample for sample in samples if sample.timestamp is not None]
    return {f"{s.name}{sorted(s.labels.items()) or ''}": s.value for s in samples}


def test_every_number_of_the_status_is_there() -> None:
    """Both published parsers read each value, with profile and caller as labels."""
    found = parsed(openmetrics.render(STATUS))
    assert found["d7agent_up"] == 1
    assert found["d7agent_token_left_seconds[('profile', 'default')]"] == 100
    assert found["d7agent_token_expiry_timestamp_seconds[('profile', 'default')]"] == 1_800_000_100
    assert found["d7agent_login_failures[('profile', 'other')]"] == 4
    assert found["d7agent_misreports_total[('profile', 'other')]"] == 2
    assert found["d7agent_clock_skew_seconds[('profile', 'default')]"] == -2
    assert found["d7agent_last_error_timestamp_seconds[('profile', 'other'), ('reason', 'dns')]"] == 1_790_000_001
    who = "[('exe', '/usr/bin/python3.11'), ('uid', '113'), ('unit', 'nagios.service')]"
    assert (found[f"d7agent_grants_total{who}"], found[f"d7agent_rejects_total{who}"]) == (5, 1)


def test_a_state_is_one_of_all_states() -> None:
    """Each profile is 1 in its state and 0 in the others, so that alerts can be written before a state was ever met."""
    found = parsed(openmetrics.render(STATUS))
    states = {
        name: value for name, value in found.items() if name.startswith("d7agent_profile_state") and "other" in name
    }
    assert (len(states), sum(states.values())) == (7, 1)
    assert states["d7agent_profile_state[('profile', 'other'), ('state', 'stale')]"] == 1


def test_what_is_not_known_is_absent() -> None:
    """A token without expiry has no seconds left, not 0."""
    found = parsed(openmetrics.render(STATUS))
    assert "d7agent_token_left_seconds[('profile', 'other')]" not in found


def test_every_family_says_what_it_is() -> None:
    """HELP and TYPE for each, UNIT and its suffix where it has one, counters and gauges only, EOF at the end."""
    text = openmetrics.render(STATUS)
    families = list(by_openmetrics(text))
    assert text.endswith("\n# EOF\n")
    assert {family.type for family in families} == {"gauge", "counter"}
    assert all(family.documentation for family in families)
    assert all(family.name.endswith(f"_{family.unit}") for family in families if family.unit)
    assert {f.name for f in families if f.name.endswith("_seconds")} == {f.name for f in families if f.unit}


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_label_comes_back(text: str) -> None:
    """Quotes, backslashes and line ends in a path or an executable's name break nothing."""
    reply = fakeagent.status(callers=[{"uid": 1, "exe": text, "grants": 1, "rejects": 0, "last": 1}])["parameters"]
    families = by_openmetrics(openmetrics.render(reply))
    labels = [sample.labels for family in families if family.name == "d7agent_grants" for sample in family.samples]
    assert labels == [{"uid": "1", "unit": "", "exe": text}]


def test_status_prints_it(folder: Path, d7agent: cli.Inside) -> None:
    """`status --format openmetrics` writes the exposition to stdout."""
    with FakeAgent(cli.own_socket(folder), GetStatus={"parameters": STATUS}):
        found = d7agent("status", "--format", "openmetrics")
    assert (found.status, found.err) == (0, "")
    assert parsed(found.out)["d7agent_up"] == 1


def test_output_replaces_the_file_whole(folder: Path, d7agent: cli.Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """--output puts a new file, mode 0644 whatever the umask, in the old one's place, and nothing beside it."""
    target = folder / "textfile" / "d7agent.prom"
    target.parent.mkdir()
    target.write_text("old")
    target.chmod(0o600)
    before = target.open()
    umask = os.umask(0o077)
    try:
        with FakeAgent(cli.own_socket(folder), GetStatus={"parameters": STATUS}):
            found = d7agent("status", "--format", "openmetrics", "--output", str(target))
    finally:
        os.umask(umask)
    assert found == (0, "", "")
    assert (before.read(), stat.S_IMODE(target.stat().st_mode)) == ("old", 0o644)
    assert parsed(target.read_text())["d7agent_up"] == 1
    assert list(target.parent.iterdir()) == [target]
    before.close()


def test_without_an_agent_the_file_says_so(folder: Path, d7agent: cli.Inside) -> None:
    """The file says `d7agent_up 0` rather than keep yesterday's numbers, and the command still fails with status 3."""
    target = folder / "d7agent.prom"
    found = d7agent("status", "--format", "openmetrics", "--output", str(target))
    assert found.status == 3
    assert parsed(target.read_text()) == {"d7agent_up": 0}


def test_without_an_agent_other_formats_leave_the_file(folder: Path, d7agent: cli.Inside) -> None:
    """Only OpenMetrics can say that nobody answered."""
    target = folder / "status.json"
    assert d7agent("status", "--json", "--output", str(target)).status == 3
    assert not target.exists()


@pytest.mark.parametrize("place", ["/dev/null", "{0}/missing/x.prom", "{0}"])
def test_output_takes_the_place_of_no_device(folder: Path, d7agent: cli.Inside, place: str) -> None:
    """What is no regular file is not replaced, and no folder is made for a misspelled path."""
    with FakeAgent(cli.own_socket(folder), GetStatus={"parameters": STATUS}):
        found = d7agent("status", "--format", "openmetrics", "--output", place.format(folder))
    assert found.status != 0
    assert cli.is_two_lines(found.err)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert not (folder / "missing").exists()


@pytest.fixture
def units() -> Iterator[list[str]]:
    """The shipped units with a command that is there."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"d7agent-metrics.{kind}") for kind in ("service", "timer")]
        for path in paths:
            text = (ROOT / "systemd" / "system" / path.name).read_text()
            path.write_text(text.replace("/usr/bin/d7agent", "/bin/true"))
        yield [str(path) for path in paths]


def test_the_units_are_sound(units: list[str]) -> None:
    """systemd itself knows every key of service and timer."""
    argv = ["systemd-analyze", "verify", "--recursive-errors=no", *units]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_service_is_hardened(units: list[str]) -> None:
    """It needs a socket and one folder, and has no more."""
    argv = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", units[0]]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stdout[-200:]


def test_the_service_runs_a_command_that_we_have(folder: Path, d7agent: cli.Inside) -> None:
    """Its ExecStart is a command line that the program understands: the only fault is the missing agent or folder."""
    text = (ROOT / "systemd" / "system" / "d7agent-metrics.service").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    _, *arguments = line.removeprefix("ExecStart=").split()
    socket, target = str(folder / "no.sock"), str(folder / "d7agent.prom")
    places = {"/run/d7agent/agent.sock": socket, "/var/lib/prometheus/node-exporter/d7agent.prom": target}
    assert d7agent(*(places.get(word, word) for word in arguments)).status == 3
    assert parsed(Path(target).read_text()) == {"d7agent_up": 0}
