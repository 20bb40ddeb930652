"""What fails too often, and what kills its consumers."""

from typing import Literal

import pytest

from comity import Client, DecodeError, Lease, LeaseLost, Unavailable
from comity.leases.guard import OfLease
from comity.recipes import Queue, QueueSize
from tests.recipes.queues import left, take
from tests.waiting import until


async def test_what_fails_too_often_is_a_dead_letter(state: Client) -> None:
    queue = Queue(state, "a", tries=2)
    id = await queue.put({"x": 1}, 3)
    for _ in range(2):
        item = await queue.get()
        await item.nack(reason="the site is down")
    assert await queue.size() == QueueSize(0, 0, 1)
    assert await queue.try_get() is None
    (letter,) = await queue.dead()
    assert (letter.id, letter.value) == (id, {"x": 1})
    (why,) = [found async for found in state.blame("queues/a/dead/")]
    assert why.message == "the site is down"
    assert await queue.requeue("none such") == 0
    assert await queue.requeue(id) == 1
    assert (await queue.get()).tries == 1


async def test_what_kills_its_consumers_is_a_dead_letter(state: Client) -> None:
    queue = Queue(state, "a", tries=2)
    await queue.put("poison")
    await queue.put("good")
    for _ in range(2):
        item = await queue.get()
        assert item.value == "poison"
        await state.revoke_lease(item.lease.id)
    assert await take(queue) == "good"
    assert [letter.value for letter in await queue.dead()] == ["poison"]
    assert [lease async for lease in state.list_leases()] == []


async def test_a_shared_lease_outlives_what_it_claims(state: Client) -> None:
    queue = Queue(state, "a", tries=1)
    await queue.put("poison")
    await state.revoke_lease((await queue.get()).lease.id)
    async with state.lease(2.0) as lease:
        sharing = Queue(state, "a", tries=1, lease=lease)
        assert await sharing.try_get() is None
        assert (await sharing.size()).dead == 1
        await queue.put("taken away")
        item = await sharing.get()
        await state.delete(f"queues/a/line/{item.id}/claim")
        with pytest.raises(LeaseLost):
            await item.nack()
        before = lease._deadline
        await until(lambda: lease._deadline > before or not lease.alive)
        assert lease.alive


class Losing(Client):
    """A client that cannot keep a claim alive: it is cut off, or the lease ends just before or just after."""

    when: Literal["cut off", "before", "after"]

    @classmethod
    def of(cls, state: Client, when: Literal["cut off", "before", "after"]) -> "Losing":
        name, author = state.namespace, state.author
        made = cls(state._calls, state._request_ids, namespace=name, author=author, timeout=state.timeout)
        made.when = when
        return made

    async def keep_alive(self, lease: OfLease, *, ttl: float | None = None, timeout: float | None = None) -> Lease:
        if self.when == "cut off":
            raise Unavailable("cannot reach it")
        if self.when == "before":
            await self.revoke_lease(lease)
        kept = await super().keep_alive(lease, ttl=ttl, timeout=timeout)
        await self.revoke_lease(lease)
        return kept


async def test_a_claim_that_was_never_kept_alive_is_no_try(state: Client) -> None:
    queue = Queue(state, "a", tries=2)
    await queue.put("x")
    cut_off = Queue(Losing.of(state, "cut off"), "a", tries=2)
    late = Queue(Losing.of(state, "before"), "a", tries=2)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await cut_off.try_get()
        assert await queue.size() == QueueSize(1, 0, 0)
        free, _, _ = await late._free()
        assert await late._claim_any(free) is None
        assert await queue.size() == QueueSize(1, 0, 0)
    item = await queue.get()
    assert item.tries == 1
    await item.ack()


async def test_what_cannot_be_buried_is_left_to_the_next_one(state: Client) -> None:
    queue = Queue(state, "a", tries=1)
    ids = [await queue.put(number) for number in range(2)]
    for _ in ids:
        item = await queue.get()
        await state.revoke_lease(item.lease.id)
        await item.close()
    third = await queue.put(2)
    losing = Queue(Losing.of(state, "after"), "a", tries=1)
    item = await losing.get()
    assert item.id == third
    assert await queue.try_get() is None
    assert [letter.id for letter in await queue.dead()] == [*ids, third]


async def test_dead_letters_are_requeued_and_purged(state: Client) -> None:
    queue = Queue(state, "a", tries=1)
    ids = [await queue.put(number) for number in range(4)]
    for _ in ids:
        await (await queue.get()).nack()
    assert [letter.value for letter in await queue.dead()] == [0, 1, 2, 3]
    assert await queue.purge(ids[0]) == 1
    assert await queue.purge(ids[0]) == 0
    assert await queue.requeue() == 3
    assert [await take(queue) for _ in range(3)] == [1, 2, 3]
    await queue.put("again")
    await (await queue.get()).nack()
    assert await queue.purge() == 1
    assert await left(state) == []


async def test_what_others_wrote_among_dead_letters_is_none(state: Client) -> None:
    queue = Queue(state, "a")
    id = await queue.put("x")
    foreign = ["", "x", f"{id}/claim", f"{id}/", f"x{id}"]
    for each in foreign:
        await state.put(f"queues/a/dead/{each}", "foreign")
    assert await queue.size() == QueueSize(1, 0, 0)
    assert await queue.dead() == []
    assert await queue.requeue() == 0
    for each in foreign:
        assert await queue.requeue(each) == 0
    assert await take(queue) == "x"
    assert await left(state) == sorted(f"queues/a/dead/{each}" for each in foreign)
    assert await queue.purge() == len(foreign)


async def test_a_value_that_cannot_be_read_is_a_failure_of_the_block(state: Client) -> None:
    queue = Queue(state, "a", tries=1)
    await queue.put(b"{", content_type="application/json")

    async def work() -> object:
        async with queue.claim() as item:
            return item.value

    with pytest.raises(DecodeError):
        await work()
    assert (await queue.size()).dead == 1
