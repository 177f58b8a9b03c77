"""A short round of everything that runs long (scripts/soak), and that each round sees what is broken on purpose."""

import importlib.util
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from d7agent.core import jobs, schedule
from d7agent.core.config import Config
from d7agent.core.model import Secret
from d7agent.helper.answers import Answer, Issued
from d7agent.wire.framing import Inbox, decode_call
from d7agent.wire.messages import Envelope
from tests.soak import __main__ as command
from tests.soak import attack, fuzz, kills, refreshes, weeks
from tests.soak.attack import attackers
from tests.soak.broken import Broken, Figures, Round
from tests.soak.fuzzing import answers, settings, wire
from tests.soak.kills import checks
from tests.support import memory
from tests.support.live import Live
from tests.support.week import DAY, Watched

SEED = 1
NO_ATHERIS = importlib.util.find_spec("atheris") is None
CALL = b'A{"method":"io.d7agent.GetToken","parameters":{"profile":"x"}}\n'


def test_a_short_round_of_kills() -> None:
    """The agent is killed six times at work, and nothing is broken, lost or left behind."""
    figures = kills.run(SEED, 6)
    assert figures["kills survived"] == 6
    assert figures["credentials stored"]


def test_a_short_round_of_weeks() -> None:
    """Eight weeks of seeds that the suite's other test does not have."""
    figures = weeks.run(1000, 8)
    assert figures["weeks"] == 8
    assert 0 < float(figures["longest outage that ended by itself, s"]) < 900


def test_a_short_round_of_refreshes() -> None:
    """The client secret is nowhere through six refreshes; lock and logout leave no token."""
    memory.need_root()
    figures = refreshes.run(SEED, 6)
    assert figures["hits of the client secret"] == 0
    assert 1 <= int(figures["copies of the token at rest"]) <= refreshes.COPIES


def test_a_short_round_of_attacks() -> None:
    """Under every kind of attack a well-behaved client gets its tokens; memory and descriptors come back."""
    memory.need_root()
    figures = attack.run(SEED, 500)
    served = [figure for name, figure in figures.items() if name.endswith("tokens served meanwhile")]
    assert len(served) == len(attackers.KINDS)
    assert all(int(tokens) > 0 for tokens in served)


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_the_corpus_breaks_nothing(name: str) -> None:
    """Every committed seed goes through its target; with or without atheris."""
    assert fuzz.replay_corpus(fuzz.TARGETS[name]) > 10


@pytest.mark.skipif(NO_ATHERIS, reason="NOT TESTED: new inputs; there is no atheris for this Python")
def test_a_short_round_of_fuzzing() -> None:
    """Some ten thousand new inputs, found by coverage, break nothing."""
    figures = fuzz.run(SEED, 15_000)
    assert int(figures["inputs fuzzed"]) >= 14_000
    assert int(figures["wire: edges covered"]) > 50


@pytest.mark.skipif(NO_ATHERIS, reason="NOT TESTED: new inputs; there is no atheris for this Python")
def test_the_fuzzer_finds_a_planted_bug() -> None:
    """A decoder that trips over one rare kind of call is caught, and what is printed brings it back."""
    planted = {"planted": fuzz.Target("tests.soak.fuzzing.planted:one_input", "wire", 1.0)}
    with pytest.raises(Broken, match="KeyError") as caught:
        fuzz.run(SEED, 30_000, planted)
    found = Path(caught.value.again.rpartition(" ")[2])
    with pytest.raises(KeyError):
        fuzz.loaded(planted["planted"])(found.read_bytes())
    assert fuzz.replay(found) == {"inputs replayed": 1}
    shutil.rmtree(found.parent)


class Leaky(Inbox):
    """An inbox that leaves the bytes of the last message where they were."""

    def clear(self) -> Inbox:
        end, self._end = self._end, 0
        self._start = self._scanned = 0
        self.room = self._view
        return super().clear() if end == 0 else self._shared or self


HALF = 60  # bytes: a piece of the message, and not the whole


class Forgetful(Inbox):
    """An inbox that loses track of where it had stopped to look for the end of a message."""

    def received(self, count: int) -> None:
        super().received(count)
        self._scanned = self._end if count < HALF else self._scanned


@pytest.mark.parametrize("kind", [Leaky, Forgetful])
def test_a_broken_inbox_is_seen(kind: Callable[[], Inbox]) -> None:
    """Bytes left in the shared buffer, and messages that depend on how they are cut."""
    data = CALL + CALL[1:30]
    wire.Wire()(data)
    with pytest.raises(Broken):
        wire.Wire(shared=kind())(data)


def wrong_flag(message: memoryview) -> Envelope:
    return msgspec.structs.replace(decode_call(message), oneway=True)


def wrong_method(message: memoryview) -> Envelope:
    return msgspec.structs.replace(decode_call(message), method="io.d7agent.Shutdown")


def foreign_parameters(message: memoryview) -> Envelope:
    return msgspec.structs.replace(decode_call(message), parameters=msgspec.Raw(b'{"profile":"another"}'))


@pytest.mark.parametrize("decode", [wrong_flag, wrong_method, foreign_parameters])
def test_a_broken_decoder_is_seen(decode: wire.Decode) -> None:
    """Another call than the one that was sent."""
    wire.Wire()(CALL)
    with pytest.raises(Broken):
        wire.Wire(decode)(CALL)


