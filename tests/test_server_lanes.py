"""Which lane a client is served in, by what it sends: nobody with one question waits behind those who flood."""

from d7agent.agent.connection import Connection
from d7agent.agent.guest import KNOWN
from tests.support.wire import BOTH_LOOPS, TOKEN, Stand, play, until

pytestmark = BOTH_LOOPS


def waiting(stand: Stand) -> int:
    """Bytes of an unfinished request, of the only connection."""
    inboxes = [connection._inbox for connection in stand.server.roster if isinstance(connection, Connection)]
    return sum(inbox.waiting for inbox in inboxes if inbox is not None)


def test_who_makes_work_gets_a_lane_of_its_own(loop: str) -> None:
    """Three halves of requests put a client behind the others; six that are quickly answered bring it to the front."""

    async def scene(stand: Stand) -> None:
        request = b'{"method":"io.d7agent.GetToken"}'
        stand.handler.frames[request] = TOKEN + b"\0"
        client = await stand.client()
        poller = stand.server.poller
        for count in range(1, 4):
            client.send(request[count - 1 : count])
            await until(lambda count=count: waiting(stand) == count)  # type: ignore[misc]
        await until(lambda: len(poller._demoted) == 1)
        client.send(request[3:] + b"\0")
        await client.reply()
        for _ in range(6):
            client.send(request + b"\0")
            await client.reply()
        assert len(poller._handed_over) == 1
        assert not poller._demoted
        client.send(request[:-1])
        await until(lambda: not poller._handed_over)  # what is not quick is served within bounds, like all
        client.send(b"}\0")
        await client.reply()
        await client.close()
        await until(lambda: not poller._handed_over)

    play(loop, scene)


def test_who_asks_one_thing_at_a_time_stays_with_the_others(loop: str) -> None:
    """Requests that have to be decoded make no work worth a lane: their client is not put behind those who flood."""

    async def scene(stand: Stand) -> None:
        client = await stand.client()
        for _ in range(10):
            await client.call("GetToken", {"min_validity": 5})
        connections = [one for one in stand.server.roster if isinstance(one, Connection)]
        assert [one._manner > -KNOWN for one in connections] == [True]

    play(loop, scene)


def test_a_quick_request_now_and_then_hides_no_flood(loop: str) -> None:
    """Who sends ahead again and again goes behind the others, whatever he asks in between."""

    async def scene(stand: Stand) -> None:
        request = b'{"method":"io.d7agent.GetToken"}\0'
        stand.handler.frames[request[:-1]] = TOKEN + b"\0"
        client = await stand.client()
        for _ in range(4):
            for ahead in (20, 20, 1):
                client.send(request * ahead)
                for _ in range(ahead):
                    await client.reply()
        assert len(stand.server.poller._demoted) == 1

    play(loop, scene)
