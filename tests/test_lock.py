"""The lock of a whole agent on a fake clock: what is silent, what goes, who may try, and who waits for whom."""

import asyncio
import re
from importlib.resources import files
from pathlib import Path

import pytest

from d7agent.agent.tries import DELAY_FIRST, DELAY_LAST, MOST
from d7agent.core.jobs import Failed
from tests.support import agents
from tests.support.agents import World
from tests.support.desk import OWNER, ROOT, Asked, Desk, tell
from tests.support.fakes import STORE_AWAY

METHODS = re.findall(r"^method (\w+)", (files("d7agent.wire") / "io.d7agent.varlink").read_text(), re.MULTILINE)
KILLED = Failed("helper_failed", "the helper process was ended by signal 9", "see the journal")
SHORT = 0.01  # seconds
DAYS = 2 * 86_400.0


def test_all_but_status_and_unlock_is_locked(tmp_path: Path) -> None:
    """Every method of the interface but two, and one that is none, answers Locked; whoever asks."""

    async def story(_: World, desk: Desk) -> None:
        await desk.lock()
        assert len(METHODS) == 10
        for method in [*METHODS, "Nonsense"]:
            for uid in (OWNER, ROOT):
                call = desk.ask(method, uid, profile="default", passphrase="wrong", fingerprint="0" * 64)
                error = await call.error()
                assert error == {"GetStatus": "", "Unlock": "PermissionDenied"}.get(method, "Locked"), method
        status = await desk.ask("GetStatus").reply()
        assert status["parameters"]["agent"]["locked"]
        assert [profile["state"] for profile in status["parameters"]["profiles"]] == ["locked"]

    tell(tmp_path, story)


def test_streams_and_waiting_callers_hear_of_it(tmp_path: Path) -> None:
    """Open GetToken streams and callers who wait for a token end with Locked; a stream of status goes on."""

    async def story(world: World, desk: Desk) -> None:
        stream, status = desk.ask("GetToken", more=True), desk.ask("GetStatus", more=True)
        assert (await stream.reply())["continues"]
        assert (await status.reply())["continues"]
        world.helpers.hold = asyncio.Event()
        await desk.pass_time(100)
        waiting = desk.ask("GetToken", min_validity=3590)
        await desk.turns()
        assert waiting.silent
        await desk.lock()
        assert await stream.error() == await waiting.error() == "Locked"
        assert (await status.reply())["parameters"]["agent"]["locked"]

    tell(tmp_path, story)


def test_the_lock_forgets_and_begins_nothing(tmp_path: Path) -> None:
    """Token and remembered token are gone; in two days there is no login; the right passphrase brings a new token."""

    async def story(world: World, desk: Desk) -> None:
        former = world.token
        assert world.store.remembered is not None
        await desk.lock()
        kept: list[object] = [world.keeper.state.grant, world.store.remembered]
        assert kept == [None, None]
        logins = len(world.d7.logins)
        for _ in range(48):
            await desk.pass_time(DAYS / 48)
        assert len(world.d7.logins) == logins
        assert await desk.ask("Unlock", passphrase="sesame").error() == ""
        reply = await desk.ask("GetToken").reply()
        assert world.d7.good(reply["parameters"]["token"]["access_token"])
        assert world.token != former

    tell(tmp_path, story)


def test_what_a_former_agent_remembered_goes_too(tmp_path: Path) -> None:
    """Locked while the store is being asked for the first time: the token in it is deleted all the same."""

    async def story(world: World, desk: Desk) -> None:
        assert world.store.remembered is not None
        world.configure()
        world.helpers.hold_recalls = asyncio.Event()
        world.configure(agents.profile())
        await desk.turns()
        assert world.keeper.state.phase == "recall"
        await desk.lock()
        assert world.store.remembered is None

    tell(tmp_path, story)


def test_a_lock_comes_to_its_end_before_it_is_opened(tmp_path: Path) -> None:
    """Opened while a slow store still forgets: what the new life gets is neither overwritten nor forgotten."""

    async def story(world: World, desk: Desk) -> None:
        world.helpers.hold_forgets = asyncio.Event()
        locking = desk.ask("Lock", passphrase="sesame")
        await desk.turns()
        assert desk.locked()
        opening = desk.ask("Unlock", passphrase="sesame")
        await desk.turns()
        assert (desk.locked(), opening.silent) == (True, True)
        world.helpers.hold_forgets.set()
        assert [await locking.error(), await opening.error()] == ["", ""]
        reply = await desk.ask("GetToken").reply()
        assert world.d7.good(reply["parameters"]["token"]["access_token"])
        assert world.store.remembered is not None

    tell(tmp_path, story)


