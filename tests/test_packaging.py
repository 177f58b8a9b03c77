"""What is installed: the wheel's contents, and the launcher in place of the wrapper that pip would write."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.sources import ROOT, imports


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel as scripts/test builds it, without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-P", "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    run = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=50)
    assert run.returncode == 0, run.stdout + run.stderr
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_everything_below_the_package_ships(wheel: zipfile.ZipFile) -> None:
    """Modules and data, the interface file and the mark of a typed package among them."""
    here = (path.relative_to(ROOT) for path in (ROOT / "d7agent").rglob("*") if path.is_file())
    caches = ("__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis")
    wanted = {path.as_posix() for path in here if not set(path.parts) & set(caches)}
    assert {"d7agent/py.typed", "d7agent/wire/io.d7agent.varlink"} <= wanted
    assert wanted - set(wheel.namelist()) == set()


def test_nothing_else_is_importable_from_the_wheel(wheel: zipfile.ZipFile) -> None:
    """No `tests` or `scripts` lands in site-packages."""
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.startswith("d7agent-")} == {"d7agent"}


def test_the_launcher_ships_with_a_shebang_to_fill_in(wheel: zipfile.ZipFile) -> None:
    """Installers replace `#!python`, and only that, by their interpreter."""
    (launcher,) = (name for name in wheel.namelist() if name.endswith(".data/scripts/d7agent"))
    assert wheel.read(launcher).splitlines()[0] == b"#!python"
    assert wheel.getinfo(launcher).external_attr >> 16 & 0o777 == 0o755
    assert not any(name.endswith("entry_points.txt") for name in wheel.namelist())


def test_the_launcher_imports_the_door_alone() -> None:
    """What is imported beside d7agent.__main__ would be paid by every `d7agent token` in a loop."""
    launcher = ast.parse((ROOT / "scripts/d7agent").read_text("utf-8"))
    assert [imported.name for imported in imports(launcher)] == ["d7agent.__main__.main"]


def test_the_command_is_installed_beside_the_interpreter() -> None:
    """The installed file starts this very interpreter and holds the launcher's own code."""
    installed = Path(sys.executable).with_name("d7agent").read_text("utf-8").splitlines()
    assert Path(installed[0].removeprefix("#!")).resolve() == Path(sys.executable).resolve()
    assert installed[1:] == (ROOT / "scripts/d7agent").read_text("utf-8").splitlines()[1:]


def test_the_command_knows_its_version() -> None:
    """`d7agent --version` answers with the version of the installed package."""
    from d7agent import __version__

    argv = [str(Path(sys.executable).with_name("d7agent")), "--version"]
    run = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    assert (run.returncode, run.stderr) == (0, "")
    assert __version__ in run.stdout.split()
