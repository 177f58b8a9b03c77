"""What the architecture test reads: the syntax trees of the package and of the tests, and the imports in them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Import:
    """One imported module: its dotted name, the line, and whether it is imported only when a function runs."""

    name: str
    line: int
    lazy: bool


@dataclass(frozen=True)
class Source:
    """One Python file below the checkout."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        """The path below the checkout, as in `d7agent/core/clock.py`."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def room(self) -> str:
        """The folder below d7agent/, or the module's own name for those at the top."""
        return self.path.relative_to(ROOT).with_suffix("").parts[1]

    @property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text, self.path)


def sources(folder: str) -> list[Source]:
    """Every Python file below this folder of the checkout; never none, lest a test hold nothing."""
    found = [Source(path, path.read_text("utf-8")) for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found, f"no Python file below {folder}"
    return found


def imports(tree: ast.Module) -> list[Import]:
    """Every import; `from d7agent import wire` counts as d7agent.wire, `from d7agent.wire import x` as one below it."""
    return list(_imports(tree, lazy=False))


def _imports(node: ast.AST, *, lazy: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, node.lineno, lazy) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or "."
        yield from (Import(f"{base}.{alias.name}", node.lineno, lazy) for alias in node.names)
    inside = lazy or isinstance(node, Function) or _types_only(node)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, lazy=inside)


def _types_only(node: ast.AST) -> bool:
    """Whether only a type checker ever gets in here."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def functions(tree: ast.Module) -> list[Function]:
    """Every function and method, nested ones too."""
    return [node for node in ast.walk(tree) if isinstance(node, Function)]
