"""The table of faults: what may stand in the keyring's item after somebody edited it by hand."""

from collections.abc import Iterator

import pytest

from d7agent.sandbox import Sandbox, Settings
from tests.support.keyring_session import KeyringSession
from tests.support.live import Live
from tests.support.scene import Profile, Scene, is_fresh

KEYRING = "keyring:keyring.backends.SecretService.Keyring"
GOOD = b'{"client_id":"sandbox-id","client_secret":"sandbox-secret"}'
NO_CREDENTIAL = 4  # exit status
HIDDEN = "s3cr3t-in-the-item"
MARK = HIDDEN.encode()
OTHERS = "not what d7agent wrote"

# What stands there, and words of what the caller reads.
ITEMS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", OTHERS),
    "a word": (MARK, OTHERS),
    "no UTF-8": (b"\xff\xfe" + MARK, OTHERS),
    "cut off": (GOOD[:-5], OTHERS),
    "a list": (b'["' + MARK + b'"]', OTHERS),
    "a number": (b"12", OTHERS),
    "null": (b"null", OTHERS),
    "nested": (b"[" * 100_000, OTHERS),
    "numbers in it": (b'{"client_id":1,"client_secret":2}', OTHERS),
    "an object in it": (b'{"client_id":"x","client_secret":{"a":"' + MARK + b'"}}', OTHERS),
    "no part of ours": (b'{"' + MARK + b'\\nX":"y"}', OTHERS),
    "an id alone": (b'{"client_id":"sandbox-id"}', "no client_secret"),
    "a secret alone": (b'{"client_secret":"' + MARK + b'"}', "no client_id"),
    "an empty secret": (b'{"client_id":"sandbox-id","client_secret":""}', "client_secret is empty"),
    "a bell": (b'{"client_id":"sandbox-id","client_secret":"' + MARK + b'\\u0007"}', "control characters"),
    "a header line": (b'{"client_id":"sandbox-id","client_secret":"' + MARK + b'\\r\\nX: 1"}', "control characters"),
    "half a surrogate": (b'{"client_id":"sandbox-id","client_secret":"' + MARK + b'\\ud800"}', OTHERS),
    "a huge secret": (b'{"client_id":"sandbox-id","client_secret":"' + MARK * 60_000 + b'"}', "longer than 16384"),
    "a huge word": (MARK * 60_000, OTHERS),
    "a token with blanks": (b'{"access_token":"' + MARK + b' x"}', "no access token has"),
}


@pytest.fixture(scope="module")
def session() -> Iterator[KeyringSession]:
    with KeyringSession() as running:
        yield running


@pytest.fixture(scope="module")
def scene(session: KeyringSession) -> Iterator[Scene]:
    """One agent for all rows."""
    with Live(DBUS_SESSION_BUS_ADDRESS=session.address) as live:
        live.start()
        yield Scene(live)


def in_trouble(profile: Profile) -> bool:
    return "last_error" in profile


@pytest.mark.parametrize("item", ITEMS)
def test_an_item_edited_by_hand(scene: Scene, session: KeyringSession, item: str) -> None:
    """It counts as no credential (exit 4), nothing of it is shown, no login is made; a whole one is taken again."""
    text, words = ITEMS[item]
    name = item.replace(" ", "-").lower()
    with Sandbox(Settings(lifetime=600)) as box:
        session.put(name, text)
        scene.configure(name, box.url, KEYRING)
        scene.wait(name, in_trouble)
        done = scene.ask(name, "--max-wait", "20")
        assert (done.returncode, words in done.stderr, done.stderr.count("\n")) == (NO_CREDENTIAL, True, 2), done.stderr
        assert HIDDEN not in done.stderr + scene.live.journal()
        assert box.stats.logins == 0
        session.put(name, GOOD)
        assert scene.live.run("renew", "--profile", name).returncode == 0
        scene.wait(name, is_fresh)
        assert box.stats.logins == 1
    scene.nothing_lost()
