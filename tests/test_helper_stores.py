from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from d7agent.core.model import Secret
from d7agent.helper.environment import EnvironmentStore
from d7agent.helper.faults import Invalid, StoreMissing, StoreUnreachable
from d7agent.helper.stores import Application, ReadyMade, Store, open_store
from tests.support import stores
from tests.support.helper import target
from tests.support.keyring_session import KeyringSession

Made = tuple[Store, stores.Fill]
Make = Callable[[Path], Made]

APPLICATION = Application("id-1", Secret("secret-1"))
OTHER = Application("id-2", Secret('2"\\ü'))
READY = ReadyMade(Secret("a.b.c"))
WRITABLE: list[Make] = [stores.memory_store, stores.keyring_store, stores.directory_store]
READABLE: list[Make] = [*WRITABLE, stores.command_store, stores.environment_store]


@pytest.fixture(scope="module")
def session() -> Iterator[KeyringSession]:
    """One real keyring for the whole module."""
    with KeyringSession() as running:
        yield running


@pytest.fixture
def made(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A store and the way a person fills it."""
    make: Make = request.param
    if make is stores.keyring_store:
        for name, value in request.getfixturevalue("session").env.items():
            monkeypatch.setenv(name, value)
    return make(tmp_path)


readable = pytest.mark.parametrize("made", READABLE, indirect=True)
writable = pytest.mark.parametrize("made", WRITABLE, indirect=True)


@readable
def test_an_empty_store_works_and_has_nothing(made: Made) -> None:
    """No credential is an answer, not an error; deleting nothing is none either."""
    store, _ = made
    assert store.locked() is False
    assert store.read() is None
    store.delete()
    assert store.shelf is not None
    assert store.shelf.read() is None
    store.shelf.delete()


@readable
def test_what_a_person_put_there_is_read(made: Made) -> None:
    """Id and secret, with what pasting added taken off."""
    store, fill = made
    fill({"client_id": " id-1\n", "client_secret": '"secret-1"\n'})
    assert store.read() == APPLICATION


@readable
def test_a_ready_made_token_is_read(made: Made) -> None:
    """A token alone is a credential too."""
    store, fill = made
    fill({"access_token": "Bearer a.b.c\n"})
    assert store.read() == READY


@readable
def test_an_id_and_secret_win_over_a_token(made: Made) -> None:
    """What can be renewed is preferred."""
    store, fill = made
    fill({"access_token": "a.b.c", "client_id": "id-1", "client_secret": "secret-1"})
    assert store.read() == APPLICATION


@readable
@pytest.mark.parametrize("parts", [{"client_id": "id-1"}, {"client_secret": "secret-1"}])
def test_half_a_credential_is_told(made: Made, parts: Mapping[str, str]) -> None:
    """The part that is missing is named, the one that is there is not shown."""
    store, fill = made
    fill(parts)
    with pytest.raises(StoreMissing) as fault:
        store.read()
    assert fault.value.failed.missing
    assert ({"client_id", "client_secret"} - parts.keys()).pop() in fault.value.failed.message
    assert "secret-1" not in str(fault.value.failed)


@readable
@pytest.mark.parametrize("value", ["se\x07cret", "x" * 20_000])
def test_rubbish_in_a_store_is_told(made: Made, value: str) -> None:
    """A secret that cannot be one is named with its place, and its value is not shown."""
    store, fill = made
    fill({"client_id": "id-1", "client_secret": value})
    with pytest.raises(StoreMissing) as fault:
        store.read()
    assert "client_secret" in fault.value.failed.message
    assert value not in fault.value.failed.message


@readable
def test_the_token_has_a_place_of_its_own(made: Made) -> None:
    """The remembered token is written, replaced and deleted without touching the credential."""
    store, fill = made
    fill({"client_id": "id-1", "client_secret": "secret-1"})
    assert store.shelf is not None
    for text in ("one", "two" * 10_000, ""):
        store.shelf.write(text)
        assert store.shelf.read() == text
    store.shelf.delete()
    assert store.shelf.read() is None
    assert store.read() == APPLICATION


@writable
def test_what_is_written_is_read(made: Made) -> None:
    """Each kind of credential replaces the one before, whole."""
    store, _ = made
    assert store.writable
    for credential in (APPLICATION, READY, OTHER, APPLICATION, READY):
        store.write(credential)
        assert store.read() == credential


@writable
def test_what_was_written_is_deleted(made: Made) -> None:
    """Deleting leaves nothing of ours, and the token's item stays until it is deleted itself."""
    store, _ = made
    store.write(APPLICATION)
    assert store.shelf is not None
    store.shelf.write("token")
    assert store.delete() == ()
    assert store.read() is None
    assert store.shelf.read() == "token"


@pytest.mark.parametrize("made", [stores.command_store, stores.environment_store], indirect=True)
def test_read_only_stores_say_so(made: Made) -> None:
    """Nothing is written, and what is left after deleting is told."""
    store, fill = made
    fill({"client_id": "id-1", "client_secret": "secret-1"})
    assert not store.writable
    with pytest.raises(StoreUnreachable):
        store.write(OTHER)
    assert store.delete()
    assert store.read() == APPLICATION


@pytest.mark.parametrize(
    "text", ["", "vault:x", "keyring2", "directory:relative/x", "directory:", "command:", "command:'"]
)
def test_a_string_that_names_no_store(text: str) -> None:
    """The parameter `store` is named, with the forms there are."""
    with pytest.raises(Invalid) as fault:
        open_store(target(text))
    assert fault.value.failed.invalid == "store"
    assert fault.value.failed.hint


def test_an_environment_prefix_has_to_be_a_name() -> None:
    """A prefix that no variable can have is refused."""
    with pytest.raises(Invalid):
        EnvironmentStore("MY-APP", target("environment"))


def test_an_empty_variable_is_none() -> None:
    """Containers set variables to nothing to unset them."""
    variables = {"D7_CLIENT_ID": Secret(""), "D7_CLIENT_SECRET": Secret(""), "D7_API_TOKEN": Secret("a.b.c")}
    assert EnvironmentStore("", target("environment", variables=variables)).read() == READY
