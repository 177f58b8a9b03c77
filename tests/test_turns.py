"""The queue of what was put off: whose turn it is, and for how long."""

import asyncio

from d7agent.agent.turns import TURN, Turns
from d7agent.core.clock import boot_time
from tests.support.wire import BOTH_LOOPS, run, until

pytestmark = BOTH_LOOPS


class Busy:
    """Has so many turns to take, each of which uses up a whole turn of the loop."""

    def __init__(self, turns: Turns, told: list[str], name: str, count: int) -> None:
        self._turns, self._told, self._name, self._count = turns, told, name, count

    def take_turn(self) -> None:
        self._told.append(self._name)
        self._count -= 1
        if self._count:
            self._turns.add(self)
        end = boot_time() + TURN
        while boot_time() <= end:
            pass


def test_turns_go_round(loop: str) -> None:
    """Who has more to do waits until all others have had their turn, and none comes twice for being added twice."""

    async def main() -> None:
        turns, told = Turns(asyncio.get_running_loop()), list[str]()
        workers = [Busy(turns, told, name, 3) for name in "abc"]
        for worker in (*workers, *workers):
            turns.add(worker)
        await until(lambda: len(told) == 9)
        assert "".join(told) == "abcabcabc"

    run(loop, main())


def test_between_turns_others_are_served(loop: str) -> None:
    """Whatever waits for its turn, the loop comes round after each piece of work."""

    async def main() -> None:
        running = asyncio.get_running_loop()
        turns, told = Turns(running), list[str]()
        for name in "abcd":
            turns.add(Busy(turns, told, name, 1))

        def other() -> None:
            told.append("other")
            if len(told) < 8:
                running.call_soon(other)

        running.call_soon(other)
        await until(lambda: len(told) == 8)
        assert told == ["a", "other", "b", "other", "c", "other", "d", "other"]

    run(loop, main())


def test_who_has_left_has_no_turn(loop: str) -> None:
    """After `discard` there is none to come, and nothing is left to wake up for."""

    async def main() -> None:
        turns, told = Turns(asyncio.get_running_loop()), list[str]()
        stays, leaves = Busy(turns, told, "stays", 1), Busy(turns, told, "leaves", 1)
        turns.add(stays)
        turns.add(leaves)
        turns.discard(leaves)
        await until(lambda: bool(told))
        turns.add(last := Busy(turns, told, "last", 1))
        await until(lambda: "last" in told)
        turns.discard(last)
        assert told == ["stays", "last"]

    run(loop, main())


class Breaks(Busy):
    """Its turn ends with an error."""

    def take_turn(self) -> None:
        super().take_turn()
        raise LookupError("of a test")


def test_one_that_breaks_keeps_nobody_waiting(loop: str) -> None:
    """After an error in somebody's turn, which the loop is told of, the others have theirs."""

    async def main() -> None:
        running, errors = asyncio.get_running_loop(), list[object]()
        running.set_exception_handler(lambda _, context: errors.append(context.get("exception")))
        turns, told = Turns(running), list[str]()
        turns.add(Breaks(turns, told, "breaks", 1))
        turns.add(Busy(turns, told, "waits", 1))
        await until(lambda: told == ["breaks", "waits"])
        assert [type(error) for error in errors] == [LookupError]

    run(loop, main())
