"""Each item is done by one consumer, and none is lost where one dies."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Literal

import pytest

from comity import Client, DecodeError, InvalidArgument, Lease, LeaseLost, Transaction, Unavailable
from comity.leases.guard import OfLease
from comity.recipes import Item, Queue, QueueSize
from comity.recipes.item import Claimed
from comity.recipes.queue import Free
from comity.recipes.within import Wait
from tests.recipes.cancelling import cancelled_at
from tests.recipes.processes import Agent
from tests.waiting import until


async def take(queue: Queue) -> object:
    async with queue.claim(timeout=30) as item:
        return item.value


async def left(state: Client) -> list[str]:
    """Which keys there are, but for the counter of numbers."""
    return [entry.key async for entry in state.list("queues/") if not entry.key.endswith("/tail")]


class Waiting(Queue):
    """A queue that says when a consumer has found nothing, and waits."""

    def __init__(self, state: Client, name: str) -> None:
        super().__init__(state, name)
        self.waits = asyncio.Event()

    async def _until_free(self, revision: int, wait: Wait) -> list[Free]:
        self.waits.set()
        return await super()._until_free(revision, wait)


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
    assert item.fence == item.lease.id
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
        free, _ = await late._free()
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
