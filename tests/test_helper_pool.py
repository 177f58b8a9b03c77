"""Starting helpers: what runs when, and what a helper that misbehaves turns into."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from d7agent.agent.helpers import AT_ONCE, PER_HOST, Helpers, supplied, whitelisted
from d7agent.core import jobs
from d7agent.core.jobs import Failed, Job, Target
from d7agent.core.model import Secret, Stamp

NOW = Stamp(boot=1.0, wall=2.0)
DONE = jobs.encode(jobs.Done(kept=("x",))).decode()
READ = "import sys; print(flush=True); data = sys.stdin.buffer.read()"
ECHO = f"{READ}; sys.stdout.write(sys.argv[1])"


def forget() -> jobs.Forget:
    return jobs.Forget(Target("default"))


def login(host: str = "one") -> jobs.Login:
    return jobs.Login(Target("default", base_url=f"https://{host}.example"), NOW)


def run(job: Job, program: str, *arguments: str, limit: float = 10.0, raw: bytearray | None = None) -> jobs.Reply:
    helpers = Helpers(os.environ, (sys.executable, "-c", program, *arguments), limit)
    return asyncio.run(helpers.run(job, raw=raw))


def failure(reply: jobs.Reply) -> Failed:
    assert isinstance(reply, Failed)
    return reply


def test_reply_is_decoded() -> None:
    """A helper's one reply is the job's result."""
    assert run(forget(), ECHO, DONE) == jobs.Done(kept=("x",))


def test_request_and_raw_parameters_arrive_whole(tmp_path: Path) -> None:
    """The helper reads the job, a NUL and the caller's raw bytes, and the agent's copy of them is wiped."""
    out = tmp_path / "seen"
    raw = bytearray(b'{"client_secret":"' + b"s" * 60_000 + b'"}')
    sent = bytes(raw)
    program = f"{READ}; open(sys.argv[2], 'wb').write(data); sys.stdout.write(sys.argv[1])"
    run(forget(), program, DONE, str(out), raw=raw)
    assert out.read_bytes() == jobs.encode(forget()) + b"\0" + sent
    assert raw == bytes(len(sent))


PICKY = """
import os, select, sys
early = select.select([0], [], [], 0)[0]
os.write(1, b"\\n")
data = sys.stdin.buffer.read()
os.write(1, b'{"reply":"done","kept":["%s"]}' % (b"early" if early else b"%d" % len(data)))
"""


def test_a_helper_has_nothing_before_it_is_ready() -> None:
    """Up to its READY there is not a byte for it to read, and for others to read in its place; then there is all."""
    raw = bytearray(b"s" * 60_000)
    size = len(jobs.encode(forget())) + 1 + len(raw)
    assert run(forget(), PICKY, raw=raw) == jobs.Done(kept=(str(size),))


def test_a_helper_that_is_not_ready_gets_no_request(tmp_path: Path) -> None:
    """One that answers, or prints, in place of READY is answered with the end of its input."""
    seen = tmp_path / "seen"
    program = "import sys; print('x', flush=True); open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"
    raw = bytearray(b'{"client_secret":"tr0ub4dor"}')
    assert "without a proper answer" in failure(run(forget(), program, str(seen), raw=raw)).message
    assert seen.read_bytes() == b""
    assert not any(raw)


def test_a_helper_that_reads_slowly_gets_all() -> None:
    """More than a pipe holds is written as it is read."""
    program = f'{READ}; print(\'{{"reply":"done","kept":["%d"]}}\' % len(data))'
    raw = bytearray(1_000_000)
    assert run(forget(), program, raw=raw) == jobs.Done(kept=(str(len(jobs.encode(forget())) + 1 + len(raw)),))


def test_a_helper_that_ends_before_it_has_read_is_a_clear_failure() -> None:
    """A request that nobody reads to its end is no error of its own: how the helper ended is told."""
    program = "import os; os.write(1, b'\\n'); os._exit(7)"
    assert "status 7" in failure(run(forget(), program, raw=bytearray(1_000_000))).message


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("print('rubbish')", "without a proper answer"),
        ("pass", "status 0"),
        ("import sys; sys.exit(7)", "status 7"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9"),
        ("print('[' * 100000)", "without a proper answer"),
        ("""import os; os.write(1, b'{"reply":"done","backend":"\\xff"}')""", "without a proper answer"),
        ("print('x' * 10_000_000)", "without a proper answer"),
    ],
)
def test_misbehaving_helper_is_a_clear_failure(program: str, says: str) -> None:
    """Rubbish, an early end, a crash and a flood each become helper_failed with what happened."""
    failed = failure(run(forget(), program))
    assert failed.reason == "helper_failed"
    assert says in failed.message
    assert failed.hint


def test_hanging_helper_is_ended() -> None:
    """A helper that hangs is killed at its limit and the caller hears `timeout`."""
    failed = failure(run(forget(), "import signal; signal.pause()", limit=0.3))
    assert failed.reason == "timeout"


def test_missing_helper_is_a_clear_failure() -> None:
    """An interpreter that cannot be started is helper_failed, not an exception."""
    helpers = Helpers({}, ("/nonexistent/python",))
    failed = failure(asyncio.run(helpers.run(forget())))
    assert (failed.reason, "cannot be started" in failed.message) == ("helper_failed", True)


def test_only_whitelisted_environment_reaches_the_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    """PYTHON*, NOTIFY_SOCKET and LISTEN_* stay out, and so do the variables that may hold a credential."""
    surprises = {"PYTHONPATH": "/x", "NOTIFY_SOCKET": "@n", "LISTEN_FDS": "1", "LD_PRELOAD": "x", "D7_CLIENT_ID": "a"}
    environment = {"HOME": "/h", "LC_ALL": "C", "XDG_RUNTIME_DIR": "/r", "P_D7_API_TOKEN": "t", **surprises}
    assert set(whitelisted(environment)) == {"HOME", "LC_ALL", "XDG_RUNTIME_DIR"}


def test_the_environment_store_gets_its_variables_with_the_job() -> None:
    """D7_* go to a job whose store is the environment, with its prefix, and to no other."""
    environment = {"D7_CLIENT_ID": "a", "P_D7_API_TOKEN": "t", "OTHER": "x"}

    def given(store: str) -> dict[str, Secret]:
        job = supplied(jobs.Forget(Target("default", store=store)), environment)
        assert isinstance(job, jobs.Forget)
        return job.target.variables

    assert given("environment") == {"D7_CLIENT_ID": Secret("a")}
    assert given("environment:P_") == {"P_D7_API_TOKEN": Secret("t")}
    assert given("keyring") == {}
    proof = jobs.Prove("https://one.example", Secret("t"))
    assert supplied(proof, environment) is proof


def test_a_variable_that_is_no_text_is_told() -> None:
    """What cannot be sent to a helper is the store's fault, and none that nobody foresaw."""
    helpers = Helpers({"D7_CLIENT_SECRET": "tr0ub\udcff"}, (sys.executable, "-c", ECHO, DONE))
    failed = failure(asyncio.run(helpers.run(jobs.Forget(Target("default", store="environment")))))
    assert (failed.reason, "not UTF-8" in failed.message) == ("store_missing", True)
    assert "tr0ub" not in f"{failed}"


