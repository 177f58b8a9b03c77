"""TOML by lines: where a key stands in a file, and how to change one without touching the rest.

`tomllib` tells neither, so a text that it has accepted is cut into statements: a statement ends with the first line
up to which it parses (TOML 1.0: only brackets and multi-line strings can keep one open).
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

Key = tuple[str | int, ...]  # the way to a value from the root: table names, and the index in an array of tables

_CLOSER: Final = re.compile(r"[]}]|\"\"\"|'''")  # a statement of several lines ends with a line that has one
_MAX_STATEMENT: Final = 500  # lines; no hand-written value is longer, and the search for an end is quadratic


class Statement(Struct, frozen=True):
    """Lines `first` to `last` (from 0). `key` is the whole way from the root; of a header, the table's."""

    first: int
    last: int
    key: Key
    header: bool = False


def locate(text: str, key: Key) -> int | None:
    """The line (from 1) of `key`, else of the nearest table around it, else of something within it, else None."""
    try:
        all_of_them = list(statements(text))
    except ValueError:
        return None
    around = [found for found in all_of_them if key[: len(found.key)] == found.key]
    within = [found for found in all_of_them if found.key[: len(key)] == key]
    best = max(around, key=lambda found: len(found.key), default=next(iter(within), None))
    return best.first + 1 if best else None


def statements(text: str) -> Iterator[Statement]:
    """Every statement of a valid TOML text, in order. Raises ValueError for a value of more than 500 lines."""
    lines = text.split("\n")
    table: Key = ()
    counts: dict[Key, int] = {}
    at = 0
    while at < len(lines):
        start = lines[at].strip()
        if not start or start.startswith("#"):
            at += 1
            continue
        last, parsed = _take(lines, at)
        if start.startswith("["):
            table = _table(parsed, counts, array=start.startswith("[["))
            yield Statement(at, last, table, header=True)
        else:
            yield Statement(at, last, table + _way(parsed))
        at = last + 1


def _take(lines: list[str], first: int) -> tuple[int, dict[str, Any]]:
    for last in range(first, min(len(lines), first + _MAX_STATEMENT)):
        if last > first and not _CLOSER.search(lines[last]):
            continue
        try:
            return last, tomllib.loads("\n".join(lines[first : last + 1]) + "\n")
        except tomllib.TOMLDecodeError:
            continue
    raise ValueError(f"line {first + 1}: this value goes on for more than {_MAX_STATEMENT} lines")


def _way(parsed: dict[str, Any]) -> Key:
    """The names down to the first value that is not a table of one key."""
    way: list[str] = []
    inner: Any = parsed
    while isinstance(inner, dict) and len(inner) == 1:
        name, inner = next(iter(inner.items()))
        way.append(name)
    return tuple(way)


def _table(parsed: dict[str, Any], counts: dict[Key, int], *, array: bool) -> Key:
    """The way to the table a header opens; below an array of tables it leads through the array's latest element."""
    names: list[str] = []
    inner: Any = parsed
    while inner:
        inner = inner[0] if isinstance(inner, list) else inner
        if not inner:
            break
        name, inner = next(iter(inner.items()))
        names.append(name)
    key: Key = ()
    for place, name in enumerate(names):
        key = (*key, name)
        if array and place == len(names) - 1:
            counts[key] = counts.get(key, -1) + 1
        if key in counts:
            key = (*key, counts[key])
    return key


def set_keys(text: str, changes: Mapping[str, str]) -> str:
    """The text with top-level string keys set: comments, order and every other key stay.

    A key that already has its value stays byte for byte. Raises ValueError (TOMLDecodeError too) if `text` is no TOML
    or the edit does not come out as meant.
    """
    before = tomllib.loads(text)
    for name, value in changes.items():
        if before.get(name) != value:
            text = _set_key(text, name, value)
    if tomllib.loads(text) != {**before, **changes}:
        raise ValueError("cannot be edited safely")
    return text


def _set_key(text: str, name: str, value: str) -> str:
    lines = (text if text.endswith("\n") or not text else text + "\n").split("\n")
    end = "\r" if lines[0].endswith("\r") else ""
    root_end = 0
    for statement in statements(text):
        if statement.header:
            break
        if statement.key[:1] == (name,):
            old = "\n".join(lines[statement.first : statement.last + 1])
            lines[statement.first : statement.last + 1] = [_replace_value(old, value)]
            return "\n".join(lines)
        root_end = statement.last + 1
    lines.insert(root_end or _before_tables(lines), f"{name} = {quote(value)}{end}")
    return "\n".join(lines)


def _before_tables(lines: list[str]) -> int:
    """Where the first top-level key goes: above the first header and its comment, but below a comment on line 1."""
    at = next((n for n, line in enumerate(lines) if line.lstrip().startswith("[")), len(lines) - 1)
    while 1 < at < len(lines) - 1 and lines[at - 1].lstrip().startswith("#"):
        at -= 1
    return at


def _replace_value(statement: str, value: str) -> str:
    """The statement with its value replaced; what stands before it and the comment behind it stay."""
    head, sign, rest = statement.partition("=")
    body = statement.rstrip("\r\n")
    for at, character in enumerate(body):
        if character == "#" and at > len(head) and _parses(body[:at]):
            body = body[:at]
            break
    tail = statement[len(body.rstrip()) :]
    space = rest[: len(rest) - len(rest.lstrip(" \t"))]
    return f"{head}{sign}{space}{quote(value)}{tail}"


def _parses(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def quote(value: str) -> str:
    """A TOML basic string (TOML 1.0, "String"): JSON's escapes, and DEL, which JSON lets through."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
