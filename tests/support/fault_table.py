"""Counts the table of faults: `python -m tests.support.fault_table` prints its rows, and how many each module has.

A row is one fault played to real processes: a test, one set of its parameters, or one entry of a table whose entries a
test plays as subtests, all at once.
"""

import importlib
import itertools
import pkgutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from tests import faults

Table = dict[Any, Any] | tuple[Any, ...]


def rows() -> list[str]:
    """Every row, as `module::test[fault]`."""
    found = []
    for entry in pkgutil.iter_modules(faults.__path__):
        module = importlib.import_module(f"tests.faults.{entry.name}")
        for name, test in vars(module).items():
            if name.startswith("test_") and isinstance(test, FunctionType) and test.__module__ == module.__name__:
                found += [
                    f"{entry.name}::{name}[{fault}]" if fault else f"{entry.name}::{name}" for fault in of(module, test)
                ]
    return found


def of(module: ModuleType, test: FunctionType) -> list[str]:
    """The faults of one test; [""] for a test that is one row."""
    if tables := list(_played(module, test)):
        return [named(entry) for table in tables for entry in table]
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    sets = [[_id(mark.kwargs.get("ids"), at, value) for at, value in enumerate(mark.args[1])] for mark in marks]
    return ["-".join(parts) for parts in itertools.product(*sets)]


def _played(module: ModuleType, test: FunctionType) -> Iterator[Table]:
    """The module's tables that a test with subtests goes through."""
    if "subtests" in test.__code__.co_varnames[: test.__code__.co_argcount]:
        for name in dict.fromkeys(_names(test.__code__)):
            table = getattr(module, name, None)
            if name.isupper() and isinstance(table, dict | tuple):
                yield table


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _id(ids: Callable[[Any], str] | Iterable[str] | None, at: int, value: Any) -> str:
    if ids is None:
        return named(value)
    return str(ids(value)) if callable(ids) else list(ids)[at]


def named(entry: Any) -> str:
    """What a row of a table is called."""
    return str(getattr(entry, "fault", None) if isinstance(getattr(entry, "fault", None), str) else _first(entry))


def _first(entry: Any) -> Any:
    return entry[0] if isinstance(entry, tuple) and entry else entry


def main() -> None:
    """Print the rows, then the sums."""
    found = rows()
    counts = Counter(row.partition("::")[0] for row in found)
    sums = [f"{count:4} {module}" for module, count in counts.items()]
    sys.stdout.write("\n".join([*found, "", *sums, f"{len(found):4} rows", ""]))


if __name__ == "__main__":
    main()