def too_kind(answer: Answer, *_: object) -> Issued:
    return Issued(Secret("x"))


def babbling(answer: Answer, *secrets: object) -> jobs.Failed:
    return jobs.Failed("http_status", f"{secrets[-1]}", status=answer.status)


def final(answer: Answer, *_: object) -> jobs.Failed:
    return jobs.Failed("http_status", "no", permanent=True, status=answer.status)


@pytest.mark.parametrize("sort", [too_kind, babbling, final])
def test_a_broken_reading_of_answers_is_seen(sort: answers.Sort) -> None:
    """A token out of a failure, the secret in a message, and a passing failure taken for a final one."""
    answers.Answers()(b"503\n\n{}")
    with pytest.raises(Broken):
        answers.Answers(sort)(b"503\n\n{}")


def test_a_broken_reading_of_settings_is_seen() -> None:
    """A configuration without the profile that there is."""
    settings.Settings()(b"\n---\n")
    with pytest.raises(Broken):
        settings.Settings(lambda *_: Config(profiles={}))(b"\n---\n")


def test_a_login_too_many_is_seen() -> None:
    """The books of a week are its own: what D7 has seen beyond the budget is found, whatever the machine says."""
    rig = Watched()
    rig.run(DAY)
    rig.d7.logins += [rig.clock.true] * 29
    rig.look()
    rig.d7.logins += [rig.clock.true] * 2
    with pytest.raises(AssertionError, match="more logins than the budget has"):
        rig.look()


def test_an_outage_without_end_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that waits for half an hour after a failure; the week that shows it is named."""
    monkeypatch.setattr(schedule, "BACKOFF_FIRST", 1800.0)
    monkeypatch.setattr(schedule, "BACKOFF_LAST", 1800.0)
    with pytest.raises(Broken, match="in a world that is well") as caught:
        weeks.run(SEED, 4)
    assert caught.value.again.startswith("--only weeks --weeks 1 --seed ")


STATE = {"level": 29.0, "wall": 1.0}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("home/.local/state/d7agent/x.state", '{"level":', "broken"),
        ("run/sinks/x.token", "eyJ", "half a sink"),
        ("cred-x/.x.token", '{"access_token":"eyJ"}', "half a remembered token"),
    ],
)
def test_half_a_file_is_seen(name: str, text: str, says: str) -> None:
    """State, sink and remembered token that were cut."""
    with Live() as live:
        checks.files(live)
        path = live.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(Broken, match=says):
            checks.files(live)


def test_half_a_credential_is_seen(tmp_path: Path) -> None:
    """An id without its secret; unless its deletion is under way."""
    (tmp_path / "client_id").write_text("x\n")
    with pytest.raises(Broken, match="half a credential"):
        checks.held(tmp_path)
    (tmp_path / ".d7agent.next").write_text("{}")
    assert checks.held(tmp_path) == checks.NOTHING


def test_a_login_that_nothing_was_paid_for_is_seen(tmp_path: Path) -> None:
    """A state file that does not know of a login that D7 has seen."""
    path = tmp_path / "x.state"
    path.write_text(json.dumps(STATE))
    checks.budget(path, 1, begun=time.monotonic())
    with pytest.raises(Broken, match="after 2"):
        checks.budget(path, 2, begun=time.monotonic())


def told(monkeypatch: pytest.MonkeyPatch, run: Callable[[int, int], Figures], *arguments: str) -> int:
    """Status of the command with one round, `mine`, in place of all."""
    monkeypatch.setattr(command, "ROUNDS", (Round("mine", "things", 50, 5, run),))
    monkeypatch.setattr("sys.argv", ["soak", *arguments])
    return command.main()


def test_the_command_tells_figures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A round is given the seed and the count; the table has what it answers; the status is 0."""
    assert told(monkeypatch, lambda seed, count: {"seeds": seed, "things": count}, "--seed", "7", "--quick") == 0
    out = capsys.readouterr().out
    assert "seed 7" in out
    assert "things  5" in out
    assert "nothing broke" in out


def test_the_command_tells_what_broke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 1, and the command that brings it back is named."""

    def run(seed: int, count: int) -> Figures:
        raise Broken("half a sink")

    assert told(monkeypatch, run, "--seed", "7", "--json") == 1
    (outcome,) = json.loads(capsys.readouterr().out)["rounds"]
    assert outcome["broken"] == "half a sink"
    assert outcome["again"] == "scripts/soak --only mine --things 50 --seed 7"


def test_a_new_seed_for_each_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --seed there is one that differs, and it is printed."""
    seen = list[int]()

    def run(seed: int, count: int) -> Figures:
        seen.append(seed)
        return {}

    for _ in range(2):
        told(monkeypatch, run, "--things", "1")
        assert f"seed {seen[-1]}" in capsys.readouterr().out
    assert seen[0] != seen[1]


def test_an_unknown_round_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The rounds there are are named."""
    with pytest.raises(SystemExit):
        told(monkeypatch, lambda *_: {}, "--only", "none")
    assert "mine" in capsys.readouterr().err
