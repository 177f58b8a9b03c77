import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from d7agent.core.jobs import (
    Checked,
    CheckPassphrase,
    Done,
    Failed,
    Forget,
    Granted,
    Hashed,
    HashPassphrase,
    Keep,
    Login,
    Nothing,
    Recall,
    Reply,
    Target,
    decode_reply,
    encode,
)
from d7agent.core.model import Secret, Stamp
from d7agent.helper.session import Limits
from d7agent.sandbox import DEFAULT_ID, DEFAULT_SECRET, Sandbox
from d7agent.sandbox.tokens import READY_TOKEN
from tests.support.helper import NOW, USUAL, environment, finish_job, folder, run_job, shown, target

PAIR = {"client_id": DEFAULT_ID, "client_secret": DEFAULT_SECRET}
OLD = {"client_id": "old-id", "client_secret": "old-secret"}


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    """One sandbox for the module."""
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def box(shared: Sandbox) -> Sandbox:
    """The shared sandbox, healthy and with its counts at nil."""
    shared.clear()
    shared.reset_stats()
    return shared


def at(path: Path, box: Sandbox | None = None, **others: object) -> Target:
    """The directory store of this folder, against this sandbox."""
    url = {"base_url": box.url} if box else {}
    return target(f"directory:{path}", **url, **others)


def raw(**parameters: object) -> bytes:
    """Parameters as a caller sends them."""
    return msgspec.json.encode({"profile": "work", **parameters})


def granted(reply: Reply) -> Granted:
    """The same, known to be a token."""
    assert isinstance(reply, Granted), reply
    return reply


def failed(reply: Reply) -> Failed:
    """The same, known to have failed, and without the secrets used here."""
    assert isinstance(reply, Failed), reply
    assert DEFAULT_SECRET not in str(reply)
    return reply


def test_login_reads_logs_in_and_remembers(box: Sandbox, tmp_path: Path) -> None:
    """The token comes with the request's instant advanced by what passed here, on both clocks, and D7's date."""
    place = at(folder(tmp_path / "c", **PAIR), box, state_dir=str(tmp_path / "state"))
    reply = granted(run_job(Login(place, NOW)))
    assert 0 < reply.received.boot - NOW.boot < 20
    assert reply.received.wall - NOW.wall == pytest.approx(reply.received.boot - NOW.boot, abs=1e-3)
    assert reply.received.boot_id == NOW.boot_id
    assert reply.date is not None
    assert (reply.remembered, reply.recalled, reply.ready_made) == (True, False, False)
    assert (tmp_path / "state/work.token").exists()


def test_recall_answers_with_the_stamp_of_receipt(box: Sandbox, tmp_path: Path) -> None:
    """A restart gets the very token with the instant at which it came, without the network."""
    place = at(folder(tmp_path / "c", **PAIR), box)
    first = granted(run_job(Login(place, NOW)))
    box.reset_stats()
    again = granted(run_job(Recall(place, Stamp(boot=5.0, wall=6.0, boot_id="next-boot"))))
    assert (again.access_token, again.received, again.date) == (first.access_token, first.received, first.date)
    assert (again.recalled, again.remembered) == (True, True)
    assert box.stats.requests == 0


def test_a_remembered_token_belongs_to_its_credential(box: Sandbox, tmp_path: Path) -> None:
    """Another base URL, another client id, or a profile that remembers nothing: no token."""
    path = folder(tmp_path / "c", **PAIR)
    place = at(path, box)
    granted(run_job(Login(place, NOW)))
    assert run_job(Recall(at(path), NOW)) == Nothing()
    assert run_job(Recall(at(path, box, remember=False), NOW)) == Nothing()
    folder(path, client_id="another-id")
    assert run_job(Recall(place, NOW)) == Nothing()
    (path / "client_id").unlink()
    (path / "client_secret").unlink()
    assert run_job(Recall(place, NOW)) == Nothing(credential=False)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"v":1}', '{"v":1,"access_token":5}', "\x00" * 50])
