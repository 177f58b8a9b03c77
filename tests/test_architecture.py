"""The shape of the house: who imports whom, who reads the clock, how long things get, what an import brings along."""

import ast
import sys

import pytest

from tests.support import processes
from tests.support.sources import ROOT, Import, Source, functions, imports, sources

# Imports run one way. A room may import itself and these; second, what it may import only while a function runs.
MAY_IMPORT: dict[str, tuple[set[str], set[str]]] = {
    "core": (set(), set()),
    "wire": ({"core"}, set()),
    "agent": ({"core", "wire"}, set()),
    "client": ({"core", "wire"}, set()),
    "cli": ({"core", "wire", "client"}, {"agent", "sandbox"}),
    "helper": ({"core"}, set()),
    "sandbox": ({"core"}, set()),
    "__main__": (set(), {"client", "cli"}),
    "__init__": (set(), {"client"}),
}
# What others wrote, by room; the clients are held more strictly below.
MAY_USE: dict[str, set[str]] = {
    "core": {"msgspec"},
    "wire": {"msgspec"},
    "agent": {"msgspec", "uvloop", "watchfiles"},
    "client": {"msgspec", "requests", "httpx"},
    "cli": {"click", "msgspec", "rich"},
    "helper": {"jeepney", "keyring", "msgspec", "secretstorage", "urllib3"},
    "sandbox": {"msgspec"},
    "__main__": set(),
    "__init__": set(),
}
# Of the clients: what one may name at all, and what importing it may load.
CLIENTS_MAY_USE = {"auth": {"requests", "httpx"}, "aio": {"msgspec"}}
SHA256 = {"_sha2", "_sha256"}  # CPython's own, from 3.12 on and before: each version lists its own name alone
CLIENTS_MAY_LOAD = {"aio": {"msgspec", "typing_extensions"}}  # msgspec takes the second along where it is installed
HTTP = ("http.client", "urllib.request", "ssl")

MODULE_LINES = 400  # a hard stop: near 150 is the aim, 300 a smell
ONE_FILE_CLIENT_LINES = 600  # d7agent/client/blocking.py is to be copied beside a script: it cannot be split
FUNCTION_LINES = 60  # a hard stop: near 10 is the aim

PACKAGE = sources("d7agent")
CLIENTS = [source for source in PACKAGE if source.room == "client"]
TESTS = sources("tests")


