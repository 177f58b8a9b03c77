"""A socket behind which somebody else's server sits: it answers as an agent does, and writes down what it is sent."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.sources import ROOT

UID: Final = 12_345


@contextmanager
def strangers_agent(path: Path, uid: int = UID) -> Iterator[Path]:
    """An agent of this uid at `path`. What it is sent is in the file that is yielded, once the block has ended."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: only root can run an agent as another user, so run the tests as root")
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    record = path.with_name("received")
    argv = [sys.executable, "-m", "tests.support.fakeagent", str(path), str(uid), str(record)]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        assert agent.stdin is not None
        assert agent.stdout.readline() == b"ready\n"
        yield record
        agent.stdin.close()
        assert agent.wait(10) == 0
