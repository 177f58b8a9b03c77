"""Hints from inotify: what they cost, and what happens where there are none."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from d7agent.agent.hints import Hints
from tests.support.osfaults import open_files_limit


def test_where_inotify_is_used_up_it_is_said_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As the kernel really refuses it; then the limit is lifted."""
    hints = Hints()
    assert hints.arm(frozenset([str(tmp_path)]))
    hints.close()
    assert not hints.glance()
    with caplog.at_level(logging.WARNING), open_files_limit(3):
        assert not hints.arm(frozenset([str(tmp_path)]))
        assert not hints.arm(frozenset([str(tmp_path)]))
    assert not hints.armed
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "looking at the files every few seconds instead" in caplog.text
    assert hints.arm(frozenset([str(tmp_path)]))
    (tmp_path / "x").touch()
    hints.close()


def test_a_folder_that_went_before_it_could_be_watched_is_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The next look finds what is there instead."""
    assert not Hints().arm(frozenset([str(tmp_path / "gone")]))
    assert caplog.text == ""


def test_the_watch_does_not_bring_the_whole_package_along() -> None:
    """Neither anyio nor watchfiles' own modules: the agent would not fit its size."""
    script = (
        "import sys; from d7agent.agent.hints import Hints; "
        "assert Hints().arm(frozenset(['/'])); "
        "print(*sorted(m for m in sys.modules if m.partition('.')[0] in ('anyio', 'watchfiles')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["watchfiles._rust_notify"]


def test_the_package_itself_still_works_beside_it(tmp_path: Path) -> None:
    """Whoever imports watchfiles afterwards gets the same extension, whole."""
    script = (
        "from d7agent.agent.hints import Hints; Hints().arm(frozenset(['/'])); "
        "import sys, watchfiles; print(watchfiles.main.RustNotify is sys.modules['watchfiles._rust_notify'].RustNotify)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "True\n"