def is_module(name: str, *modules: str) -> bool:
    """Whether this dotted name is one of the modules, or something in one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def room_of(imported: Import) -> str | None:
    """The room an import leads to; None outside d7agent, and for the package itself (its `__version__`)."""
    parts = imported.name.split(".")
    return parts[1] if parts[0] == "d7agent" and len(parts) > 1 and parts[1] in MAY_IMPORT else None


def third_party(imported: Import) -> str | None:
    """The package of others that an import leads to; None for the standard library and d7agent."""
    top = imported.name.partition(".")[0]
    return None if top == "d7agent" or top in sys.stdlib_module_names | SHA256 else top


def against_the_stream(source: Source) -> list[str]:
    """The imports of one file that lead where its room may not go."""
    always, lazily = MAY_IMPORT[source.room]
    wrong = []
    for imported in imports(source.tree):
        allowed = {source.room, *always} | (lazily if imported.lazy else set())
        if (room := room_of(imported)) and room not in allowed:
            wrong.append(f"{source.name}:{imported.line} imports {imported.name}")
    return wrong


def test_every_room_is_known() -> None:
    """A new room below d7agent/ gets its rule before it gets code."""
    assert {source.room for source in PACKAGE} <= MAY_IMPORT.keys()


def test_every_folder_is_a_package() -> None:
    """No folder is left to be a namespace that another installation could add to."""
    folders = {source.path.parent for source in PACKAGE}
    assert [folder.name for folder in folders if not (folder / "__init__.py").exists()] == []


def test_imports_run_one_way() -> None:
    """core <- wire <- (agent, client) <- cli; helper and sandbox know core only; cli runs agent and sandbox lazily."""
    assert [line for source in PACKAGE for line in against_the_stream(source)] == []


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("agent", "from d7agent.helper import stores"),
        ("agent", "def f():\n    import d7agent.helper.issuer"),
        ("agent", "from d7agent import helper"),
        ("core", "from d7agent.wire.messages import Token"),
        ("cli", "from d7agent.agent import daemon"),
        ("client", "from d7agent.agent import server"),
    ],
)
def test_a_wrong_import_is_seen(room: str, line: str) -> None:
    """The reader of imports finds each form in which a rule can be broken."""
    assert against_the_stream(Source(ROOT / "d7agent" / room / "x.py", line)) != []


def test_cli_may_run_the_agent_from_within_a_function() -> None:
    """The one exception, for the commands that run them, is let through."""
    assert against_the_stream(Source(ROOT / "d7agent/cli/x.py", "def f():\n    from d7agent.agent import daemon")) == []


def test_each_package_of_others_stays_in_its_room() -> None:
    """keyring and urllib3 are known to the helper alone, click and rich to the command line alone."""
    wrong = [
        f"{source.name}:{imported.line} imports {used}"
        for source in PACKAGE
        for imported in imports(source.tree)
        if (used := third_party(imported)) and used not in MAY_USE[source.room]
    ]
    assert wrong == []


def test_clients_name_no_package_of_others() -> None:
    """Of the clients only auth.py (requests, httpx) and aio.py (msgspec) use what others wrote."""
    wrong = [
        f"{source.name}:{imported.line} imports {used}"
        for source in CLIENTS
        for imported in imports(source.tree)
        if (used := third_party(imported)) and used not in CLIENTS_MAY_USE.get(source.path.stem, ())
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "client", ["blocking", *sorted({source.path.stem for source in CLIENTS} - {"blocking", "__init__"})]
)
def test_importing_a_client_loads_no_package_of_others(client: str) -> None:
    """A program pays for the standard library only, and can have one of requests and httpx without the other."""
    loaded = {name.partition(".")[0] for name in processes.modules_after_import(f"d7agent.client.{client}")}
    assert loaded - sys.stdlib_module_names - CLIENTS_MAY_LOAD.get(client, set()) == {"d7agent"}


def test_the_one_file_client_stands_alone() -> None:
    """d7agent/client/blocking.py can be copied beside a script: standard library only, nothing of d7agent."""
    (blocking,) = (source for source in PACKAGE if source.name == "d7agent/client/blocking.py")
    strangers = [i.name for i in imports(blocking.tree) if i.name.partition(".")[0] not in sys.stdlib_module_names]
    assert strangers == []


def test_http_lives_in_the_helper() -> None:
    """HTTP and TLS are spoken by the helper, and by the sandbox that plays D7."""
    wrong = [
        f"{source.name}:{imported.line} imports {imported.name}"
        for source in PACKAGE
        for imported in imports(source.tree)
        if source.room not in ("helper", "sandbox") and is_module(imported.name, *HTTP)
    ]
    assert wrong == []


def reads_the_clock(tree: ast.Module) -> list[int]:
    """The lines that import `time` or ask datetime what time it is."""
    lines = [imported.line for imported in imports(tree) if is_module(imported.name, "time")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("now", "utcnow", "today"):
            lines += [node.lineno] if ast.unparse(node.value).rpartition(".")[2] in ("datetime", "date") else []
    return lines


def test_time_is_read_in_one_place() -> None:
    """core/clock.py alone reads the time; the one-file client and the sandbox have to do it themselves."""
    wrong = [
        f"{source.name}:{line}"
        for source in PACKAGE
        for line in reads_the_clock(source.tree)
        if source.name not in ("d7agent/core/clock.py", "d7agent/client/blocking.py") and source.room != "sandbox"
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "code", ["import time", "from time import monotonic", "datetime.datetime.now(UTC)", "date.today()"]
)
def test_a_look_at_the_clock_is_seen(code: str) -> None:
    """Each usual way of reading the time is found."""
    assert reads_the_clock(ast.parse(code)) == [1]


def test_modules_and_functions_stay_small() -> None:
    """No module beyond 400 lines, no function beyond 60: hard stops far above the aim."""
    long = []
    for source in PACKAGE + TESTS:
        limit = ONE_FILE_CLIENT_LINES if source.name == "d7agent/client/blocking.py" else MODULE_LINES
        spans = [(source.name, len(source.text.splitlines()), limit)]
        spans += [
            (f"{source.name} {f.name}", f.end_lineno - f.lineno + 1, FUNCTION_LINES)
            for f in functions(source.tree)
            if f.end_lineno
        ]
        long += [f"{name}: {lines} lines" for name, lines, most in spans if lines > most]
    assert long == []


def test_every_test_says_what_it_holds() -> None:
    """Each test function has a docstring."""
    silent = [
        f"{source.name}:{function.lineno} {function.name}"
        for source in TESTS
        for function in functions(source.tree)
        if function.name.startswith("test_") and not ast.get_docstring(function)
    ]
    assert silent == []


def sleeps(source: Source) -> list[str]:
    """The lines that sleep and do not say why only real time will do."""
    lines = source.text.splitlines()
    calls = (node for node in ast.walk(source.tree) if isinstance(node, ast.Call))
    at = [call.lineno for call in calls if ast.unparse(call.func).rpartition(".")[2] == "sleep"]
    return [f"{source.name}:{line}" for line in at if "# real time:" not in lines[line - 1]]


def test_no_test_sleeps_to_wait() -> None:
    """Tests wait for the event; a sleep that has to be says why, after `# real time:`."""
    assert [line for source in TESTS for line in sleeps(source)] == []


def test_a_sleep_is_seen() -> None:
    """A sleep is found in both its forms, and its reason is read."""
    text = "time.sleep(1)\nawait asyncio.sleep(1)\ntime.sleep(1)  # real time: the kernel's own clock\n"
    assert sleeps(Source(ROOT / "tests/x.py", text)) == ["tests/x.py:1", "tests/x.py:2"]


def test_no_mock_library() -> None:
    """Fakes are written out; no mock library is imported."""
    wrong = [
        f"{source.name}:{imported.line}"
        for source in TESTS
        for imported in imports(source.tree)
        if is_module(imported.name, "unittest.mock", "mock", "pytest_mock")
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("d7agent", {"d7agent.client", "typing", "re", "json", "socket"}),
        ("d7agent.client.blocking", {"d7agent.core", "d7agent.wire", "asyncio"}),
        ("d7agent.client", {"msgspec", "click", "asyncio"}),
        ("d7agent.__main__", {"re", "typing", "importlib.metadata", "socket", "json", "asyncio", "msgspec", "click"}),
        (
            "d7agent.agent.daemon",
            {"keyring", "secretstorage", "urllib3", "rich", "click", "d7agent.helper"},
        ),
        ("d7agent.cli.app", {"keyring", "urllib3", "rich", "d7agent.agent", "d7agent.sandbox", "asyncio"}),
        ("d7agent.helper.__main__", {"click", "rich", "asyncio", "d7agent.wire", "d7agent.agent"}),
    ],
)
def test_importing_brings_nothing_heavy(module: str, unwanted: set[str]) -> None:
    """A process that imports this module pays for none of these, and holds none of their code."""
    assert processes.modules_after_import(module) & unwanted == set()
