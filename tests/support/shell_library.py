"""The shell library in a place of its own: an always-fresh file, and a stand-in for the installed command."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from d7agent.core.clock import boot_time, read_boot_id
from d7agent.core.forms import Facts, sink_form
from tests.support.sources import ROOT

LIBRARY: Final = ROOT / "scripts" / "d7agent.sh"
TOKEN: Final = "eyJhbGciOiJIUzI1NiJ9.eyJhdWQiOiJhdXRoLWJhY2tlbmQ6YXBwIn0.c2lnbmF0dXJl-_"
OTHER: Final = "eyJhbGciOiJIUzI1NiJ9.eyJhdWQiOiJhdXRoLWJhY2tlbmQ6YXBwIn0.b3RoZXI"
SHELLS: Final = ("dash", "bash", "zsh")
# Stands for the installed command: says what it was asked, and gives another token.
COMMAND: Final = f"""#!/bin/sh
printf '%s\\n' "$*" >>"$ASKED"
[ ! -e "$ASKED.status" ] || {{ read -r status <"$ASKED.status"; exit "$status"; }}
if [ "$1" = reject ]; then cat >>"$ASKED.rejected"; echo done; exit; fi
[ ! -e "$ASKED.answer" ] || exec cat "$ASKED.answer"
printf '%s\\n' {OTHER}
"""


class Place:
    """A runtime folder with an always-fresh file, and a stand-in for the d7agent command."""

    def __init__(self, folder: Path, shell: str) -> None:
        self.folder, self.shell = folder, shell
        self.asked_file = folder / "asked"
        (folder / "d7agent").mkdir()
        (folder / "bin").mkdir()
        command = folder / "bin" / "d7agent"
        command.write_text(COMMAND)
        command.chmod(0o755)
        self.env = {
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
            "XDG_RUNTIME_DIR": str(folder),
            "ASKED": str(self.asked_file),
            "HOME": str(folder),
        }

    def write(self, token: str = TOKEN, boot_id: str = "", left: float = 100.0, name: str = "default") -> Path:
        """The file as the agent writes it; `left` in seconds until USE_BEFORE."""
        path = self.folder / "d7agent" / f"{name}.env"
        facts = Facts(name, boot_id or read_boot_id(), int(boot_time() + left))
        path.write_bytes(sink_form("env", token, facts))
        return path

    def run(self, script: str, *, before: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """The script after the library was sourced, under `set -eu`."""
        program = shutil.which(self.shell)
        assert program, f"NOT TESTED: install {self.shell}"
        file = self.folder / "script"
        file.write_text(f"{before}\nset -eu\n. '{LIBRARY}'\n{script}\n")
        return subprocess.run(
            [program, *(["-f"] if self.shell == "zsh" else []), str(file)],
            env={**self.env, **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    def out(self, script: str, **env: str) -> str:
        """Its output, after it ended well and quietly."""
        done = self.run(script, **env)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    @property
    def asked(self) -> list[str]:
        """What the command was asked, and forgotten by this."""
        lines = self.asked_file.read_text().splitlines() if self.asked_file.exists() else []
        self.asked_file.unlink(missing_ok=True)
        return lines
