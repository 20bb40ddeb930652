"""Consumers of a queue: many at a time, cancelled, stopped and killed."""

import asyncio
from collections.abc import Callable

import pytest

from comity import Client
from comity.recipes import Item, Queue, QueueSize
from comity.recipes.item import Claimed
from comity.recipes.queue import Free
from tests.recipes.cancelling import cancelled_at
from tests.recipes.processes import Agent
from tests.recipes.queues import left
from tests.waiting import until


async def test_cancellation_leaves_nothing_wherever_it_comes(state: Client) -> None:
    queue = Queue(state, "a")
    await queue.put("x")
    wait = 0
    while True:
        claimed: list[Item] = []

        async def get(claimed: list[Item]) -> None:
            claimed.append(await queue.get())

        if not await cancelled_at(get(claimed), wait):
            break
        assert await queue.size() == QueueSize(1, 0, 0)
        wait += 1
    assert wait >= 2
    assert claimed[0].tries == 1


async def test_cancellation_of_a_wait_leaves_nothing_wherever_it_comes(state: Client) -> None:
    queue = Queue(state, "a", tries=1_000)
    wait = 0
    while True:
        claimed: list[Item] = []

        async def get(claimed: list[Item]) -> None:
            claimed.append(await queue.get())

        putting = asyncio.create_task(_put_later(queue))
        cancelled = await cancelled_at(get(claimed), wait)
        putting.cancel()
        await asyncio.wait([putting])
        if not cancelled:
            break
        found = await queue.size()
        assert found.claimed == 0
        while (item := await queue.try_get()) is not None:
            assert item.tries == 1
            await item.ack()
        wait += 1
    assert wait > 2
    await claimed[0].ack()


async def _put_later(queue: Queue) -> None:
    await asyncio.sleep(0.02)  # by then the other one may wait, or not
    await queue.put("x")


@pytest.mark.parametrize("consumers", [1, 30])
async def test_many_consumers_do_each_item_once(state: Client, consumers: int) -> None:
    queue = Queue(state, "a")
    done: list[int] = []

    async def consume() -> None:
        mine = Queue(state, "a")
        while True:
            async with mine.claim() as item:
                await item.ack(lambda tx: tx.put(f"done/{item.value}", item.fence))
                done.append(item.value)

    tasks = [asyncio.create_task(consume()) for _ in range(consumers)]
    await asyncio.gather(*(queue.put(number) for number in range(100)))
    await until(lambda: len(done) >= 100)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert sorted(done) == list(range(100))
    assert {entry.version async for entry in state.list("done/")} == {1}
    assert await left(state) == []


async def test_few_claims_are_made_in_vain(state: Client) -> None:
    """Of many consumers that wait, not all try for the one item that comes."""
    claims = 0

    class Counting(Queue):
        async def _claim(self, free: Free) -> Claimed | None:
            nonlocal claims
            claims += 1
            return await super()._claim(free)

    async def consume() -> None:
        queue = Counting(state, "a")
        while True:
            async with queue.claim():
                pass

    tasks = [asyncio.create_task(consume()) for _ in range(20)]
    queue = Queue(state, "a")

    async def empty() -> bool:
        return sum(await queue.size()) == 0

    for number in range(100):
        await queue.put(number)
        await until(empty)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert claims < 100 * 15


async def test_an_item_of_a_killed_consumer_is_free_soon_after_its_ttl(
    state: Client, agent: Callable[..., Agent]
) -> None:
    queue = Queue(state, "a")
    await queue.put("x")
    consumer = agent("queue", "a", "2")
    (_, fence) = await consumer.says()
    consumer.kill()
    item = await queue.get(timeout=30)
    assert item.fence > int(fence)
    assert item.tries == 2
    await item.ack()


async def test_a_consumer_that_was_stopped_acknowledges_nothing(state: Client, agent: Callable[..., Agent]) -> None:
    queue = Queue(state, "a")
    await queue.put("x")
    consumer = agent("queue", "a", "2")
    await consumer.says()
    consumer.stop()
    item = await queue.get(timeout=30)
    consumer.tell("ack")
    consumer.tell("write y")
    consumer.go_on()
    assert await consumer.says() == ["refused", "lost"]
    assert await consumer.says() == ["refused", "lost"]
    assert await queue.size() == QueueSize(0, 1, 0)
    await item.ack()
