"""Blocks that end with a lease, or are made to fail: what they raise, and what becomes of the task's cancellation."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from comity import Client, Lease, LeaseLost
from comity.leases.block import Block, ends_with


@pytest.fixture
async def lease(state: Client) -> AsyncIterator[Lease]:
    lease = await state.grant_lease(3600)
    yield lease
    await lease.revoke()


def cancellations() -> int:
    """Requests that the running task has."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def run(block: Block, lease: Lease, *, let_go: bool = False) -> None:
    """A block that waits for ever."""
    block.begin(lease)
    if let_go:
        block.let_go()
    try:
        await asyncio.Event().wait()
    except BaseException as error:
        block.end()
        block.check(error)
        raise


async def settled() -> None:
    """What was to be called soon has been."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_it_is_cancelled_when_the_lease_is_lost(lease: Lease) -> None:
    asyncio.get_running_loop().call_soon(lease._lose, "gone")
    with pytest.raises(LeaseLost, match="gone") as lost:
        await run(Block(), lease)
    assert isinstance(lost.value.__cause__, asyncio.CancelledError)
    assert cancellations() == 0


async def test_it_fails_with_the_first_of_what_it_is_made_to_fail_with(lease: Lease) -> None:
    block = Block()
    first = ZeroDivisionError("first")
    first.__cause__ = cause = KeyError("its cause")
    asyncio.get_running_loop().call_soon(block.fail, first)
    asyncio.get_running_loop().call_soon(block.fail, ValueError("second"))
    with pytest.raises(ZeroDivisionError, match="first") as failed:
        await run(block, lease)
    assert failed.value.__cause__ is cause
    assert cancellations() == 0


async def test_another_thread_can_have_it_fail(lease: Lease) -> None:
    block = Block()
    thread = threading.Thread(target=lambda: block.fail(ZeroDivisionError()))
    asyncio.get_running_loop().call_soon(thread.start)
    with pytest.raises(ZeroDivisionError):
        await run(block, lease)
    thread.join()


async def test_its_own_error_is_raised_instead(lease: Lease) -> None:
    async def work() -> None:
        with ends_with(lease):
            try:
                lease._lose("gone")
                await asyncio.Event().wait()
            finally:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()
    assert cancellations() == 0


async def test_a_cancellation_by_others_stays(lease: Lease) -> None:
    task = asyncio.create_task(run(Block(), lease))
    await settled()
    lease._lose("gone")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelling() == 1  # the request that was not of the block


async def test_a_lease_that_is_lost_without_a_wait_is_told_at_the_end(lease: Lease) -> None:
    with pytest.raises(LeaseLost), ends_with(lease):
        lease._lose("gone")
    await settled()  # where a cancellation that nobody has seen yet would come out


async def test_while_it_is_let_go_the_lease_may_end(lease: Lease) -> None:
    block = Block()
    task = asyncio.create_task(run(block, lease, let_go=True))
    await settled()
    lease._lose("gone")
    await settled()
    assert not task.done()
    block.hold_on()
    with pytest.raises(LeaseLost):
        await task


async def test_after_its_end_nothing_cancels_the_task(lease: Lease) -> None:
    block = Block()
    block.begin(lease)
    block.end()
    block.fail(ZeroDivisionError())
    lease._lose("gone")
    await settled()
    assert cancellations() == 0


async def test_a_block_of_which_nothing_was_lost_ends_as_it_likes(lease: Lease) -> None:
    with ends_with(lease):
        pass
    with pytest.raises(KeyError), ends_with(lease):
        raise KeyError
