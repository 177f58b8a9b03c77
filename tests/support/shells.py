"""Shells as a person uses them: interactive, on a terminal, with the keys that complete a word."""

import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from tests.support.sources import ROOT
from tests.support.terminal import Terminal

SCRIPTS: Final = ROOT / "scripts" / "completions"
PROMPT: Final = "=> "
EVERY: Final = "\x0f"  # the key (Ctrl-O) that puts every completion into the line
# The prompt is written in two pieces, so that it is not yet shown by the echo of this.
BASH: Final = f"""bind '"\\C-o": insert-completions'; source {SCRIPTS}/d7agent.bash; PS1='=''> '\n"""
ZSH: Final = (
    f"fpath=({SCRIPTS} $fpath); autoload -Uz compinit; compinit -u -D; zle -C every complete-word _generic; "
    "zstyle ':completion:every:*' completer _all_matches _complete; zstyle ':completion:every:*' insert true; "
    "bindkey '^O' every; PS1='=''> '\n"
)


class Shell(Protocol):
    """A shell that completes."""

    def completions(self, line: str) -> set[str]:
        """What may take the place of the line's last word: whole words, or what comes behind their last = or :."""


class Typed:
    """bash and zsh: what is in the line after the key is printed and read back. Use it with `with`."""

    def __init__(self, argv: list[str], setup: str, env: dict[str, str]) -> None:
        assert shutil.which(argv[0]), f"NOT TESTED: install {argv[0]}"
        self._terminal = Terminal(argv, env, columns=1000)
        self._terminal.type(setup)
        self._terminal.until(PROMPT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._terminal.__exit__(*exc)

    def completions(self, line: str) -> set[str]:
        """See Shell; the word itself where there is nothing."""
        self._terminal.shown = ""
        self._terminal.type(f"{line}{EVERY}\x01echo BEGIN \x05 END\n")  # Ctrl-A, Ctrl-E: to the line's begin and end
        self._terminal.until("\nBEGIN ")
        self._terminal.shown = self._terminal.shown.partition("\nBEGIN ")[2]
        self._terminal.until(PROMPT)
        printed = self._terminal.shown.partition(" END")[0]
        return {_bare(word) for word in printed.removeprefix(line.rpartition(" ")[0]).split()}


class Fish:
    """fish, which lists its completions by itself. Use it with `with`."""

    def __init__(self, env: dict[str, str]) -> None:
        assert shutil.which("fish"), "NOT TESTED: install fish"
        self._env = env

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def completions(self, line: str) -> set[str]:
        """See Shell."""
        code = f"source {SCRIPTS}/d7agent.fish; complete --do-complete='{line}'"
        argv = ["fish", "--no-config", "-c", code]
        run = subprocess.run(argv, env=self._env, capture_output=True, text=True, check=True, timeout=30)
        assert run.stderr == ""
        return {_bare(found.partition("\t")[0]) for found in run.stdout.splitlines()}


def open_shell(name: str, env: dict[str, str], home: Path) -> Typed | Fish:
    """A shell of that name with our completions, the user's own settings left out."""
    env = {**env, "HOME": str(home), "TERM": "dumb"}
    if name == "fish":
        return Fish(env)
    if name == "bash":
        return Typed(["bash", "--norc", "--noprofile", "-i"], BASH, env)
    return Typed(["zsh", "-f", "-i"], ZSH, env)


def _bare(word: str) -> str:
    """The word without an option before it, and without the slash that only some shells put behind a folder."""
    return word.rpartition("=")[2].removeprefix("directory:/").strip("/") or word
