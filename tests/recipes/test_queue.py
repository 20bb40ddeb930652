"""A queue: what comes first, and who gets it."""

import asyncio
import random

import pytest

from comity import Client
from comity.recipes import Queue, QueueSize
from tests.recipes.queues import left, take
from tests.waiting import until


async def test_what_was_put_first_comes_first(state: Client) -> None:
    queue = Queue(state, "a")
    values: list[object] = [{"n": 1}, b"\x00\xff", "text", None, [1, 2]]
    for value in values:
        await queue.put(value)
    assert [await take(queue) for _ in values] == values
    assert await left(state) == []
    assert [lease async for lease in state.list_leases()] == []


async def test_higher_priorities_come_first(state: Client) -> None:
    queue = Queue(state, "a")
    for priority in (0, -999, 5, 999, 0, -1, 5):
        await queue.put(priority, priority)
    assert [await take(queue) for _ in range(7)] == [999, 5, 5, 0, 0, -1, -999]
    for wrong in (1_000, -1_000):
        with pytest.raises(ValueError, match="priority is a whole number from -999 to 999"):
            await queue.put("x", wrong)
    with pytest.raises(TypeError, match="priority"):
        await queue.put("x", "high")  # type: ignore[arg-type]


async def test_a_claimed_item_is_nobody_elses(state: Client) -> None:
    queue = Queue(state, "a")
    await queue.put("x")
    item = await queue.get()
    assert item.tries == 1
    assert item.fence == (await state.namespace_info()).revision
    assert await queue.try_get() is None
    assert await queue.size() == QueueSize(0, 1, 0)
    with pytest.raises(TimeoutError):
        await queue.get(timeout=0.2)
    await state.put("y", 1, guard=item)
    await item.ack()
    assert await queue.size() == QueueSize(0, 0, 0)
    for again in (item.ack, item.nack):
        with pytest.raises(RuntimeError, match="already"):
            await again()


async def test_whoever_waits_gets_what_comes(state: Client) -> None:
    queue = Queue(state, "a")
    waiting = asyncio.create_task(queue.get())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.1)
    await queue.put("x")
    item = await waiting
    assert item.value == "x"
    again = asyncio.create_task(queue.get())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(again), 0.1)
    await item.nack()
    assert (await again).tries == 2


async def test_what_is_given_back_keeps_its_place(state: Client) -> None:
    queue = Queue(state, "a")
    await queue.put("first")
    await queue.put("second")
    item = await queue.get()
    await item.nack()
    assert await take(queue) == "first"


async def test_a_delay_is_waited_out(state: Client) -> None:
    queue = Queue(state, "a")
    await queue.put("x")
    item = await queue.get()
    await item.nack(delay=1)
    assert await queue.try_get() is None
    assert await queue.size() == QueueSize(0, 1, 0)
    again = await queue.get(timeout=30)
    assert again.tries == 2
    (before, after) = [
        event.time
        for commit in await state.history("queues/a/line/", newest_first=False).all()
        for event in commit.events
        if event.key.endswith("/claim") and (event.entry.version == 2 or event.is_delete)
    ]
    assert (after - before).total_seconds() >= 1
    with pytest.raises(ValueError, match="delay is a number of seconds"):
        await again.nack(delay=-1)


async def test_two_servers_have_one_queue(pair: tuple[Client, Client]) -> None:
    done: list[int] = []

    async def consume(client: Client) -> None:
        queue = Queue(client, "a")
        while True:
            async with queue.claim() as item:
                await item.ack(lambda tx: tx.put(f"done/{item.value}", item.fence))
                done.append(item.value)

    tasks = [asyncio.create_task(consume(pair[number % 2])) for number in range(6)]
    for number in range(40):
        await Queue(random.choice(pair), "a").put(number)
    await until(lambda: len(done) >= 40)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert sorted(done) == list(range(40))
    assert {entry.version async for entry in pair[0].list("done/")} == {1}