GATE = """
import os, sys
os.write(os.open(sys.argv[2], os.O_WRONLY), b"s")   # started
os.read(os.open(sys.argv[3], os.O_RDONLY), 1)       # until the test opens the gate
sys.stdout.write(sys.argv[1])
"""


class Gated:
    """Helpers that report their start on a pipe and wait at a gate."""

    def __init__(self, folder: Path) -> None:
        self.gate = folder / "gate"
        os.mkfifo(self.gate)
        os.mkfifo(folder / "starts")
        self.starts = os.open(folder / "starts", os.O_RDWR | os.O_NONBLOCK)
        program = (sys.executable, "-c", GATE, DONE, str(folder / "starts"), str(self.gate))
        self.helpers = Helpers(os.environ, program, 20.0)

    async def started(self, count: int) -> None:
        """Wait until so many more have started."""
        loop = asyncio.get_running_loop()
        while count:
            ready = asyncio.Event()
            loop.add_reader(self.starts, ready.set)
            await asyncio.wait_for(ready.wait(), 10)
            loop.remove_reader(self.starts)
            count -= len(os.read(self.starts, count))

    def none_started(self) -> bool:
        """Whether no other helper has started."""
        try:
            return not os.read(self.starts, 1)
        except BlockingIOError:
            return True

    def open(self) -> int:
        """Let everyone through."""
        fd = os.open(self.gate, os.O_RDWR)
        os.write(fd, b"g" * 100)
        return fd


