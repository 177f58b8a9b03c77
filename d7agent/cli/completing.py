"""Shell completion: answers the scripts in scripts/completions, and prints them where no shell finds them by itself.

The scripts ask `d7agent` at each TAB, so that options, choices and profiles are written down nowhere else.
"""

import contextlib
import os
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem, ShellComplete, split_arg_string

from d7agent.cli import output

ANSWER: Final = "lines_complete"
LINE: Final = "_D7AGENT_LINE"  # the command line up to the cursor
SCRIPTS: Final = {"bash_source": "d7agent.bash", "zsh_source": "_d7agent", "fish_source": "d7agent.fish"}
PROGRAM: Final = "d7agent"
_END: Final = "\x1f"  # marks the cursor, so that an empty word before it is seen


def respond(cli: click.Command, instruction: str) -> int:
    """Do what $_D7AGENT_COMPLETE says; the exit status. Whatever goes wrong while completing, not a word is said."""
    if instruction in SCRIPTS:
        output.out(script(SCRIPTS[instruction]))
        return 0
    if instruction == ANSWER:
        with contextlib.suppress(Exception):
            output.out(Lines(cli, {}, PROGRAM, "").complete())
            return 0
    return 1


def script(name: str) -> str:
    """The text of a script: in the package or, where that was installed as editable, beside it. Raises Failure."""
    package = Path(__file__).parents[1]
    for folder in (package / "_completions", package.parent / "scripts" / "completions"):
        with contextlib.suppress(OSError):
            return (folder / name).read_text(encoding="utf-8")
    raise output.Failure(f"the completion script {name} is not part of this installation", "install d7agent again")


def words(line: str) -> tuple[list[str], str]:
    """The arguments before the word at the cursor, and that word; quotes taken off, also one that is still open."""
    *before, last = split_arg_string(line + _END)
    names = [os.path.basename(word) for word in before]
    begin = names.index(PROGRAM) + 1 if PROGRAM in names else 1
    return before[begin:], last.removesuffix(_END)


class Lines(ShellComplete):
    """A line for every candidate: KIND, VALUE and HELP with a tab between.

    KIND plain: VALUE takes the place of the whole word. file, dir: a path, behind VALUE. command: another command's
    word, VALUE of whose words stand before it.
    """

    name = "lines"
    source_template = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """What click is to complete."""
        return words(os.environ.get(LINE, ""))

    def complete(self) -> str:
        """All lines."""
        args, word = self.get_completion_args()
        option, equals, _ = word.partition("=")
        prefix = option + equals if equals and word.startswith("--") and "--" not in args else ""
        return "".join(self._line(item, prefix) for item in self.get_completions(args, word))

    def format_completion(self, item: "CompletionItem[Any]") -> str:
        """One line, without what belongs to an option before `=`."""
        return self._line(item, "")

    def _line(self, item: "CompletionItem[Any]", prefix: str) -> str:
        if item.type == "command":
            return f"command\t{item.value}\t\n"
        value = "" if item.type in ("file", "dir") else item.value  # click gives what was typed
        kind = "dir" if item.type == "folder" else item.type
        return f"{kind}\t{prefix}{value}\t{output.one_line(item.help or '')}\n"
