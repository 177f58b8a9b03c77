"""A TOML file checked key by key, so that one look names everything that is wrong with it."""

import re
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from d7agent.core.toml_lines import Key, locate

_WORDS: Final = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "datetime": "a date",
    "date": "a date",
    "time": "a time",
}
_SECRETS: Final = frozenset({"client_secret", "secret", "access_token", "token", "password", "api_token"})


MAX_PROBLEMS: Final = 20  # a file; one that has more is not ours, and each costs a search for its line


class Rule(NamedTuple):
    """A key's type, as msgspec converts it, and its check: the value kept, or ValueError with what is wrong."""

    kind: Any
    check: Callable[[Any], Any] = lambda value: value


class Source:
    """One file's text, its table, and the problems found in it, each `FILE:LINE: key: what is wrong`."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self._found: list[tuple[int, str]] = []
        self._more = 0
        self.table = self._parse()

    @property
    def problems(self) -> list[str]:
        """In the order of the lines."""
        told = [what for _, what in sorted(self._found, key=lambda found: found[0])]
        return [*told, f"{self.path}: and {self._more} more"] if self._more else told

    def say(self, key: Key, what: str) -> None:
        """Note a problem of one key; the empty key is the file itself."""
        if len(self._found) >= MAX_PROBLEMS:
            self._more += 1
            return
        line = (locate(self.text, key) if key else None) or 0
        place = f"{self.path}:{line}" if line else self.path
        name = ".".join(part for part in key if isinstance(part, str))
        self._found.append((line, f"{place}: {name}: {what}" if name else f"{place}: {what}"))

    def read(self, table: Mapping[str, Any], rules: Mapping[str, Rule], at: Key = ()) -> dict[str, Any]:
        """The checked values of the keys that are there and right; everything else is noted."""
        values = {}
        for name, value in table.items():
            if name not in rules:
                self.say((*at, name), _unknown(name, rules))
                continue
            try:
                values[name] = rules[name].check(msgspec.convert(value, rules[name].kind))
            except msgspec.ValidationError as error:
                self.say((*at, name), _wrong_type(str(error)))
            except ValueError as error:
                self.say((*at, name), str(error))
        return values

    def _parse(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self.text)
        except ValueError as error:  # TOMLDecodeError, and int()'s own refusal of thousands of digits
            what, _, place = str(error).rstrip(")").partition(" (at ")
            found = re.match(r"line (\d+), (column \d+)", place)
            line = int(found[1]) if found else self.text.rstrip("\n").count("\n") + 1
            where = f" ({found[2]})" if found else ""
            self._found.append((line, f"{self.path}:{line}: not valid TOML: {what}{where}"))
        except RecursionError:
            self._found.append((0, f"{self.path}: not valid TOML: nested too deeply"))
        return {}


def _unknown(name: str, rules: Mapping[str, Rule]) -> str:
    if name in _SECRETS:
        return "secrets do not belong into this file: delete the line, then store it with `d7agent login`"
    import difflib

    near = difflib.get_close_matches(name, rules, n=1)
    known = f"did you mean {near[0]}?" if near else f"known here: {', '.join(rules)}"
    return f"unknown key; {known}"


def _wrong_type(text: str) -> str:
    """The message of a msgspec.ValidationError in words for people: "Expected `str`, got `int` - at `$[0]`"."""
    found = re.match(r"Expected `([^`]+)`(?:, got `(\w+)`)?", text)
    if found is None:
        return text
    wanted = " or ".join(_WORDS.get(kind.strip(), kind.strip()) for kind in found[1].split("|"))
    got = f", not {_WORDS.get(found[2], found[2])}" if found[2] else ""
    item = re.search(r"\[(\d+)\]", text)
    return f"must be {wanted}{got}" + (f" (item {int(item[1]) + 1})" if item else "")
