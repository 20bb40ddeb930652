"""So many holders at a time, in the order in which they asked."""

import asyncio
from collections.abc import Callable

import pytest

from comity import Client, FailedPrecondition, LeaseLost
from comity.recipes import Semaphore
from tests.recipes.cancelling import cancelled_at
from tests.recipes.processes import Agent
from tests.waiting import until


async def slots(state: Client) -> int:
    return len([entry async for entry in state.list("semaphores/a/slots/")])


async def in_line(state: Client, count: int) -> None:
    async def are_there() -> bool:
        return await slots(state) == count

    await until(are_there)


async def test_as_many_hold_it_as_the_limit_says(state: Client) -> None:
    inside = 0
    full = asyncio.Event()

    async def contend() -> None:
        nonlocal inside
        async with Semaphore(state, "a", 3):
            inside += 1
            assert inside <= 3
            if inside == 3:
                full.set()
            await full.wait()
            await state.put("x", 1)
            inside -= 1

    await asyncio.gather(*(contend() for _ in range(20)))
    assert await slots(state) == 0


async def test_who_asked_first_has_it_first(state: Client) -> None:
    order: list[int] = []

    async def contend(number: int) -> None:
        semaphore = Semaphore(state, "a", 2)
        await semaphore.acquire()
        order.append(number)
        await semaphore.release()

    holders = [Semaphore(state, "a", 2, owner=f"holder-{number}") for number in range(2)]
    for holder in holders:
        await holder.acquire()
    assert await Semaphore(state, "a", 2).owners() == ["holder-0", "holder-1"]
    assert not await Semaphore(state, "a", 2).try_acquire()
    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(contend(number))
            await in_line(state, number + 3)
        await holders[1].release()
    assert order == list(range(8))
    await holders[0].release()


async def test_a_place_that_is_written_by_others_is_gone(state: Client) -> None:
    holders = [Semaphore(state, "a", 2) for _ in range(2)]
    for holder in holders:
        await holder.acquire()
    waiter = Semaphore(state, "a", 2)
    waiting = asyncio.create_task(waiter.acquire(timeout=30))
    await in_line(state, 3)
    places = await state.list("semaphores/a/slots/").all()
    await state.put(min(places, key=lambda place: place.create_revision).key, "foreign")
    assert await waiting
    await waiter.release()
    await holders[1].release()


async def test_all_go_by_one_limit(state: Client) -> None:
    async with Semaphore(state, "a", 3):
        with pytest.raises(FailedPrecondition, match="says that the limit is 3, not 4") as caught:
            await Semaphore(state, "a", 4).acquire()
        assert caught.value.reason == "LIMIT_DIFFERS"
        assert await slots(state) == 1
        async with Semaphore(state, "b", 4):
            pass


async def test_the_first_ones_agree_on_the_limit(state: Client) -> None:
    await asyncio.gather(*(Semaphore(state, "a", 8).acquire() for _ in range(8)))
    assert await slots(state) == 8
    with pytest.raises(TimeoutError):
        await Semaphore(state, "a", 8).acquire(timeout=0.1)


async def test_the_block_is_cancelled_when_it_is_lost(state: Client) -> None:
    async def hold() -> None:
        async with Semaphore(state, "a", 2) as semaphore:
            await state.revoke_lease(semaphore.lease.id)
            await asyncio.Event().wait()

    with pytest.raises(LeaseLost):
        await hold()


async def test_cancellation_leaves_nothing_wherever_it_comes(state: Client) -> None:
    wait = 0
    while True:
        semaphore = Semaphore(state, "a", 2)
        if not await cancelled_at(semaphore.acquire(), wait):
            await semaphore.release()
            break
        assert await slots(state) == 0
        wait += 1
    assert wait > 2


async def test_the_slot_of_a_killed_holder_is_free_soon_after_its_ttl(
    state: Client, agent: Callable[..., Agent]
) -> None:
    holders = [agent("semaphore", "a", "2"), agent("semaphore", "a", "2")]
    fences = [int((await holder.says())[1]) for holder in holders]
    waiting = Semaphore(state, "a", 2)
    acquiring = asyncio.create_task(waiting.acquire())
    await in_line(state, 3)
    holders[0].kill()
    assert await acquiring > max(fences)
    assert await waiting.owners() == ["agent", "ann"]
    await waiting.release()
