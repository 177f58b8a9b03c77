"""The table of faults: keyring plugins that raise, print, leave, flood or hang, in real helpers of a real agent."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from d7agent.sandbox import DEFAULT_SECRET, Sandbox, Settings
from tests.support.scene import Profile, Scene, is_fresh
from tests.support.staging import OwnPython, Staged

UNAVAILABLE, NO_CREDENTIAL, STORE = 6, 4, 9  # exit statuses
HIDDEN = "s3cr3t-of-the-plugin"
GOOD = f'{{"client_id":"sandbox-id","client_secret":"{DEFAULT_SECRET}"}}'
MODULE = """
import ctypes, os, signal, sys, time
from keyring.backend import KeyringBackend
from keyring.errors import InitError, KeyringLocked

HIDDEN, GOOD = {hidden!r}, {good!r}

class Plugin(KeyringBackend):
    priority = 1
    def set_password(self, service, user, password):
        raise RuntimeError(password)
    def delete_password(self, service, user):
        raise RuntimeError(HIDDEN)
    def get_password(self, service, user):
        return GOOD if user.endswith("#token") is False else None
"""
READS = """
class {name}(Plugin):
    def get_password(self, service, user):
        {code}
        return super().get_password(service, user)
"""


class Row(NamedTuple):
    """What the plugin does when it is asked; the exit status and words of `token`; 0 is a good token all the same."""

    code: str
    exit: int
    words: str


FAILED = "the keyring failed with"
DEAD = "without a proper answer"
ROWS = {
    "RuntimeError": Row("raise RuntimeError(HIDDEN)", STORE, f"{FAILED} RuntimeError"),
    "FileNotFoundError": Row("raise FileNotFoundError(2, HIDDEN)", STORE, f"{FAILED} FileNotFoundError"),
    "PermissionError": Row("raise PermissionError(13, HIDDEN)", STORE, f"{FAILED} PermissionError"),
    "ModuleNotFoundError": Row("import nowhere_to_be_found", STORE, f"{FAILED} ModuleNotFoundError"),
    "KeyError": Row("raise KeyError(HIDDEN)", STORE, f"{FAILED} KeyError"),
    "MemoryError": Row("raise MemoryError(HIDDEN)", STORE, f"{FAILED} MemoryError"),
    "RecursionError": Row("return self.get_password(service, user)", STORE, f"{FAILED} RecursionError"),
    "InitError": Row("raise InitError(HIDDEN)", STORE, f"{FAILED} InitError"),
    "KeyringLocked": Row("raise KeyringLocked(HIDDEN)", STORE, "the keyring is locked"),
    "BaseException": Row("raise BaseException(HIDDEN)", STORE, f"{FAILED} BaseException"),
    "KeyboardInterrupt": Row("raise KeyboardInterrupt(HIDDEN)", STORE, f"{FAILED} KeyboardInterrupt"),
    "sys-exit": Row("sys.exit(HIDDEN)", STORE, f"{FAILED} SystemExit"),
    "sys-exit-0": Row("sys.exit(0)", STORE, f"{FAILED} SystemExit"),
    "os-exit-0": Row("os._exit(0)", UNAVAILABLE, f"status 0 {DEAD}"),
    "os-exit-7": Row("os._exit(7)", UNAVAILABLE, f"status 7 {DEAD}"),
    "abort": Row("os.abort()", UNAVAILABLE, f"signal 6 {DEAD}"),
    "segfault": Row("ctypes.string_at(0)", UNAVAILABLE, f"signal 11 {DEAD}"),
    "closes-all": Row("os.closerange(0, 64); return None", UNAVAILABLE, DEAD),
    "returns-a-number": Row("return 12", NO_CREDENTIAL, "not what d7agent wrote"),
    "returns-bytes": Row("return HIDDEN.encode()", NO_CREDENTIAL, "not what d7agent wrote"),
    "returns-nothing": Row("return None", NO_CREDENTIAL, "no credential"),
    "hangs": Row("time.sleep(60)", STORE, "did not answer within 15 s"),
    "prints": Row("print(HIDDEN, GOOD)", 0, ""),
    "prints-below": Row("os.write(1, GOOD.encode()); os.write(2, GOOD.encode())", 0, ""),
    "a-child-prints": Row('os.system("echo " + HIDDEN + "; echo " + HIDDEN + " >&2")', 0, ""),
    "floods": Row("os.write(1, GOOD.encode() * 100_000)", 0, ""),
    "half-a-line": Row("print(GOOD, end=''); print(GOOD, end='', file=sys.stderr)", 0, ""),
    "closes-stdout": Row("sys.stdout.close()", 0, ""),
    "changes-folder": Row('os.chdir("/"); os.umask(0)', 0, ""),
    "leaves-a-child": Row("os.fork() or time.sleep(5) or os._exit(0)", 0, ""),
}


def module() -> str:
    """The plugins, a class each."""
    classes = [READS.format(name=class_of(name), code=row.code) for name, row in ROWS.items()]
    return MODULE.format(hidden=HIDDEN, good=GOOD) + "".join(classes)


def class_of(name: str) -> str:
    return "Is_" + name.replace("-", "_")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One agent for all rows, whose helpers find the plugins."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "oddities.py").write_text(module())
    python = OwnPython(folder / "double")
    with Staged(command=python.command) as live:
        live.start()
        python.wrap(f'PYTHONPATH={folder} exec "$@"')
        yield Scene(live)


def over(profile: Profile) -> bool:
    """Whether the first attempt is."""
    return "last_error" in profile or is_fresh(profile)


def play(scene: Scene, name: str) -> None:
    row = ROWS[name]
    profile = name.lower()
    with Sandbox(Settings(lifetime=600)) as box:
        folder = scene.credential(profile)
        scene.configure(profile, box.url, f"keyring:oddities.{class_of(name)}", remember_token=False)
        scene.wait(profile, over)
        done = scene.ask(profile, "--max-wait", "0" if row.exit == UNAVAILABLE else "20")
        assert done.returncode == row.exit, done.stderr
        assert row.words in done.stderr
        assert DEFAULT_SECRET not in done.stderr
        assert HIDDEN not in done.stderr
        assert box.stats.logins == (1 if row.exit == 0 else 0)
        scene.configure(profile, box.url, f"directory:{folder}")
        scene.wait(profile, is_fresh)


def test_plugins(scene: Scene, subtests: pytest.Subtests) -> None:
    """The caller is told what went wrong in words of ours; another store is taken at once; no word of a plugin is kept.

    The agent serves others meanwhile: all rows are played at once.
    """
    with ThreadPoolExecutor(4) as pool:
        played = {name: pool.submit(play, scene, name) for name in ROWS}
        for name, result in played.items():
            with subtests.test(fault=name):
                result.result()
    said = scene.live.journal()
    assert [hidden for hidden in (HIDDEN, DEFAULT_SECRET, "Traceback") if hidden in said] == []
    scene.nothing_lost()


def test_a_store_that_cannot_be_written(scene: Scene) -> None:
    """`login` into a plugin that raises with the secret in its words: exit 9, and no word of it anywhere."""
    with Sandbox(Settings(lifetime=600)) as box:
        store = "keyring:oddities.Plugin"
        typed = f"sandbox-id\n{DEFAULT_SECRET}\n"
        done = scene.live.run("login", "x", "--stdin", "--base-url", box.url, "--store", store, text=typed)
        assert done.returncode == STORE, done.stderr
        assert DEFAULT_SECRET not in done.stdout + done.stderr + scene.live.journal()
