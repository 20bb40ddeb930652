"""Queues after a restore, in a fork, and where others write."""

import asyncio

import pytest

from comity import Client, LeaseLost, Transaction
from comity.recipes import Queue, QueueSize
from comity.recipes.queue import Free
from comity.recipes.within import Wait
from tests.recipes.queues import left, take


class Waiting(Queue):
    """A queue that says when a consumer has found nothing, and waits."""

    def __init__(self, state: Client, name: str) -> None:
        super().__init__(state, name)
        self.waits = asyncio.Event()

    async def _until_free(self, revision: int, epoch: str, wait: Wait) -> list[Free]:
        self.waits.set()
        return await super()._until_free(revision, epoch, wait)


async def test_what_a_restore_brings_back_is_free(state: Client) -> None:
    queue = Queue(state, "a")
    await queue.put("x")
    async with queue.claim():
        mark = await state.checkpoint("claimed")
    await state.restore(mark)
    assert await queue.size() == QueueSize(1, 0, 0)
    await queue.put("y")
    assert await take(queue) == "x"
    assert await take(queue) == "y"
    assert await left(state) == []


async def test_whoever_waits_gets_what_a_restore_brings_back(state: Client) -> None:
    queue = Waiting(state, "a")
    await queue.put("x")
    item = await queue.get()
    mark = await state.checkpoint("claimed")
    await item.ack()
    taking = asyncio.create_task(take(queue))
    await queue.waits.wait()
    await state.restore(mark)
    assert await taking == "x"
    assert await left(state) == []


async def test_a_claim_that_is_written_by_others_is_nobodys(state: Client) -> None:
    queue = Waiting(state, "a")
    id = await queue.put("x")
    item = await queue.get()
    taking = asyncio.create_task(take(queue))
    await queue.waits.wait()
    await state.put(f"queues/a/line/{id}/claim", "foreign")
    assert await taking == "x"
    with pytest.raises(LeaseLost):
        await item.ack()


async def test_a_restored_number_is_not_given_out_again(state: Client) -> None:
    queue = Queue(state, "a")
    await queue.put("x")
    await state.delete("queues/a/tail")
    await queue.put("y")
    await state.delete("queues/a/tail")

    async def put(tx: Transaction) -> None:
        await queue.put("z", tx=tx)

    await state.transact(put)
    assert [await take(queue) for _ in range(3)] == ["x", "y", "z"]


async def test_a_fork_has_consumers_of_its_own(state: Client) -> None:
    queue = Queue(state, "a")
    await queue.put("x")
    async with queue.claim():
        fork = await state.fork(f"{state.namespace}-fork")
        assert await take(Queue(fork, "a")) == "x"
        await fork.delete_namespace()


async def test_claims_of_what_a_namespace_was_before_are_told_from_those_of_now(state: Client) -> None:
    await state.put("x", 1)
    fork = state.with_options(namespace=f"{state.namespace}-fork")
    queue = Queue(fork, "a")
    await queue.put("of none")
    await queue.get()
    assert await queue.try_get() is None
    await fork.delete_namespace()
    parents = Queue(state, "a")
    await parents.put("of the parent")
    await parents.get()
    await state.fork(fork.namespace)
    assert await take(queue) == "of the parent"
    await fork.delete_namespace()
    await queue.put("of none again")
    await queue.get()
    assert await queue.try_get() is None
    await fork.delete_namespace()
