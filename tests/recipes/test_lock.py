"""One holder at a time, in the order in which they asked."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest

import comity
from comity import Client, LeaseLost
from comity.recipes import Lock
from tests.recipes.cancelling import cancelled_at
from tests.recipes.processes import Agent
from tests.waiting import until


async def keys(state: Client) -> list[str]:
    return [entry.key async for entry in state.list("locks/")]


async def keys_in_order(state: Client) -> list[str]:
    return [entry.key for entry in sorted(await state.list("locks/").all(), key=lambda entry: entry.create_revision)]


async def in_line(state: Client, count: int) -> None:
    async def are_there() -> bool:
        return len(await keys(state)) == count

    await until(are_there)


async def test_it_is_held_in_a_block(state: Client) -> None:
    lock = Lock(state, "a")
    assert not await lock.locked()
    async with lock as same:
        assert same is lock
        assert same.held
        assert await lock.locked()
        assert await Lock(state, "a").owner() == "ann"
        assert lock.fence == lock.lease.id == lock.guard.fence
        assert not await Lock(state, "a").try_acquire()
        await state.put("x", 1, guard=lock)
        await state.put("x", 2, guard=lock.guard)
    assert not lock.held
    assert await lock.owner() is None
    assert await keys(state) == []
    assert [lease async for lease in state.list_leases()] == []


async def test_who_asked_first_has_it_first(state: Client) -> None:
    order: list[int] = []
    fences: list[int] = []

    async def contend(number: int) -> None:
        async with Lock(state, "a") as lock:
            order.append(number)
            fences.append(lock.fence)

    first = Lock(state, "a")
    await first.acquire()
    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(contend(number))
            await in_line(state, number + 2)
        await first.release()
    assert order == list(range(12))
    assert fences == sorted(set(fences))


async def test_many_contend_and_one_holds(state: Client) -> None:
    inside = 0

    async def contend() -> None:
        nonlocal inside
        for _ in range(5):
            async with Lock(state, "a"):
                inside += 1
                entry = await state.get("count")
                await state.put("count", 1 if entry is None else entry.value + 1)
                assert inside == 1
                inside -= 1

    await asyncio.gather(*(contend() for _ in range(10)))
    entry = await state.get("count")
    assert entry is not None
    assert entry.value == 50


async def test_a_contender_that_died_in_the_line_blocks_nobody(state: Client) -> None:
    first, last = Lock(state, "a"), Lock(state, "a")
    await first.acquire()
    await state.put("locks/a/dead", {"owner": "bob"}, ttl=1)  # nobody keeps it alive
    waiting = asyncio.create_task(last.acquire())
    await in_line(state, 3)
    await first.release()
    await waiting
    await last.release()


async def test_a_dead_predecessor_lets_nobody_overtake_the_holder(state: Client) -> None:
    async with Lock(state, "a"):
        await state.put("locks/a/dead", {"owner": "bob"}, ttl=1)
        waiting = asyncio.create_task(Lock(state, "a").acquire())
        await in_line(state, 3)
        await in_line(state, 2)
        assert not await Lock(state, "a").try_acquire()
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_a_place_that_was_lost_is_taken_anew(state: Client) -> None:
    first, second, third = Lock(state, "a"), Lock(state, "a"), Lock(state, "a")
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await in_line(state, 2)
    place = max(await state.list("locks/a/").all(), key=lambda entry: entry.create_revision)
    last = asyncio.create_task(third.acquire())
    await in_line(state, 3)
    await state.revoke_lease(place.lease_id)

    async def has_come_again() -> bool:
        found = await keys(state)
        return len(found) == 3 and place.key not in found

    await until(has_come_again)
    await first.release()
    await last
    assert not waiting.done()
    await third.release()
    await waiting
    await second.release()


async def test_a_wait_has_an_end(state: Client) -> None:
    async with Lock(state, "a"):
        other = Lock(state, "a")
        with pytest.raises(TimeoutError):
            await other.acquire(timeout=0.2)
        assert len(await keys(state)) == 1
        assert not other.held
    assert await other.acquire(timeout=5)
    await other.release()


async def test_it_can_be_had_again(state: Client) -> None:
    lock = Lock(state, "a")
    fences = []
    for _ in range(3):
        fences.append(await lock.acquire())
        await lock.release()
    assert fences == sorted(set(fences))


async def test_an_object_is_one_contender(state: Client) -> None:
    lock = Lock(state, "a")
    for use in (lambda: lock.fence, lambda: lock.guard, lambda: lock.lease):
        with pytest.raises(RuntimeError, match="lock 'a' is not held"):
            use()
    with pytest.raises(RuntimeError, match="not held"):
        await lock.release()
    async with lock:
        with pytest.raises(RuntimeError, match="one for each task"):
            await lock.acquire()
        waiting = Lock(state, "a")
        acquiring = asyncio.create_task(waiting.acquire())
        await in_line(state, 2)
        with pytest.raises(RuntimeError, match="one for each task"):
            await waiting.try_acquire()
    await acquiring
    await waiting.release()


async def test_it_may_be_released_in_its_block(state: Client) -> None:
    async with Lock(state, "a") as lock:
        await lock.release()
        async with Lock(state, "a"):
            pass
    assert await keys(state) == []


async def test_the_block_is_cancelled_when_it_is_lost(state: Client) -> None:
    lock = Lock(state, "a", ttl=2)

    async def hold() -> None:
        async with lock:
            await state.revoke_lease(lock.lease.id)
            await asyncio.Event().wait()

    with pytest.raises(LeaseLost):
        await hold()
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    assert not lock.held


async def test_a_block_that_does_not_wait_hears_of_the_loss_at_its_end(state: Client) -> None:
    lock = Lock(state, "a", ttl=2)

    async def hold() -> None:
        async with lock:
            await state.delete(prefix="locks/")
            with contextlib.suppress(asyncio.CancelledError):
                await until(lambda: not lock.held)

    with pytest.raises(LeaseLost):
        await hold()


async def test_the_error_of_a_block_is_its_own(state: Client) -> None:
    with pytest.raises(KeyError):
        async with Lock(state, "a"):
            raise KeyError
    assert await keys(state) == []


async def test_a_cancelled_block_releases(state: Client) -> None:
    entered = asyncio.Event()

    async def hold() -> None:
        async with Lock(state, "a"):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await entered.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert await keys(state) == []


async def test_release_says_that_it_was_lost(state: Client) -> None:
    lock = Lock(state, "a")
    await lock.acquire()
    await state.revoke_lease(lock.lease.id)
    await lock.lease.lost()
    with pytest.raises(LeaseLost):
        await lock.release()
    assert await lock.acquire()
    await lock.release()


@pytest.mark.parametrize("contended", [False, True])
async def test_cancellation_leaves_nothing_wherever_it_comes(state: Client, contended: bool) -> None:
    holder = Lock(state, "a")
    if contended:
        await holder.acquire()
    wait = 0
    while True:
        lock = Lock(state, "a")
        releasing = asyncio.create_task(_release_when(state, holder, 2)) if contended else None
        if not await cancelled_at(lock.acquire(), wait):
            await lock.release()
            break
        assert await keys(state) == ([holder_key(holder)] if contended and holder.held else [])
        if releasing is not None:
            releasing.cancel()
            await asyncio.wait([releasing])
            if not holder.held:
                await holder.acquire()
        wait += 1
    assert wait > 2
    assert await keys(state) == []


def holder_key(holder: Lock) -> str:
    assert holder._place is not None
    return holder._place.key


async def _release_when(state: Client, holder: Lock, count: int) -> None:
    await in_line(state, count)
    await holder.release()


async def test_what_a_restore_brings_back_holds_nothing(state: Client) -> None:
    async with Lock(state, "a"):
        mark = await state.checkpoint("held")
    await state.restore(mark)
    assert len(await keys(state)) == 1
    lock = Lock(state, "a")
    assert not await lock.locked()
    assert await lock.acquire(timeout=5)
    assert await lock.owner() == "ann"
    await lock.release()
    assert await lock.try_acquire()
    await lock.release()


async def test_a_place_that_is_written_by_others_is_gone(state: Client) -> None:
    holder, waiter = Lock(state, "a"), Lock(state, "a")
    await holder.acquire()
    waiting = asyncio.create_task(waiter.acquire(timeout=30))
    await in_line(state, 2)
    await state.put((await keys_in_order(state))[0], "foreign")
    assert await waiting
    await waiter.release()


async def test_a_place_that_a_merge_wrote_is_gone(state: Client) -> None:
    holder, waiter = Lock(state, "a"), Lock(state, "a")
    await holder.acquire()
    fork = await state.fork(f"{state.namespace}-fork")
    await fork.put((await keys(state))[0], "changed in the fork")
    waiting = asyncio.create_task(waiter.acquire(timeout=30))
    await in_line(state, 2)
    assert (await state.merge(fork)).merged
    assert await waiting
    await waiter.release()
    await fork.delete_namespace()


async def test_a_waiter_whose_place_is_written_by_others_comes_again(state: Client) -> None:
    holder, waiter = Lock(state, "a"), Lock(state, "a")
    await holder.acquire()
    waiting = asyncio.create_task(waiter.acquire(timeout=30))
    await in_line(state, 2)
    await state.put((await keys_in_order(state))[1], "foreign")
    await in_line(state, 3)
    assert not waiting.done()
    await holder.release()
    assert await waiting == waiter.fence
    entry = await state.get((await keys_in_order(state))[-1])
    assert entry is not None
    assert entry.lease_id == waiter.fence
    await waiter.release()


async def test_a_fork_has_locks_of_its_own(state: Client) -> None:
    async with Lock(state, "a") as lock:
        fork = await state.fork(f"{state.namespace}-fork")
        async with Lock(fork, "a") as other:
            assert await Lock(fork, "a").owner() == "ann"
            with pytest.raises(ValueError, match="namespace"):
                await state.put("x", 1, guard=other)
            assert lock.held
        await fork.delete_namespace()


async def test_what_a_namespace_was_before_it_was_made_anew_is_forgotten(state: Client) -> None:
    fork = state.with_options(namespace=f"{state.namespace}-fork")
    lock, other = Lock(fork, "a"), Lock(fork, "b")
    async with Lock(fork, "a"), Lock(fork, "b"):
        assert await lock.locked()
        assert await other.locked()
    await fork.delete_namespace()
    for _ in range(10):  # so that the leases there have greater ids than those before
        await state.put("x", 1)
    async with Lock(state, "a"), Lock(state, "b"):
        await state.fork(fork.namespace)
        assert await lock.acquire(timeout=30)
        assert await other.try_acquire()
    await fork.delete_namespace()


async def test_a_killed_holder_is_followed_soon_after_its_ttl(state: Client, agent: Callable[..., Agent]) -> None:
    holder = agent("lock", "a", "2")
    (_, fence) = await holder.says()
    waiting = asyncio.create_task(Lock(state, "a").acquire())
    await in_line(state, 2)
    holder.kill()
    assert await waiting > int(fence)
    expired = await state.history("locks/a/").all()
    assert [event.cause for commit in expired for event in commit.events if event.is_delete] == [
        comity.EventCause.LEASE_EXPIRY
    ]


async def test_a_holder_that_was_stopped_cannot_write(state: Client, agent: Callable[..., Agent]) -> None:
    holder = agent("lock", "a", "2")
    assert (await holder.says())[0] == "held"
    holder.tell("write x")
    assert await holder.says() == ["written"]
    holder.stop()
    async with Lock(state, "a") as lock:
        await state.put("x", "next", guard=lock)
        holder.tell("write x")
        holder.go_on()
        assert await holder.says() == ["refused", "lost"]
    entry = await state.get("x")
    assert entry is not None
    assert entry.value == "next"


async def test_two_servers_have_one_lock(pair: tuple[Client, Client]) -> None:
    one, other = pair
    async with Lock(one, "a") as lock:
        assert await Lock(other, "a").owner() == "ann"
        assert not await Lock(other, "a").try_acquire()
        waiting = asyncio.create_task(Lock(other, "a").acquire())
        await in_line(one, 2)
        await one.put("x", 1, guard=lock)
        await other.put("x", 2, guard=lock.guard)
        fence = lock.fence
    assert await waiting > fence
