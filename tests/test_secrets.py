"""Where secrets are not: the agent's memory, what is written, what other processes can see, what repr shows."""

import contextlib
import importlib
import inspect
import pkgutil
import secrets
import threading
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

import d7agent
from d7agent.client.blocking import Agent
from d7agent.core.model import Secret
from tests.support import d7client, memory
from tests.support.live import Live
from tests.support.stage import PASSPHRASE, Stage, stage

COPIES = 3  # of a token in an agent at rest: the string itself, and twice (token, header) in the reply kept ready


def nowhere(secret: str) -> dict[str, int]:
    return dict.fromkeys(memory.pieces_of(secret), 0)


@pytest.fixture
def staged() -> Iterator[Stage]:
    memory.need_root()
    with stage(lifetime=600) as made:
        made.login()
        yield made


def test_client_secret_is_not_in_the_agent() -> None:
    """After a login over the socket, and through refreshes, no copy of the client secret, whole or half, is found."""
    memory.need_root()
    with stage(lifetime=1.5) as staged:
        staged.login()
        assert staged.found(staged.secret) == nowhere(staged.secret)
        with Agent(str(staged.live.socket)) as agent:
            for token, _ in zip(agent.stream(), range(5), strict=False):
                assert token["access_token"]
                assert staged.found(staged.secret) == nowhere(staged.secret)


def test_a_refused_secret_is_not_in_the_agent(staged: Stage) -> None:
    """A wrong secret, a login that fails half way, and one to a store that cannot be written leave nothing either."""
    wrong = secrets.token_hex(24)
    assert staged.live.run("login", "--stdin", text=f"the-id\n{wrong}\n").returncode == 5
    staged.box.faults.add("truncated")
    assert staged.live.run("login", "--stdin", text=f"the-id\n{wrong}\n").returncode == 6
    assert staged.live.run("login", "x", "--store", "environment", "--stdin", text=f"the-id\n{wrong}\n").returncode == 2
    assert staged.found(wrong) == nowhere(wrong)


def test_copies_of_the_token_at_rest(staged: Stage) -> None:
    """At rest the agent holds the token three times, however often it was asked for."""
    with Agent(str(staged.live.socket)) as agent:
        tokens = {agent.token() for _ in range(50)}
    (token,) = tokens
    staged.live.run("status", check=True)
    assert len(memory.hits(staged.live.pid, token)) == COPIES


def test_a_former_token_is_overwritten() -> None:
    """Once a newer token is there the former one is gone from the agent's memory."""
    memory.need_root()
    with stage(lifetime=2) as staged:
        staged.login()
        with Agent(str(staged.live.socket)) as agent:
            stream = agent.stream()
            former, _ = next(stream)["access_token"], next(stream)
            agent.token()
            assert memory.hits(staged.live.pid, former) == []


