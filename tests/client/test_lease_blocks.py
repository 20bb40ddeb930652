"""Blocks that have a lease, and who is told when one is lost."""

import asyncio
from typing import Any

import pytest

from comity import Client, Lease, LeaseLost
from tests.client.leases import SHORT, gone, revoked_by_another
from tests.waiting import until


async def test_a_block_whose_lease_is_lost_is_cancelled(state: Client) -> None:
    leases: list[Lease] = []

    async def block() -> None:
        async with state.lease(3600) as lease:
            leases.append(lease)
            await revoked_by_another(state, lease)
            await asyncio.Event().wait()

    with pytest.raises(LeaseLost, match="the server says that it has ended") as lost:
        await block()
    assert isinstance(lost.value.__cause__, asyncio.CancelledError)
    assert lost.value.lease_id == leases[0].id
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_what_a_block_raises_when_its_lease_is_lost_is_raised(state: Client) -> None:
    async def block() -> None:
        async with state.lease(3600) as lease:
            await revoked_by_another(state, lease)
            try:
                await asyncio.Event().wait()
            finally:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await block()


async def test_a_block_that_learns_it_by_itself_is_not_cancelled_afterwards(state: Client) -> None:
    async def block() -> None:
        async with state.lease(3600) as lease:
            await revoked_by_another(state, lease)
            await state.put("a", 1, guard=lease)

    with pytest.raises(LeaseLost):
        await block()
    await state.put("a", 2)  # where a cancellation that nobody has seen yet would come out


async def test_a_block_that_hears_nothing_of_it_is_told_at_its_end(state: Client) -> None:
    async def block() -> None:
        async with state.lease(3600) as lease:
            await revoked_by_another(state, lease)
            with pytest.raises(asyncio.CancelledError):
                await asyncio.Event().wait()

    with pytest.raises(LeaseLost):
        await block()


async def test_a_block_that_is_cancelled_revokes(state: Client) -> None:
    entered = asyncio.Event()

    async def work() -> None:
        async with state.lease(3600) as lease:
            await state.put("a", 1, lease=lease)
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await state.get("a") is None


async def test_a_block_that_is_cancelled_twice_revokes_all_the_same(state: Client) -> None:
    entered = asyncio.Event()

    async def work() -> None:
        async with state.lease(3600) as lease:
            await state.put("a", 1, lease=lease)
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def is_absent() -> bool:
        return await state.get("a") is None

    await until(is_absent)


async def test_a_cancellation_from_outside_is_none_of_the_block(state: Client) -> None:
    """Both come at once: whoever cancelled wants to see it."""
    entered = asyncio.Event()
    lost: list[Lease] = []

    async def work() -> None:
        async with state.lease(3600) as lease:
            lost.append(lease)
            lease.on_lost(lambda _: task.cancel())
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    await revoked_by_another(state, lost[0])
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_blocks_within_each_other(state: Client) -> None:
    """The outer one ends: what the inner one holds is revoked, and it is the outer one that says so."""
    leases: list[Lease] = []

    async def block() -> None:
        async with state.lease(3600) as outer, state.lease(3600) as inner:
            leases[:] = outer, inner
            await revoked_by_another(state, outer)
            await asyncio.Event().wait()

    with pytest.raises(LeaseLost) as lost:
        await block()
    assert lost.value.lease_id == leases[0].id
    assert await gone(state, leases[1].id)


async def test_everybody_who_wants_to_know_is_told_once(state: Client) -> None:
    def cancelled(_: Lease) -> None:
        raise asyncio.CancelledError

    told: list[tuple[str, Lease]] = []
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    lease = await state.grant_lease(3600)
    waiting = [asyncio.create_task(lease.lost()) for _ in range(3)]
    lease.on_lost(lambda found: told.append(("a", found)))
    lease.on_lost(lambda _: 1 / 0)
    lease.on_lost(cancelled)
    lease.on_lost(lambda found: told.append(("b", found)))
    await revoked_by_another(state, lease)
    await asyncio.gather(*waiting)
    assert told == [("a", lease), ("b", lease)]
    assert [type(found["exception"]) for found in complaints] == [ZeroDivisionError, asyncio.CancelledError]
    lease.on_lost(lambda found: told.append(("late", found)))
    await until(lambda: told[2:] == [("late", lease)])
    await lease.lost()


async def test_who_waits_no_longer_is_forgotten(state: Client) -> None:
    lease = await state.grant_lease(3600)
    for _ in range(3):
        waiting = asyncio.create_task(lease.lost())
        await until(lambda: len(lease._callbacks) == 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert lease._callbacks == []
    await lease.revoke()


async def test_nobody_is_told_of_what_was_revoked_here(state: Client) -> None:
    told: list[Lease] = []
    lease = await state.grant_lease(SHORT)
    lease.on_lost(told.append)
    waiting = asyncio.create_task(lease.lost())
    await lease.revoke()
    other = await state.grant_lease(SHORT)
    await other.close()
    await other.lost()  # so that the time of both is over
    assert not waiting.done()
    assert told == []
    waiting.cancel()


async def test_a_block_that_revokes_its_lease_itself(state: Client) -> None:
    async with state.lease(10) as lease:
        await lease.revoke()
    async with state.lease(10) as lease:
        await state.close()
        assert lease.alive


async def test_a_block_is_entered_once(state: Client) -> None:
    leasing = state.lease(10)
    async with leasing:
        pass
    with pytest.raises(RuntimeError, match="for one block"):
        async with leasing:
            pass
