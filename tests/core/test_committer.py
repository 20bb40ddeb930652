"""The committer: groups, order, cancellation, overload, drain."""

import asyncio
from collections.abc import Sequence

import pytest

from comity_server.committer import GROUP_TRANSACTIONS, Committer
from comity_server.errors import Conflict, Draining, NotANumber, Overloaded, StateError, StoreUnavailable
from comity_server.limits import Limits
from comity_server.model import Increment, Outcome, Put, Transaction, Write
from comity_server.stores.memory.store import MemoryStore


class GatedStore(MemoryStore):
    """A store whose commits wait at a gate, as those of a disk do, and which notes its groups."""

    def __init__(self) -> None:
        super().__init__(Limits())
        self.gate = asyncio.Event()
        self.arrived = asyncio.Event()
        self.groups: list[tuple[str, int]] = []

    async def commit(self, namespace: str, group: Sequence[Write]) -> Sequence[Outcome | StateError]:
        self.groups.append((namespace, len(group)))
        self.arrived.set()
        await self.gate.wait()
        return await super().commit(namespace, group)


def put(key: str, value: bytes = b"") -> Transaction:
    return Transaction(then=[Put(key, value)])


async def begin(committer: Committer, namespace: str, *transactions: Transaction) -> list[asyncio.Task[Outcome]]:
    """Submit at the same time, and wait until all are with the committer."""
    tasks = [asyncio.create_task(committer.submit(namespace, transaction)) for transaction in transactions]
    await asyncio.sleep(0)  # each task runs up to its wait
    return tasks


async def test_what_arrives_together_is_one_group() -> None:
    store = GatedStore()
    store.gate.set()
    committer = Committer(store)
    outcomes = await asyncio.gather(*(committer.submit("n", put(f"k{i}")) for i in range(100)))
    assert store.groups == [("n", 100)]
    assert [outcome.revision for outcome in outcomes] == list(range(1, 101))


async def test_what_arrives_during_a_commit_is_the_next_group() -> None:
    store = GatedStore()
    committer = Committer(store)
    first = await begin(committer, "n", put("a"))
    await store.arrived.wait()
    rest = await begin(committer, "n", *(put(f"k{i}") for i in range(10)))
    store.gate.set()
    await asyncio.gather(*first, *rest)
    assert store.groups == [("n", 1), ("n", 10)]


async def test_nothing_is_answered_before_the_store_is_done() -> None:
    store = GatedStore()
    committer = Committer(store)
    (task,) = await begin(committer, "n", put("a"))
    await store.arrived.wait()
    assert not task.done()
    store.gate.set()
    assert (await task).revision == 1


async def test_namespaces_do_not_wait_for_each_other() -> None:
    store = GatedStore()
    committer = Committer(store)
    tasks = [*await begin(committer, "one", put("a")), *await begin(committer, "two", put("a"))]
    await asyncio.sleep(0)
    assert store.groups == [("one", 1), ("two", 1)]
    store.gate.set()
    await asyncio.gather(*tasks)


async def test_groups_are_bounded_by_count_and_by_bytes() -> None:
    store = GatedStore()
    store.gate.set()
    committer = Committer(store)
    await asyncio.gather(*(committer.submit("n", put(f"k{i}")) for i in range(GROUP_TRANSACTIONS + 1)))
    await asyncio.gather(*(committer.submit("n", put(f"k{i}", bytes(1024 * 1024))) for i in range(8)))
    assert [size for _, size in store.groups] == [GROUP_TRANSACTIONS, 1, 4, 4]


async def test_a_caller_that_is_cancelled_while_it_waits_leaves_nothing() -> None:
    store = GatedStore()
    committer = Committer(store)
    (first,) = await begin(committer, "n", put("a"))
    await store.arrived.wait()
    gone, stays = await begin(committer, "n", put("gone"), put("stays"))
    gone.cancel()
    store.gate.set()
    assert (await stays).revision == 2
    assert (await first).revision == 1
    assert (await store.get("n", "gone")).entry is None
    assert store.groups == [("n", 1), ("n", 1)]


async def test_a_caller_that_is_cancelled_under_way_is_committed() -> None:
    store = GatedStore()
    committer = Committer(store)
    (task,) = await begin(committer, "n", put("a"))
    await store.arrived.wait()
    task.cancel()
    store.gate.set()
    await committer.drain()
    assert (await store.get("n", "a")).revision == 1


async def test_one_failure_does_not_touch_the_others() -> None:
    committer = Committer(GatedStore())
    committer._store.gate.set()  # type: ignore[attr-defined]
    outcomes = await asyncio.gather(
        committer.submit("n", put("k", b"text")),
        committer.submit("n", Transaction(then=[Increment("k", 1)])),
        committer.submit("n", put("l")),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], NotANumber)
    assert [outcome.revision for outcome in outcomes if isinstance(outcome, Outcome)] == [1, 2]


async def test_more_than_may_wait_is_overloaded_and_not_done() -> None:
    store = GatedStore()
    committer = Committer(store, max_pending=2)
    (first,) = await begin(committer, "n", put("a"))
    await store.arrived.wait()
    waiting = await begin(committer, "n", put("b"), put("c"))
    with pytest.raises(Overloaded):
        await committer.submit("n", put("d"))
    store.gate.set()
    await asyncio.gather(first, *waiting)
    assert (await committer.submit("n", put("e"))).revision == 4
    assert (await store.get("n", "d")).entry is None


async def test_drain_finishes_what_was_taken_and_takes_no_more() -> None:
    store = GatedStore()
    committer = Committer(store)
    (first,) = await begin(committer, "n", put("a"))
    await store.arrived.wait()
    (second,) = await begin(committer, "n", put("b"))
    drain = asyncio.create_task(committer.drain())
    await asyncio.sleep(0)
    with pytest.raises(Draining):
        await committer.submit("n", put("c"))
    assert not drain.done()
    store.gate.set()
    await drain
    assert [(await first).revision, (await second).revision] == [1, 2]


@pytest.mark.parametrize("failure", [StoreUnavailable("the disk is full"), Conflict("of the whole group")])
async def test_a_group_that_fails_as_a_whole_fails_for_each(failure: StateError) -> None:
    class Failing(MemoryStore):
        async def commit(self, namespace: str, group: Sequence[Write]) -> Sequence[Outcome | StateError]:
            raise failure

    committer = Committer(Failing(Limits()))
    outcomes = await asyncio.gather(
        committer.submit("n", put("a")), committer.submit("n", put("b")), return_exceptions=True
    )
    assert list(outcomes) == [failure, failure]


async def test_a_store_that_leaves_out_an_outcome_holds_up_nobody() -> None:
    class Short(MemoryStore):
        async def commit(self, namespace: str, group: Sequence[Write]) -> Sequence[Outcome | StateError]:
            return (await super().commit(namespace, group))[1:]

    committer = Committer(Short(Limits()))
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await committer.submit("n", put("a"))
    await committer.drain()


async def test_an_unforeseen_failure_of_the_store_is_an_answer_and_the_lane_goes_on() -> None:
    class Broken(MemoryStore):
        broken = True

        async def commit(self, namespace: str, group: Sequence[Write]) -> Sequence[Outcome | StateError]:
            if self.broken:
                raise ZeroDivisionError("secret")
            return await super().commit(namespace, group)

    store = Broken(Limits())
    committer = Committer(store)
    with pytest.raises(StoreUnavailable) as raised:
        await committer.submit("n", put("a"))
    assert "secret" not in raised.value.message
    store.broken = False
    assert (await committer.submit("n", put("a"))).revision == 1
