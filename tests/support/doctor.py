"""What the tests of `doctor` share: a user who lives in a folder, and what a check complains of."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from d7agent.cli.doctor.finding import Finding
from d7agent.cli.doctor.scene import Scene, gather
from tests.support import cli

Check = Callable[[Scene], Iterator[Finding]]


@pytest.fixture
def folder() -> Iterator[Path]:
    with cli.short_folder() as path:
        yield path


@pytest.fixture
def d7agent(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> cli.Inside:
    """The command line, and the environment of a user who lives in the folder."""
    return cli.inside(folder, capfd, monkeypatch)


@pytest.fixture
def config(folder: Path, d7agent: cli.Inside) -> Path:
    path = folder / ".config" / "d7agent"
    path.mkdir(parents=True, mode=0o700)
    return path


@pytest.fixture
def nearby(config: Path) -> None:
    """A profile whose D7 is a closed port of this machine, so that no check leaves it."""
    (config / "profiles").mkdir(mode=0o700)
    (config / "profiles" / "default.toml").write_text('base_url = "http://127.0.0.1:9"\n')


def look(named: str | None = None) -> Scene:
    return gather(os.environ, os.geteuid(), named)


def bad(check: Check, scene: Scene) -> list[Finding]:
    """What the check complains of; each complaint has a remedy, and nothing that is well has one."""
    found = list(check(scene))
    assert all(bool(one.remedy) == (one.level != "ok") for one in found)
    return [one for one in found if one.level != "ok"]


def only(check: Check, scene: Scene) -> Finding:
    (found,) = bad(check, scene)
    return found