def test_a_second_lock_is_an_error(tmp_path: Path) -> None:
    """It changes nothing: the first passphrase opens, the second does not; also when both came at once."""

    async def story(world: World, desk: Desk) -> None:
        both = [desk.ask("Lock", passphrase=word) for word in ("first", "second")]
        assert [await one.error() for one in both] == ["", "Locked"]
        assert await desk.ask("Lock", passphrase="third").error() == "Locked"
        assert await desk.ask("Unlock", ROOT, passphrase="second").error() == "PermissionDenied"
        assert await desk.ask("Unlock", passphrase="first").error() == ""
        assert await desk.ask("Unlock", passphrase="first").error() == "PermissionDenied"  # it is not locked

    tell(tmp_path, story)


@pytest.mark.parametrize("leaves", [False, True])
def test_a_lock_is_completed_whether_or_not_its_caller_stays(tmp_path: Path, leaves: bool) -> None:
    """Half a lock would be worse than none."""

    async def story(world: World, desk: Desk) -> None:
        world.helpers.hold_tries = asyncio.Event()
        locking = desk.ask("Lock", passphrase="sesame")
        await desk.turns()
        assert not desk.locked()
        if leaves:
            locking.leave()
        world.helpers.hold_tries.set()
        await desk.turns()
        assert desk.locked()
        assert world.store.remembered is None
        assert locking.silent is leaves

    tell(tmp_path, story)


def test_a_lock_ends_changes_of_a_credential(tmp_path: Path) -> None:
    """StoreCredential under way, and one that waits for it, hear Locked; neither leaves a profile."""

    async def story(world: World, desk: Desk) -> None:
        world.helpers.hold = asyncio.Event()
        both = [desk.ask("StoreCredential", profile="other", client_id="x", client_secret="y") for _ in range(2)]
        await desk.turns()
        await desk.lock()
        assert [await one.error() for one in both] == ["Locked", "Locked"]
        world.helpers.hold.set()
        await desk.turns()
        assert list(world.agent.keepers) == ["default"]

    tell(tmp_path, story)
    assert not list(tmp_path.rglob("other.toml"))


def test_a_lock_that_fails_changes_nothing(tmp_path: Path) -> None:
    """A killed helper: the caller is told why; the token is served, and a login under way goes on to its end."""

    async def story(world: World, desk: Desk) -> None:
        held = world.token
        world.helpers.hold, world.helpers.broken = asyncio.Event(), KILLED
        storing = desk.ask("StoreCredential", profile="other", client_id="x", client_secret="y", verify=False)
        await desk.turns()
        reply = await desk.ask("Lock", passphrase="sesame").reply()
        assert reply["error"] == "io.d7agent.TokenUnavailable"
        assert (reply["parameters"]["message"], reply["parameters"]["hint"]) == (KILLED.message, KILLED.hint)
        world.helpers.hold.set()
        assert await storing.error() == ""
        assert not desk.locked()
        assert (await desk.ask("GetToken", profile="default").reply())["parameters"]["token"]["access_token"] == held
        assert world.store.remembered is not None

    tell(tmp_path, story)


def test_a_try_that_fails_changes_nothing(tmp_path: Path) -> None:
    """A killed helper says nothing about the passphrase: still locked, and the next try is not delayed."""

    async def story(world: World, desk: Desk) -> None:
        await desk.lock()
        world.helpers.broken = KILLED
        for _ in range(3):
            assert await desk.ask("Unlock", passphrase="sesame").error() == "TokenUnavailable"
        assert desk.locked()
        world.helpers.broken = None
        assert await desk.ask("Unlock", passphrase="sesame").error() == ""

    tell(tmp_path, story)


def test_a_store_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    """The agent is locked, and the caller learns which remembered token could not be deleted."""

    async def story(world: World, desk: Desk) -> None:
        world.helpers.forget_fault = STORE_AWAY
        reply = await desk.ask("Lock", passphrase="sesame").reply()
        assert reply["error"] == "io.d7agent.StoreUnavailable"
        assert "default" in reply["parameters"]["message"]
        assert desk.locked()
        assert world.keeper.state.grant is None

    tell(tmp_path, story)


def test_a_store_that_was_never_opened_is_no_error(tmp_path: Path) -> None:
    """Locked during the first look at a store that then cannot be opened: nobody knows of a token in it."""

    async def story(world: World, desk: Desk) -> None:
        world.configure()
        world.helpers.hold_recalls = asyncio.Event()
        world.configure(agents.profile())
        await desk.turns()
        world.helpers.forget_fault = STORE_AWAY
        await desk.lock()
        assert desk.locked()

    tell(tmp_path, story)