def test_a_rubbish_token_file_is_no_token(box: Sandbox, tmp_path: Path, text: str) -> None:
    """Whatever happened to it, the agent starts without."""
    path = folder(tmp_path / "c", **PAIR)
    folder(path, **{".work.token": text})
    assert run_job(Recall(at(path, box), NOW)) == Nothing()


def test_a_token_file_that_others_can_read_is_not_served(box: Sandbox, tmp_path: Path) -> None:
    """Nor does it stand in the way of a login, which replaces it with a private one."""
    path = folder(tmp_path / "c", **PAIR)
    granted(run_job(Login(at(path, box), NOW)))
    (path / ".work.token").chmod(0o644)
    assert run_job(Recall(at(path, box), NOW)) == Nothing()
    assert granted(run_job(Login(at(path, box), NOW))).remembered
    assert (path / ".work.token").stat().st_mode & 0o777 == 0o600


def test_a_token_that_cannot_be_remembered_is_still_served(box: Sandbox, tmp_path: Path) -> None:
    """A full or missing state folder costs the next restart a login, no more."""
    place = at(folder(tmp_path / "c", **PAIR), box, state_dir="/proc/nowhere")
    assert granted(run_job(Login(place, NOW))).remembered is False


def test_a_ready_made_token_needs_no_network(tmp_path: Path) -> None:
    """Login and recall answer with it, received now."""
    place = at(folder(tmp_path / "c", access_token=READY_TOKEN), base_url="https://d7.invalid")
    for job in (Login(place, NOW), Recall(place, NOW)):
        reply = granted(run_job(job))
        assert shown(reply.access_token) == READY_TOKEN
        assert (reply.ready_made, reply.remembered) == (True, False)
        assert reply.recalled is isinstance(job, Recall)
        assert reply.received.boot >= NOW.boot


def test_no_credential(tmp_path: Path) -> None:
    """The store works and is empty: login says missing with the way out, recall says nothing."""
    place = at(tmp_path / "not-there")
    reply = failed(run_job(Login(place, NOW)))
    assert (reply.reason, reply.missing) == ("store_missing", True)
    assert "d7agent login" in reply.hint
    assert run_job(Recall(place, NOW)) == Nothing(credential=False)


def test_an_environment_credential(box: Sandbox) -> None:
    """The variables that come with the job, with a prefix; not the helper's own."""
    variables = {"MY_D7_CLIENT_ID": Secret(DEFAULT_ID), "MY_D7_CLIENT_SECRET": Secret(DEFAULT_SECRET)}
    job = Login(target("environment:MY_", base_url=box.url, variables=variables), NOW)
    assert granted(run_job(job)).remembered is False
    own = {name: value.reveal() for name, value in variables.items()}
    assert failed(run_job(Login(target("environment:MY_", base_url=box.url), NOW), env=own)).missing


def test_keep_proves_and_stores(box: Sandbox, tmp_path: Path) -> None:
    """What a person pasted is cleaned, proved by one login, stored and remembered."""
    place = at(tmp_path / "c", box)
    given = raw(client_id=f' "{DEFAULT_ID}"\n', client_secret=f"{DEFAULT_SECRET}\n", base_url="ignored", verify=True)
    reply = granted(run_job(Keep(place, NOW), given))
    assert reply.remembered
    assert box.stats.logins == 1
    assert (tmp_path / "c/client_secret").read_text() == f"{DEFAULT_SECRET}\n"
    assert granted(run_job(Recall(place, NOW))).access_token == reply.access_token


@pytest.mark.parametrize(
    ("fault", "reason", "permanent"),
    [("not-found", "refused", True), ("unauthorized", "refused", False), ("server-error", "http_status", False)],
)
def test_keep_stores_nothing_that_fails(box: Sandbox, tmp_path: Path, fault: str, reason: str, permanent: bool) -> None:
    """A credential that cannot be proved leaves the former one as it was."""
    path = folder(tmp_path / "c", **OLD)
    box.faults.add(fault)
    reply = failed(run_job(Keep(at(path, box), NOW), raw(**PAIR)))
    assert (reply.reason, reply.permanent) == (reason, permanent)
    assert {file.name: file.read_text() for file in path.iterdir()} == OLD


