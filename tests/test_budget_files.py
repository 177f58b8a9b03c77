"""Where budgets are kept when the state folder cannot be written, and which of two files counts."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from d7agent.agent import files
from d7agent.agent.budget_files import BudgetFiles
from d7agent.core.budget import Snapshot
from d7agent.core.model import Stamp
from tests.support.osfaults import NOBODY, paths_in, unprivileged

NOW = Stamp(boot=1000.0, wall=1.79e9, boot_id="b")
FIRST = Snapshot(level=20.0, wall=NOW.wall, boot=NOW.boot, boot_id="b")
SECOND = replace(FIRST, level=19.0, boot=NOW.boot + 1)
THIRD = replace(FIRST, level=18.0, boot=NOW.boot + 2)
LATER = replace(NOW, boot=NOW.boot + 3)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A user's home, without root's rights."""
    with unprivileged() as made:
        (made / "state").mkdir(mode=0o700)
        (made / "run").mkdir(mode=0o700)
        yield made


def kept(folder: Path) -> BudgetFiles:
    """As a starting agent sees them."""
    return BudgetFiles(paths_in(folder))


def test_a_state_folder_that_cannot_be_written(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The runtime folder takes over, which is told once, and the newest of both files counts at the next start."""
    caplog.set_level("INFO")
    assert kept(folder).save("a", FIRST)
    (folder / "state").chmod(0o500)
    budgets = kept(folder)
    assert budgets.save("a", SECOND)
    assert budgets.save("b", SECOND)
    assert (folder / "run/state/a.state").stat().st_mode & 0o777 == 0o600
    assert (folder / "run/state").stat().st_mode & 0o777 == 0o700
    assert kept(folder).read("a", LATER) == kept(folder).read("b", LATER) == SECOND
    (said,) = caplog.messages
    assert f"cannot be written to {folder}/state: Permission denied; they are kept in {folder}/run/state" in said


def test_a_state_folder_that_can_be_written_again(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The next save goes there, tells of it and takes the other file away, over a restart as well."""
    caplog.set_level("INFO")
    (folder / "state").chmod(0o500)
    budgets = kept(folder)
    for name in ("a", "b"):
        assert budgets.save(name, FIRST)
    (folder / "state").chmod(0o700)
    assert budgets.save("a", SECOND)
    assert "written to" in caplog.messages[-1]
    assert not (folder / "run/state/a.state").exists()
    again = kept(folder)
    assert (again.read("a", LATER), again.read("b", LATER)) == (SECOND, FIRST)
    assert again.save("b", THIRD)
    assert os.listdir(folder / "run/state") == []
    assert again.read("b", LATER) == THIRD


def test_no_folder_that_can_be_written(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Both are named, once; the machine is told, and again when one of them works."""
    for name in ("state", "run"):
        (folder / name).chmod(0o500)
    budgets = kept(folder)
    assert [budgets.save("a", FIRST) for _ in range(3)] == [False] * 3
    (said,) = caplog.messages
    assert f"{folder}/state: Permission denied, nor to {folder}/run/state: Permission denied" in said
    assert "one login per 2 min" in said
    (folder / "run").chmod(0o700)
    assert budgets.save("a", FIRST)


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: another user's folder; run the tests as root")
def test_folders_of_someone_else_are_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """He could fill the bucket: nothing is written there, and nothing believed."""
    paths = paths_in(tmp_path)
    for folder in (paths.state_dir, paths.spare_state_dir):
        files.write_state(f"{folder}/a.state", FIRST)
    os.chown(tmp_path / "run", NOBODY, NOBODY)
    budgets = BudgetFiles(paths)
    assert budgets.read("a", LATER) == FIRST
    os.chown(tmp_path / "state", NOBODY, NOBODY)
    assert budgets.read("a", LATER) is None
    assert not budgets.save("b", FIRST)
    assert f"the folder {tmp_path}/state belongs to uid {NOBODY}" in caplog.messages[-1]
    assert os.listdir(paths.spare_state_dir) == os.listdir(paths.state_dir) == ["a.state"]