def test_lock_leaves_no_token(staged: Stage) -> None:
    """After `lock` neither the token nor the half with its signature is in memory or a file, nor the passphrase."""
    token = staged.token
    staged.live.run("lock", "--stdin", text=f"{PASSPHRASE}\n", check=True)
    assert memory.count(staged.live.pid, (token, token[len(token) // 2 :])) == {token: 0, token[len(token) // 2 :]: 0}
    assert staged.found(PASSPHRASE) == nowhere(PASSPHRASE)
    assert files_with(staged.live.root, token) == []
    staged.live.run("unlock", "--stdin", text=f"{PASSPHRASE}\n", check=True)
    assert staged.found(PASSPHRASE) == nowhere(PASSPHRASE)
    assert d7client.balance(staged.box, staged.token).status == 200


def test_logout_leaves_no_token(staged: Stage) -> None:
    """After `logout` token and credential are gone from memory and disk; other profiles are served."""
    staged.login("other")
    token, second = staged.token, staged.live.run("token", "-p", "other", check=True).stdout.strip()
    staged.live.run("logout", "default", "--yes", check=True)
    assert memory.count(staged.live.pid, (token, token[len(token) // 2 :])) == {token: 0, token[len(token) // 2 :]: 0}
    assert files_with(staged.live.root, token) == []
    assert [path for path in files_with(staged.live.root, staged.secret) if "cred-other" not in path] == []
    assert staged.live.run("token", "-p", "other", check=True).stdout.strip() == second
    assert d7client.balance(staged.box, second).status == 200


def test_logout_of_a_profile_whose_token_another_has() -> None:
    """Two profiles that D7 gives the same token: the one that stays is served on."""
    memory.need_root()
    with stage(lifetime=600, same_token=True) as staged:
        staged.login("one")
        staged.login("two")
        token = staged.live.run("token", "-p", "two", check=True).stdout
        assert staged.live.run("token", "-p", "one", check=True).stdout == token
        staged.live.run("logout", "one", "--yes", check=True)
        assert staged.live.run("token", "-p", "two", check=True).stdout == token


def files_with(root: Path, text: str) -> list[str]:
    found = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    return [str(path.relative_to(root)) for path in found if text.encode() in path.read_bytes()]


def test_no_secret_is_written_or_shown() -> None:
    """Secrets are in the store and in what `token` prints: in no other file, output, argument or environment."""
    with stage(lifetime=600) as staged:
        live, secret = staged.live, staged.secret
        staged.box.faults.add("slow", delay=1)
        said: list[str] = []
        with watched(live, said):
            staged.login()
        token = staged.token
        for command in (
            ("status",),
            ("status", "--json"),
            ("check",),
            ("doctor",),
            ("reload",),
            ("status", "--format", "openmetrics"),
        ):
            done = live.run(*command)
            said += [done.stdout, done.stderr]
        for text in (f"the-id\n{secret}x\n", f"{secret}\n", f"\n{secret}\n", f"the-id\n{secret}\x07\n"):
            done = live.run("login", "--stdin", text=text)
            said += [done.stdout, done.stderr]
        done = live.run("reject", text=token + "\n")
        said += [done.stderr]
        live.run("lock", "--stdin", text=f"{PASSPHRASE}\n", check=True)
        done = live.run("unlock", "--stdin", text=f"{PASSPHRASE}x\n")
        said += [done.stdout, done.stderr, live.journal()]
        live.stop()
        for hidden in (secret, token, PASSPHRASE):
            assert [text for text in said if hidden in text] == []
            assert [path for path in files_with(live.root, hidden) if not path.startswith("cred")] == []


@contextlib.contextmanager
def watched(live: Live, said: list[str]) -> Iterator[None]:
    """Note the command line and environment of every process of this home, again and again, while the block runs."""
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            said.extend(visible_parts(live))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    assert [text for text in said if "d7agent.helper" in text], "no helper was seen at work"


def visible_parts(live: Live) -> Iterator[str]:
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and str(live.home).encode() in (folder / "environ").read_bytes():
                yield (folder / "cmdline").read_text(errors="replace")
                yield (folder / "environ").read_text(errors="replace")


SECRET_FIELDS = {"access_token", "header", "headers", "client_secret", "passphrase", "out", "err", "digest"}
MARK = "s3cret-mark"


def structs() -> list[type[msgspec.Struct]]:
    """Every Struct that the package defines."""
    found = []
    for module in pkgutil.walk_packages(d7agent.__path__, "d7agent."):
        if not module.name.endswith("__main__"):
            loaded = importlib.import_module(module.name)
            found += [
                kind
                for _, kind in inspect.getmembers(loaded, inspect.isclass)
                if issubclass(kind, msgspec.Struct) and kind.__module__ == module.name
            ]
    return found


def made(kind: Any, name: str = "") -> Any:
    """A value of this type in which every secret is MARK, as is every text in a field of a secret's name."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return made(arguments[0], name)
    if origin in (typing.Union, types.UnionType):
        return made(next(part for part in arguments if part is not type(None)), name)
    if origin is typing.Literal:
        return arguments[0]
    if origin is tuple:
        return (
            (made(arguments[0], name),) if arguments[-1] is Ellipsis else tuple(made(part, name) for part in arguments)
        )
    if origin in (dict, Mapping):
        return {"x": made(arguments[1], name)}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind, include_extras=True)
        return kind(**{field: made(hints[field], field) for field in kind.__struct_fields__})
    if kind is Secret:
        return Secret(MARK)
    plain = {str: MARK if name in SECRET_FIELDS else "plain", bytes: MARK.encode(), int: 1, float: 1.0, bool: True}
    return plain.get(kind, msgspec.Raw(f'"{MARK}"'.encode()) if kind is msgspec.Raw else None)


@pytest.mark.parametrize(
    "kind", structs(), ids=lambda kind: f"{kind.__module__.removeprefix('d7agent.')}.{kind.__name__}"
)
def test_repr_shows_no_secret(kind: type[msgspec.Struct]) -> None:
    """No struct shows a secret, by repr, str or format, nor one that stands in a struct within it."""
    shown = made(kind)
    for text in (repr(shown), str(shown), f"{shown}", f"{[shown]}"):
        assert MARK not in text


def test_a_secret_is_not_shown() -> None:
    """repr, str, format and pickle give away nothing; reveal does."""
    secret = Secret(MARK)
    assert MARK not in f"{secret} {secret!r} {secret!s} {[secret]}"
    assert secret.reveal() == MARK
    with pytest.raises(TypeError):
        secret.__reduce__()