def test_wrong_tries_are_delayed_twice_as_long_each_time(tmp_path: Path) -> None:
    """One second after the first, doubled by each, a minute at most; the right one gets through after the delay."""

    async def story(world: World, desk: Desk) -> None:
        await desk.lock()
        assert await desk.ask("Unlock", passphrase="wrong").error() == "PermissionDenied"
        for number in range(8):
            delay = min(DELAY_FIRST * 2**number, DELAY_LAST)
            trying = desk.ask("Unlock", passphrase="wrong" if number < 7 else "sesame")
            await desk.pass_time(delay - SHORT)
            assert (trying.silent, len(world.helpers.tries)) == (True, number + 1)
            await desk.pass_time(2 * SHORT)
            assert await trying.error() == ("PermissionDenied" if number < 7 else "")
        assert not desk.locked()
        await desk.lock()
        assert await desk.ask("Unlock", passphrase="sesame").error() == ""  # nothing is held against anybody

    tell(tmp_path, story)


def test_nobody_else_is_delayed(tmp_path: Path) -> None:
    """While the owner's tries wait, status is shown, and root's right one is looked at and opens at once."""

    async def story(world: World, desk: Desk) -> None:
        await desk.lock()
        assert await desk.ask("Unlock", passphrase="wrong").error() == "PermissionDenied"
        waiting = [desk.ask("Unlock", passphrase=word) for word in ("wrong", "sesame")]
        await desk.turns()
        assert await desk.ask("GetStatus").error() == ""
        assert await desk.ask("Unlock", ROOT, passphrase="sesame").error() == ""
        for one in waiting:
            reply = await one.reply()
            assert reply["parameters"]["message"] == "the agent is not locked"
        assert world.helpers.tries == ["wrong", "sesame"]

    tell(tmp_path, story)


def test_an_abandoned_try_is_not_looked_at(tmp_path: Path) -> None:
    """Wrong tries whose callers have gone are not compared: the right one behind them comes after one delay."""

    async def story(world: World, desk: Desk) -> None:
        await desk.lock()
        assert await desk.ask("Unlock", passphrase="wrong").error() == "PermissionDenied"
        left = [desk.ask("Unlock", passphrase=f"guess {number}") for number in range(MOST - 1)]
        right = desk.ask("Unlock", passphrase="sesame")
        await desk.turns()
        for one in left:
            one.leave()
        await desk.pass_time(DELAY_FIRST + SHORT)
        assert await right.error() == ""
        assert world.helpers.tries == ["wrong", "sesame"]

    tell(tmp_path, story)


def test_few_tries_of_a_uid_may_wait(tmp_path: Path) -> None:
    """One more than that is told so at once, with what to do; it costs others nothing, and a leaver's place is free."""

    async def story(world: World, desk: Desk) -> None:
        await desk.lock()
        assert await desk.ask("Unlock", passphrase="wrong").error() == "PermissionDenied"
        waiting: list[Asked] = [desk.ask("Unlock", passphrase="guess") for _ in range(MOST)]
        reply = await desk.ask("Unlock", passphrase="sesame").reply()
        assert reply["error"] == "io.d7agent.TokenUnavailable"
        assert reply["parameters"]["retry_after"] == 1
        assert "try again in 1 s" in reply["parameters"]["hint"]
        assert await desk.ask("Unlock", ROOT, passphrase="no").error() == "PermissionDenied"
        for one in waiting:
            one.leave()
        await desk.turns()
        right = desk.ask("Unlock", passphrase="sesame")
        await desk.pass_time(DELAY_FIRST + SHORT)
        assert await right.error() == ""

    tell(tmp_path, story)


@pytest.mark.parametrize(("word", "opens"), [("sesame", True), ("wrong", False)])
def test_a_try_that_is_looked_at_counts(tmp_path: Path, word: str, opens: bool) -> None:
    """Leaving is no way to guess for nothing: from the moment it is compared, a try opens or delays the next."""

    async def story(world: World, desk: Desk) -> None:
        await desk.lock()
        world.helpers.hold_tries = asyncio.Event()
        trying = desk.ask("Unlock", passphrase=word)
        await desk.turns()
        trying.leave()
        world.helpers.hold_tries.set()
        await desk.turns()
        assert desk.locked() is not opens
        if not opens:
            after = desk.ask("Unlock", passphrase="sesame")
            await desk.turns()
            assert after.silent
            await desk.pass_time(DELAY_FIRST + SHORT)
            assert await after.error() == ""

    tell(tmp_path, story)