async def gated(folder: Path, work: Callable[[Gated], Awaitable[None]]) -> None:
    await work(Gated(folder))


@pytest.mark.parametrize(
    ("make", "prompt", "at_once"),
    [
        (lambda n: login(f"host{n}"), False, AT_ONCE),
        (lambda n: login("same"), False, PER_HOST),
        (lambda n: forget(), True, 1),
    ],
    ids=["in all", "for one host", "that prompt"],
)
def test_no_more_at_once_than_allowed(tmp_path: Path, make: Callable[[int], Job], prompt: bool, at_once: int) -> None:
    """Eight helpers at once, two for one host, one that may prompt; the others wait and then run."""

    async def work(pool: Gated) -> None:
        runs = [asyncio.ensure_future(pool.helpers.run(make(n), prompt=prompt)) for n in range(at_once + 2)]
        await pool.started(at_once)
        assert pool.none_started()
        gate = pool.open()
        await asyncio.gather(*runs)
        os.close(gate)

    asyncio.run(gated(tmp_path, work))


def test_waiting_callers_go_first(tmp_path: Path) -> None:
    """A place that gets free goes to a profile with waiting callers, not to the one that came first."""

    async def work(pool: Gated) -> None:
        order: list[str] = []

        async def one(name: str, *, urgent: bool) -> None:
            await pool.helpers.run(login("same"), urgent=lambda: urgent)
            order.append(name)

        first = [asyncio.ensure_future(one(f"first{n}", urgent=False)) for n in range(PER_HOST)]
        await pool.started(PER_HOST)
        patient = asyncio.ensure_future(one("patient", urgent=False))
        urgent = asyncio.ensure_future(one("urgent", urgent=True))
        first[0].cancel()
        await pool.started(1)
        first[1].cancel()
        gate = pool.open()
        await asyncio.gather(patient, urgent)
        os.close(gate)
        assert order[0] == "urgent"

    asyncio.run(gated(tmp_path, work))


def test_cancelled_job_ends_its_process(tmp_path: Path) -> None:
    """Cancelling returns only when the process is gone, so that no second login can run beside it."""
    program = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); import signal; signal.pause()"
    pid_file = tmp_path / "pid"
    os.mkfifo(pid_file)

    async def work() -> int:
        helpers = Helpers(os.environ, (sys.executable, "-c", program, str(pid_file)))
        job = asyncio.ensure_future(helpers.run(forget()))
        pid = int(await asyncio.to_thread(pid_file.read_text))
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
        return pid

    pid = asyncio.run(work())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_secrets_are_redacted_in_jobs() -> None:
    """The repr of a job or reply shows no secret."""
    for shown in (jobs.Prove("https://x", Secret("s3cret")), jobs.Granted(Secret("s3cret"), NOW)):
        assert "s3cret" not in repr(shown)
        assert "s3cret" not in str(shown)
