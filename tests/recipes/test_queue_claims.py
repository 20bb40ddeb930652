"""Claims of a queue's items: blocks, acknowledgements, and claims that are lost."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from comity import Client, InvalidArgument, LeaseLost, Transaction
from comity.recipes import Item, Queue, QueueSize
from tests.recipes.queues import left, take
from tests.waiting import until


async def test_a_block_acknowledges(state: Client) -> None:
    queue = Queue(state, "a", tries=2)
    await queue.put("x")
    with pytest.raises(KeyError):
        async with queue.claim():
            raise KeyError
    assert await queue.size() == QueueSize(1, 0, 0)
    async with queue.claim() as item:
        assert item.tries == 2
    assert await queue.size() == QueueSize(0, 0, 0)


async def test_a_block_may_settle_it_itself(state: Client) -> None:
    queue = Queue(state, "a")
    await queue.put("x")
    async with queue.claim() as item:
        await item.nack()
        assert item.settled
    async with queue.claim() as item:
        await item.ack()
    with pytest.raises(KeyError):
        await _fail_after_ack(queue)
    assert await queue.size() == QueueSize(0, 0, 0)


async def _fail_after_ack(queue: Queue) -> None:
    await queue.put("y")
    async with queue.claim() as item:
        await item.ack()
        raise KeyError


async def test_a_cancelled_block_counts_as_no_try(state: Client) -> None:
    queue = Queue(state, "a", tries=1)
    await queue.put("x")
    for _ in range(3):
        entered = asyncio.Event()

        async def work(entered: asyncio.Event) -> None:
            async with queue.claim():
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work(entered))
        await entered.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    assert await queue.size() == QueueSize(1, 0, 0)
    item = await queue.get()
    assert item.tries == 1


async def test_the_block_is_cancelled_when_the_claim_is_lost(state: Client) -> None:
    queue = Queue(state, "a")
    await queue.put("x")

    async def work() -> None:
        async with queue.claim() as item:
            await state.revoke_lease(item.lease.id)
            await asyncio.Event().wait()

    with pytest.raises(LeaseLost):
        await work()
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    async with queue.claim() as item:
        assert item.tries == 2


async def _nack_for_too_long(item: Item) -> None:
    with pytest.raises(InvalidArgument, match="ttl"):
        await item.nack(delay=1e9)


async def _fail_to_ack(item: Item) -> None:
    def fail(tx: Transaction) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await item.ack(fail)


async def _ack_what_is_refused(item: Item) -> None:
    with pytest.raises(InvalidArgument):
        await item.ack(lambda tx: tx.put("x" * 2_000, 1))


@pytest.mark.parametrize("settle", [_nack_for_too_long, _fail_to_ack, _ack_what_is_refused])
async def test_the_block_is_cancelled_when_the_claim_is_lost_after_a_failed_try_to_settle_it(
    state: Client, settle: Callable[[Item], Awaitable[None]]
) -> None:
    queue = Queue(state, "a")
    await queue.put("x")

    async def work() -> None:
        async with queue.claim() as item:
            await settle(item)
            await state.revoke_lease(item.lease.id)
            await asyncio.Event().wait()

    async with asyncio.timeout(60):
        with pytest.raises(LeaseLost):
            await work()
    assert await queue.size() == QueueSize(1, 0, 0)


async def test_a_shared_lease_outlives_a_claim_that_is_lost(state: Client) -> None:
    async with state.lease(3.0) as lease:
        queue = Queue(state, "a", lease=lease, tries=1)
        id = await queue.put("x")
        item = await queue.get()
        await state.delete(f"queues/a/line/{id}/claim")
        with pytest.raises(LeaseLost):
            await item.ack()
        assert await queue.try_get() is None  # it had its only try
        assert (await queue.size()).dead == 1
        remaining = 0.0

        async def is_renewed() -> bool:
            nonlocal remaining
            before, remaining = remaining, (await state.get_lease(lease.id)).remaining
            return remaining > before > 0

        await until(is_renewed)
        await until(is_renewed)


async def test_who_lost_the_claim_acknowledges_nothing(state: Client) -> None:
    queue = Queue(state, "a")
    await queue.put("x")
    late = await queue.get()
    await state.revoke_lease(late.lease.id)
    item = await queue.get()
    with pytest.raises(LeaseLost):
        await late.ack()
    with pytest.raises(LeaseLost):
        await late.nack()
    with pytest.raises(LeaseLost):
        await late.ack(lambda tx: tx.put("result", 1))
    assert await state.get("result") is None
    assert await queue.size() == QueueSize(0, 1, 0)
    await item.ack()


async def test_results_are_written_with_the_acknowledgement(state: Client) -> None:
    queue = Queue(state, "a")
    await queue.put(20)

    async def add(tx: Transaction) -> int:
        entry = await tx.get("sum")
        total: int = (entry.value if entry else 0) + 20
        tx.put("sum", total)
        return total

    async with queue.claim() as item:
        assert await item.ack(add) == 20
    (commit,) = await state.history("sum").all()
    assert await state.history("queues/a/items/", from_revision=commit.revision).all() != []
    assert await left(state) == []


async def test_an_acknowledgement_that_fails_leaves_the_item(state: Client) -> None:
    queue = Queue(state, "a")
    await queue.put("x")

    def fail(tx: Transaction) -> None:
        tx.put("result", 1)
        raise KeyError

    item = await queue.get()
    with pytest.raises(KeyError):
        await item.ack(fail)
    assert await state.get("result") is None
    assert await queue.size() == QueueSize(0, 1, 0)
    await item.ack()


async def test_items_are_put_with_what_else_a_transaction_writes(state: Client) -> None:
    queue = Queue(state, "a")

    async def plan(tx: Transaction, fail: bool) -> None:
        tx.put("plan", 1)
        for page in range(3):
            await queue.put(page, tx=tx)
        if fail:
            raise KeyError

    with pytest.raises(KeyError):
        await state.transact(lambda tx: plan(tx, True))
    assert await left(state) == []
    await state.transact(lambda tx: plan(tx, False))
    assert len(await state.history("queues/a/items/").all()) == 1
    assert [await take(queue) for _ in range(3)] == [0, 1, 2]