def test_keep_unproved_asks_nobody(tmp_path: Path) -> None:
    """Without verify the pair is stored as it is, and the old token is forgotten."""
    path = folder(tmp_path / "c")
    folder(path, **{".work.token": "old"})
    assert run_job(Keep(at(path, base_url="https://d7.invalid"), NOW, verify=False), raw(**PAIR)) == Done()
    assert (path / "client_id").read_text() == f"{DEFAULT_ID}\n"
    assert not (path / ".work.token").exists()


def test_keep_a_ready_made_token(box: Sandbox, tmp_path: Path) -> None:
    """Proved with the balance, stored in the place of the pair we wrote before."""
    place = at(tmp_path / "c", box)
    assert run_job(Keep(place, NOW, verify=False), raw(**PAIR)) == Done()
    reply = granted(run_job(Keep(place, NOW), raw(access_token=f"Bearer {READY_TOKEN}\n")))
    assert reply.ready_made
    assert box.stats.balances == 1
    assert {file.name for file in (tmp_path / "c").iterdir()} == {"access_token", ".d7agent"}


def test_keep_refuses_a_token_d7_refuses(box: Sandbox, tmp_path: Path) -> None:
    """401 with D7's code is permanent; nothing is stored."""
    reply = failed(run_job(Keep(at(tmp_path / "c", box), NOW), raw(access_token="no.such.token")))
    assert (reply.reason, reply.permanent) == ("refused", True)
    assert reply.code == "ACCESS_TOKEN_SIGNATURE_VERIFICATION_FAILED"
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"client_id": "i"}, "client_secret"),
        ({"client_secret": "s"}, "client_id"),
        ({"client_id": "", "client_secret": "s"}, "client_id"),
        ({"client_id": "i", "client_secret": " "}, "client_secret"),
        ({"client_id": "i", "client_secret": "a\u0000b"}, "client_secret"),
        ({"client_id": "i", "client_secret": 5}, "client_secret"),
        ({"client_id": ["i"], "client_secret": "s"}, "client_id"),
        ({"access_token": "a b"}, "access_token"),
        ({"access_token": "a", "client_id": "i"}, "access_token"),
        ({}, "client_id"),
    ],
)
def test_keep_names_the_parameter_at_fault(tmp_path: Path, parameters: dict[str, object], name: str) -> None:
    """What cannot be a credential is refused before anything is asked or written."""
    reply = failed(run_job(Keep(at(tmp_path / "c"), NOW), raw(**parameters)))
    assert reply.invalid == name
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("data", [b"{", b"[]", b"\xff", b'{"client_id":"\xff"}', b"[" * 100_000, b"null x"])
def test_keep_survives_rubbish_parameters(tmp_path: Path, data: bytes) -> None:
    """Parameters that are no JSON object are invalid, not a crash."""
    assert failed(run_job(Keep(at(tmp_path / "c"), NOW), data)).invalid == "parameters"


def test_keep_only_proves_what_a_read_only_store_has(box: Sandbox) -> None:
    """A credential given for one is refused by name; without one, what is there is proved by a login."""
    variables = {"D7_CLIENT_ID": Secret(DEFAULT_ID), "D7_CLIENT_SECRET": Secret(DEFAULT_SECRET)}
    job = Keep(target("environment", base_url=box.url, variables=variables), NOW)
    assert failed(run_job(job, raw(**PAIR))).invalid == "client_id"
    assert box.stats.logins == 0
    granted(run_job(job, raw()))
    assert box.stats.logins == 1
    assert failed(run_job(Keep(target("environment", base_url=box.url), NOW), raw())).missing


def test_a_write_that_fails_after_the_proof(box: Sandbox, tmp_path: Path) -> None:
    """The store's failure is told, and the former credential is what it was."""
    path = folder(tmp_path / "c", **OLD)
    (path / ".client_secret.tmp").mkdir()
    reply = failed(run_job(Keep(at(path, box), NOW), raw(**PAIR)))
    assert reply.reason == "store_unreachable"
    assert (path / "client_id").read_text() == "old-id"
    assert (path / "client_secret").read_text() == "old-secret"


