"""The plugin that CI loads, so that nothing goes untested there without anybody noticing."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sources import ROOT

SKIPPED = "import pytest\n@pytest.mark.skip(reason='no keyring here')\ndef test_x(): pass\n"
SKIPPED_INSIDE = "import pytest\ndef test_x(): pytest.skip('no keyring here')\n"
SKIPPED_WHOLE = "import pytest\npytest.skip('no keyring here', allow_module_level=True)\n"
EXPECTED_FAILURE = "import pytest\n@pytest.mark.xfail(reason='known')\ndef test_x(): assert False\n"


def run_pytest(folder: Path, code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on this code alone, in an interpreter of its own."""
    (folder / "test_it.py").write_text(code, "utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", "utf-8")
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args, str(folder)]
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=50)


@pytest.mark.parametrize("code", [SKIPPED, SKIPPED_INSIDE, SKIPPED_WHOLE])
def test_a_skip_fails_the_run_with_its_reason(tmp_path: Path, code: str) -> None:
    """However a test is skipped, CI fails and says why it was."""
    assert run_pytest(tmp_path, code).returncode in (0, 5)
    run = run_pytest(tmp_path, code, "-p", "tests.support.noskip")
    assert run.returncode in (1, 2)
    assert "nothing may be skipped in CI" in run.stdout
    assert "no keyring here" in run.stdout


def test_a_skip_fails_in_parallel_runs_too(tmp_path: Path) -> None:
    """The workers of pytest-xdist load the plugin as well."""
    run = run_pytest(tmp_path, SKIPPED, "-p", "tests.support.noskip", "-n", "1")
    assert run.returncode == 1
    assert "no keyring here" in run.stdout


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    """A test marked xfail that fails leaves the run good."""
    assert run_pytest(tmp_path, EXPECTED_FAILURE, "-p", "tests.support.noskip").returncode == 0
