"""Calls that wait until a stream has room for them: none is forgotten, and none stays that waits no longer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import comity
from comity import Client
from comity.coalesce import Lane
from comity.stream import Stream
from tests.client.streams import Watched, lanes
from tests.proxy import Proxy
from tests.servers import Server
from tests.waiting import until

TIMEOUT = 5.0  # of calls that are to be answered at once


@pytest.fixture(autouse=True)
def room_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comity.stream.UNANSWERED", 1)


def lane(client: Client) -> Lane:
    """The only one."""
    (found,) = lanes(client)._lanes.values()
    return found


def stream(client: Client) -> Stream:
    found = lane(client)._stream
    assert found is not None
    return found


async def invited(client: Client) -> None:
    """Wait until somebody has room, and does not know it yet."""
    while not stream(client)._invited:  # noqa: ASYNC110 - it lasts for one turn of the event loop
        await asyncio.sleep(0)


async def test_who_asks_for_what_cannot_be_said_leaves_the_room_to_the_next(state: Client) -> None:
    await state.put("k", 1)
    wrong: Any = 5
    calls = [state.put("k", 2, content_type=wrong if number in (3, 4, 9) else None) for number in range(10)]
    async with asyncio.timeout(TIMEOUT):
        ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [number for number, end in enumerate(ends) if isinstance(end, TypeError)] == [3, 4, 9]
    assert [end.version for end in ends if isinstance(end, comity.PutResult)] == list(range(2, 9))


async def test_who_is_cancelled_with_room_leaves_it_to_the_next(state: Client) -> None:
    await state.put("k", 1)
    tasks = [asyncio.create_task(state.put("k", number)) for number in range(6)]
    await invited(state)
    for task in tasks[1:3]:
        assert not task.done()
        task.cancel()
    async with asyncio.timeout(TIMEOUT):
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(end, asyncio.CancelledError) for end in ends] == [False, True, True, False, False, False]
    assert not stream(state)._invited


async def test_what_is_left_out_of_a_message_leaves_its_room_to_the_next(
    state: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else is in flight then, whose answer would make room."""
    await state.put("k", 1)
    client_opens: Any = lanes(state).open
    written = asyncio.Event()

    def slow(**options: Any) -> Any:
        call = client_opens(**options)
        write = call.write

        async def write_slowly(message: Any) -> None:
            await write(message)
            await written.wait()

        call.write = write_slowly
        return call

    monkeypatch.setattr(lanes(state), "open", slow)
    lane(state).close()
    async with asyncio.timeout(TIMEOUT):
        await state.put("k", 2)
        left_out = asyncio.create_task(state.put("k", 3))
        waiting = asyncio.create_task(state.put("k", 4))
        await until(lambda: bool(stream(state)._waiting))
        left_out.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left_out
        written.set()
        assert (await waiting).version == 3


async def test_nothing_stays_of_who_waits_for_room_no_longer(server: Server, namespace: str) -> None:
    async with Proxy(server.address) as proxy, comity.connect(proxy.address, namespace=namespace) as client:
        await client.put("k", 1)
        proxy.stall()
        first = asyncio.create_task(client.get("k"))
        await until(lambda: stream(client).is_full)
        cancelled = [asyncio.create_task(client.get("k")) for _ in range(10)]
        late = [asyncio.create_task(client.get("k", timeout=0.05)) for _ in range(10)]
        await until(lambda: len(stream(client)._waiting) == 20)
        for task in cancelled:
            task.cancel()
        ends = await asyncio.gather(*cancelled, *late, return_exceptions=True)
        assert [type(end) for end in ends] == [asyncio.CancelledError] * 10 + [comity.DeadlineExceeded] * 10
        assert not stream(client)._waiting
        proxy.resume()
        await first


async def test_many_deadlines_are_not_looked_at_one_by_one(
    server: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the time that they take would grow with the square of those who wait."""
    monkeypatch.setattr("comity.stream.REST_SECONDS", 0.01)
    looks = 0
    look = Stream._rung

    def counted(self: Stream) -> None:
        nonlocal looks
        looks += 1
        look(self)

    monkeypatch.setattr(Stream, "_rung", counted)
    async with Proxy(server.address) as proxy, comity.connect(proxy.address, namespace=namespace) as client:
        await client.put("k", 1)
        proxy.stall()
        calls = [client.get("k", timeout=0.05 + number * 0.002) for number in range(100)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(end) for end in ends} == {comity.DeadlineExceeded}
        assert looks <= 2
        proxy.resume()


async def test_close_ends_who_waits_for_room(server: Server, namespace: str) -> None:
    async with Proxy(server.address) as proxy:
        client = comity.connect(proxy.address, namespace=namespace, timeout=60)
        await client.put("k", 1)
        watched = Watched(client)
        lane(client).close()  # the next stream is watched
        proxy.stall()
        tasks = [asyncio.create_task(client.put("k", 2)) for _ in range(5)]
        await proxy.held_back()
        async with asyncio.timeout(TIMEOUT):
            await client.close()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(end) for end in ends] == ["the client is closed"] * 5
        assert watched.streams == 1


async def test_a_lane_that_makes_place_for_another_begins_no_stream_any_more(
    state: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who just had room in it goes by itself."""
    monkeypatch.setattr("comity.coalesce.LANES", 1)
    monkeypatch.setattr("comity.coalesce.BUSY_SECONDS", -60.0)
    await state.put("k", 1)
    watched = Watched(state)
    own = lane(state)
    tasks = [asyncio.create_task(state.put("k", number)) for number in range(2)]
    await invited(state)
    assert lanes(state).lane(state.namespace, "another", own.writer) is not None
    assert [(await task).version for task in tasks] == [2, 3]
    assert watched.streams == 0
    assert own._stream is None