def test_forget(box: Sandbox, tmp_path: Path) -> None:
    """The token alone, then all we wrote; what a person wrote stays and is named."""
    place = at(tmp_path / "c", box)
    granted(run_job(Keep(place, NOW), raw(**PAIR)))
    assert run_job(Forget(place, token_only=True)) == Done()
    assert run_job(Recall(place, NOW)) == Nothing()
    assert run_job(Forget(place)) == Done()
    assert list((tmp_path / "c").iterdir()) == []
    path = folder(tmp_path / "c", **PAIR)
    assert run_job(Forget(place)) == Done(kept=(str(path / "client_id"), str(path / "client_secret")))


def test_a_store_that_hangs_ends_in_time(tmp_path: Path) -> None:
    """A command that waits for ever is ended, and says that it was."""
    done = finish_job(Login(target("command:sleep 60", client_id="i"), NOW), limits=Limits(store=0.4))
    assert failed(done.reply).reason == "store_unreachable"
    assert done.seconds < 5


def test_a_passphrase_is_hashed_and_checked() -> None:
    """The same passphrase is right, another is not, and two hashes of one differ by their salt."""
    first, second = (run_job(HashPassphrase(), b'{"passphrase":"corr\xc3\xa9ct horse"}') for _ in range(2))
    assert isinstance(first, Hashed)
    assert isinstance(second, Hashed)
    assert first.salt != second.salt
    assert first.digest != second.digest
    check = CheckPassphrase(salt=first.salt, digest=first.digest)
    assert run_job(check, b'{"passphrase":"corr\xc3\xa9ct horse"}') == Checked(right=True)
    assert run_job(check, b'{"passphrase":"correct horse"}') == Checked(right=False)


@pytest.mark.parametrize("data", [b"", b"{}", b'{"passphrase":""}', b'{"passphrase":7}', b'{"passphrase":null}'])
def test_a_passphrase_that_is_none(data: bytes) -> None:
    """Empty, missing or no string: the parameter is named."""
    assert failed(run_job(HashPassphrase(), data)).invalid == "passphrase"


@pytest.mark.parametrize("data", [b"", b"rubbish\0", b"{}\0", b'{"job":"nope"}\0', b"\xff\0", b"x" * 300_000])
def test_no_job_is_a_failure_without_words(data: bytes) -> None:
    """Whatever comes in, one reply goes out, with the place and none of the input."""
    done = subprocess.run(USUAL, input=data, env=environment(None), capture_output=True, check=True, timeout=20)
    reply = failed(decode_reply(done.stdout))
    assert reply.reason == "helper_failed"
    assert "ValueError in door.py" in reply.message


def test_a_job_without_parameters_does_not_wait_for_the_end(tmp_path: Path) -> None:
    """The NUL ends a job that takes no parameters; the agent may keep its end open."""
    with subprocess.Popen(USUAL, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(None)) as helper:
        assert helper.stdin
        assert helper.stdout
        helper.stdin.write(encode(Recall(at(tmp_path), NOW)) + b"\0")
        helper.stdin.flush()
        assert decode_reply(helper.stdout.read()) == Nothing(credential=False)


def test_a_helper_whose_agent_is_gone_does_nothing() -> None:
    """An agent that dies while its helper starts leaves no orphan: nobody waits for the answer, so no login is made."""
    reading, writing = os.pipe()
    os.close(reading)
    with Sandbox() as box:
        variables = {"D7_CLIENT_ID": Secret(DEFAULT_ID), "D7_CLIENT_SECRET": Secret(DEFAULT_SECRET)}
        data = encode(Login(target("environment", base_url=box.url, variables=variables), NOW)) + b"\0"
        done = subprocess.run(USUAL, input=data, stdout=writing, env=environment(None), check=False, timeout=20)
        assert box.stats.logins == 0
    os.close(writing)
    assert done.returncode == 1
