"""Reads our manual pages (mdoc) as far as the tests want to know what they say."""

import re
from typing import Final, NamedTuple

from tests.support.sources import ROOT

PAGES: Final = ROOT / "scripts" / "man"
_FLAG: Final = re.compile(r"\bFl ((?:\\-)?[\w\\-]*\w)")
_ESCAPES: Final = {r"\-": "-", r"\(aq": "'", r"\(ga": "`", r"\(ti": "~", r"\(ha": "^", r"\en": r"\n", r"\&": ""}


class Usage(NamedTuple):
    """The line that shows how a command is called."""

    flags: set[str]
    words: set[str]


class Page:
    """One page. `sections`: the source lines below each .Sh and .Ss, by heading; those of a .Ss not in its .Sh."""

    def __init__(self, name: str) -> None:
        self.path = PAGES / name
        self.source = self.path.read_text("utf-8")
        self.sections: dict[str, list[str]] = {}
        heading = ""
        for line in self.source.splitlines():
            if line.startswith((".Sh ", ".Ss ")):
                heading = plain(line[4:])
                assert heading not in self.sections, heading
            self.sections.setdefault(heading, []).append(line)

    def items(self, heading: str, macro: str) -> list[str]:
        """What stands behind `.It MACRO` in a section; an empty macro: behind `.It`."""
        start = f".It {macro}".rstrip() + " "
        return [plain(line.removeprefix(start)) for line in self.sections[heading] if line.startswith(start)]

    def flags(self, heading: str) -> set[str]:
        """The options that a section describes."""
        return set().union(*(flags(line) for line in self.sections[heading] if line.startswith(".It Fl")))

    def usages(self) -> dict[str, Usage]:
        """How each command is called, by its name."""
        blocks = re.findall(r"^\.Nm Cm (\w+)\n(.*?)^\.Ed$", self.source, re.MULTILINE | re.DOTALL)
        return {name: Usage(flags(text), set(plain(text).split())) for name, text in blocks}

    def section_of(self, command: str) -> str:
        """The heading of the section that shows how a command is called."""
        (found,) = (heading for heading, lines in self.sections.items() if f".Nm Cm {command}" in lines)
        return found

    def literals(self) -> list[str]:
        """The source of each example."""
        return re.findall(r"^\.Bd -literal[^\n]*\n(.*?)^\.Ed$", self.source, re.MULTILINE | re.DOTALL)


def flags(text: str) -> set[str]:
    """The options named by Fl, with their dashes."""
    return {f"-{plain(flag)}" for flag in _FLAG.findall(text)}


def plain(text: str) -> str:
    """The text without roff's escapes."""
    for escape, sign in _ESCAPES.items():
        text = text.replace(escape, sign)
    return text.strip()
