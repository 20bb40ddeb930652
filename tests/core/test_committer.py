"""The committer: groups, order, cancellation, overload, drain."""

import asyncio
import time
from collections.abc import Sequence
from operator import itemgetter

import pytest

from comity_server.committer import GROUP_BYTES, GROUP_PARTS, GROUP_TRANSACTIONS, PENDING_BYTES, Committer
from comity_server.errors import (
    Conflict,
    DeadlinePassed,
    Draining,
    NotANumber,
    Overloaded,
    StateError,
    StoreUnavailable,
)
from comity_server.limits import Limits
from comity_server.model import Increment, Outcome, Put, Transaction, Write
from comity_server.record import KEY, MOD_REVISION
from comity_server.stores.memory.store import MemoryStore
from comity_server.telemetry.tally import Tally


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
    committer = Committer(store, Tally())
    outcomes = await asyncio.gather(*(committer.submit("n", put(f"k{i}")) for i in range(100)))
    assert store.groups == [("n", 100)]
    assert [outcome.revision for outcome in outcomes] == list(range(1, 101))


async def test_what_arrives_during_a_commit_is_the_next_group() -> None:
    store = GatedStore()
    committer = Committer(store, Tally())
    first = await begin(committer, "n", put("a"))
    await store.arrived.wait()
    rest = await begin(committer, "n", *(put(f"k{i}") for i in range(10)))
    store.gate.set()
    await asyncio.gather(*first, *rest)
    assert store.groups == [("n", 1), ("n", 10)]


async def test_nothing_is_answered_before_the_store_is_done() -> None:
    store = GatedStore()
    committer = Committer(store, Tally())
    (task,) = await begin(committer, "n", put("a"))
    await store.arrived.wait()
    assert not task.done()
    store.gate.set()
    assert (await task).revision == 1


async def test_namespaces_do_not_wait_for_each_other() -> None:
    store = GatedStore()
    committer = Committer(store, Tally())
    tasks = [*await begin(committer, "one", put("a")), *await begin(committer, "two", put("a"))]
    await asyncio.sleep(0)
    assert store.groups == [("one", 1), ("two", 1)]
    store.gate.set()
    await asyncio.gather(*tasks)


async def test_groups_are_bounded_by_count_and_by_bytes() -> None:
    store = GatedStore()
    store.gate.set()
    committer = Committer(store, Tally())
    await asyncio.gather(*(committer.submit("n", put(f"k{i}")) for i in range(GROUP_TRANSACTIONS + 1)))
    await asyncio.gather(*(committer.submit("n", put(f"k{i}", bytes(1024 * 1024))) for i in range(8)))
    assert [size for _, size in store.groups] == [GROUP_TRANSACTIONS, 1, 4, 4]


async def test_groups_are_bounded_by_what_is_inside_of_their_transactions() -> None:
    store = GatedStore()
    store.gate.set()
    committer = Committer(store, Tally())
    many = Transaction(then=[Increment(f"k{i}", 1) for i in range(1000)])
    await asyncio.gather(*(committer.submit("n", many) for _ in range(GROUP_PARTS // 1000 + 2)))
    assert [size for _, size in store.groups] == [GROUP_PARTS // 1000, 2]
    batches = [[put("a")] * 2, [many] * 12, [put("a")] * 3, [put("b")]]
    await asyncio.wait(
        [committer.submit_all("n", batch, 100, sum(each.parts() for each in batch)) for batch in batches]
    )
    assert [size for _, size in store.groups[2:]] == [2, 12, 4]


async def test_what_goes_ahead_is_begun_before_all_that_waits() -> None:
    store = GatedStore()
    committer = Committer(store, Tally())
    await begin(committer, "n", put("first"))
    await store.arrived.wait()
    waits = committer.submit_all("n", [put("waits")], GROUP_BYTES)
    ahead = committer.submit_all("n", [put("ahead")], GROUP_BYTES, ahead=True)
    store.gate.set()
    await asyncio.wait([waits, ahead])
    written = await store.list("n", "", limit=10, max_bytes=1000)
    assert [entry[KEY] for entry in sorted(written.entries, key=itemgetter(MOD_REVISION))] == [
        "first",
        "ahead",
        "waits",
    ]


async def test_others_have_their_turn_between_groups() -> None:
    """The store of this test never waits for anything."""
    store = GatedStore()
    store.gate.set()
    committer = Committer(store, Tally())
    answers = [committer.submit_all("n", [put("k")] * GROUP_TRANSACTIONS, 1000) for _ in range(5)]
    begun: list[int] = []
    while not answers[-1].done():
        await asyncio.sleep(0)
        begun.append(len(store.groups))
    assert set(begun) == {1, 2, 3, 4, 5}  # others saw each of them, as long as it took


async def test_a_caller_that_is_cancelled_while_it_waits_leaves_nothing() -> None:
    store = GatedStore()
    committer = Committer(store, Tally())
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
    committer = Committer(store, Tally())
    (task,) = await begin(committer, "n", put("a"))
    await store.arrived.wait()
    task.cancel()
    store.gate.set()
    await committer.drain()
    assert (await store.get("n", "a")).revision == 1


async def test_one_failure_does_not_touch_the_others() -> None:
    committer = Committer(GatedStore(), Tally())
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
    committer = Committer(store, Tally(), max_pending=2)
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
    committer = Committer(store, Tally())
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

    committer = Committer(Failing(Limits()), Tally())
    outcomes = await asyncio.gather(
        committer.submit("n", put("a")), committer.submit("n", put("b")), return_exceptions=True
    )
    assert list(outcomes) == [failure, failure]


async def test_a_store_that_leaves_out_an_outcome_holds_up_nobody() -> None:
    class Short(MemoryStore):
        async def commit(self, namespace: str, group: Sequence[Write]) -> Sequence[Outcome | StateError]:
            return (await super().commit(namespace, group))[1:]

    committer = Committer(Short(Limits()), Tally())
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await committer.submit("n", put("a"))
    await committer.drain()


@pytest.mark.parametrize("failure", [ZeroDivisionError, asyncio.CancelledError])
async def test_an_unforeseen_failure_of_the_store_is_an_answer_and_the_lane_goes_on(
    failure: type[BaseException],
) -> None:
    class Broken(MemoryStore):
        broken = True

        async def commit(self, namespace: str, group: Sequence[Write]) -> Sequence[Outcome | StateError]:
            if self.broken:
                raise failure("secret")
            return await super().commit(namespace, group)

    store = Broken(Limits())
    committer = Committer(store, Tally())
    async with asyncio.timeout(30):
        with pytest.raises(StoreUnavailable) as raised:
            await committer.submit("n", put("a"))
        assert "secret" not in raised.value.message
        store.broken = False
        assert (await committer.submit("n", put("a"))).revision == 1
        await committer.drain()


async def test_a_lane_that_is_cancelled_ends() -> None:
    store = GatedStore()
    committer = Committer(store, Tally())
    (waiting,) = await begin(committer, "n", put("a"))
    await store.arrived.wait()
    lane = committer._lanes["n"].task
    assert lane is not None
    lane.cancel()
    await asyncio.wait([lane])
    assert lane.cancelled()
    waiting.cancel()


async def test_what_is_submitted_together_stays_together() -> None:
    store = GatedStore()
    committer = Committer(store, Tally())
    (first,) = await begin(committer, "n", put("a"))
    await store.arrived.wait()
    two = committer.submit_all("n", [put("b"), Transaction(then=[Increment("a", 1)]), put("c")], 300)
    one = committer.submit_all("n", [put("b")], 100)
    assert not two.done()
    store.gate.set()
    written, failed, last = await two
    assert isinstance(written, Outcome)
    assert isinstance(failed, NotANumber)  # and the others go on
    assert isinstance(last, Outcome)
    assert (written.revision, last.revision) == (2, 3)
    [over] = await one
    assert isinstance(over, Outcome)
    assert over.revision == 4
    assert (await first).revision == 1
    assert store.groups == [("n", 1), ("n", 4)]


async def test_groups_end_between_what_was_submitted_together() -> None:
    store = GatedStore()
    store.gate.set()
    committer = Committer(store, Tally())
    writes = [put(f"k{number}") for number in range(GROUP_TRANSACTIONS - 1)]
    answers = [committer.submit_all("n", writes, 1000) for _ in range(3)]
    for answer in answers:
        assert len(await answer) == len(writes)
    assert [size for _, size in store.groups] == [2 * len(writes), len(writes)]
    large = [committer.submit_all("n", [put("k")], 3 * 1024 * 1024) for _ in range(3)]
    await asyncio.wait(large)
    assert [size for _, size in store.groups[2:]] == [2, 1]


async def test_what_has_to_wait_for_longer_than_it_may_is_not_begun() -> None:
    store = GatedStore()
    committer = Committer(store, Tally())
    begun = committer.submit_all("n", [put("begun")], 100, timeout=0.01)
    await store.arrived.wait()
    late = committer.submit_all("n", [put("late"), put("late")], 200, timeout=0.01)
    patient = committer.submit_all("n", [put("patient")], 100, timeout=60)
    outcomes = await late
    assert [type(outcome) for outcome in outcomes] == [DeadlinePassed, DeadlinePassed]
    assert not begun.done()  # what is under way is finished, however long it takes
    store.gate.set()
    for answer, revision in ((begun, 1), (patient, 2)):
        [outcome] = await answer
        assert isinstance(outcome, Outcome)
        assert outcome.revision == revision
    assert (await store.get("n", "late")).entry is None
    assert store.groups == [("n", 1), ("n", 1)]


async def test_what_its_caller_waits_for_no_longer_is_not_begun() -> None:
    store = GatedStore()
    committer = Committer(store, Tally())
    [first] = await begin(committer, "n", put("first"))
    await store.arrived.wait()
    deadline = asyncio.get_running_loop().time() + 0.01
    late = asyncio.create_task(committer.submit("n", put("late"), deadline=deadline))
    await asyncio.sleep(0)
    time.sleep(0.02)  # noqa: ASYNC251 - the loop is too busy to end it
    store.gate.set()
    await first
    with pytest.raises(DeadlinePassed):
        await late
    assert store.groups == [("n", 1)]


@pytest.mark.parametrize("timeout", [0.0, -1.0, 1e-9])
async def test_a_time_that_is_up_already(timeout: float) -> None:
    """Also where the loop comes to the group before it comes to its timers."""
    store = GatedStore()
    store.gate.set()
    committer = Committer(store, Tally())
    late = committer.submit_all("n", [put("late")], 100, timeout=timeout)
    [outcome] = await late
    assert isinstance(outcome, DeadlinePassed)
    await committer.drain()
    assert not store.groups


async def test_what_is_cancelled_together_is_not_begun() -> None:
    store = GatedStore()
    committer = Committer(store, Tally())
    begun = committer.submit_all("n", [put("begun"), put("also")], 100)
    await store.arrived.wait()
    gone = committer.submit_all("n", [put("gone"), put("gone, too")], 100, timeout=60)
    stays = committer.submit_all("n", [put("stays")], 100)
    begun.cancel()
    gone.cancel()
    store.gate.set()
    [outcome] = await stays
    assert isinstance(outcome, Outcome)
    assert outcome.revision == 3
    assert [entry[0] for entry in (await store.list("n", "", limit=9, max_bytes=999)).entries] == [
        "also",
        "begun",
        "stays",
    ]
    assert store.groups == [("n", 2), ("n", 1)]


async def test_who_waits_for_room_leaves_some_to_others() -> None:
    store = GatedStore()
    committer = Committer(store, Tally(), max_pending=4)
    (first,) = await begin(committer, "n", put("a"))
    await store.arrived.wait()
    await committer.room()
    together = committer.submit_all("n", [put("b"), put("c")], 200)
    turns = [asyncio.create_task(committer.room()) for _ in range(3)]
    alone = await begin(committer, "n", put("d"), put("e"))
    with pytest.raises(Overloaded):
        await committer.submit("n", put("f"))
    assert not any(turn.done() for turn in turns)
    gone = turns.pop()
    gone.cancel()
    await asyncio.wait([gone])
    assert len(committer._hopeful) == len(turns)
    store.gate.set()
    await asyncio.gather(*turns)
    assert len(await together) == 2
    assert [(await task).revision for task in (first, *alone)] == [1, 4, 5]


async def test_room_is_for_one_after_another() -> None:
    """Each looks again when its turn has come: the one before may have taken all that there was."""
    store = GatedStore()
    committer = Committer(store, Tally(), max_pending=4)
    (first,) = await begin(committer, "n", put("a"))
    await store.arrived.wait()
    submitted: list[int] = []

    async def submit(number: int) -> None:
        await committer.room()
        submitted.append(number)
        await committer.submit_all("n", [put(f"{number}")] * 2, 100)

    tasks = [asyncio.create_task(submit(number)) for number in range(5)]
    await asyncio.sleep(0)
    assert submitted == [0]
    store.gate.set()
    await asyncio.gather(first, *tasks)
    assert submitted == [0, 1, 2, 3, 4]
    assert store.groups == [("n", 1)] + [("n", 2)] * 5


async def test_room_is_bounded_by_bytes_too() -> None:
    store = GatedStore()
    committer = Committer(store, Tally())
    (first,) = await begin(committer, "n", put("a"))
    await store.arrived.wait()
    large = committer.submit_all("n", [put("b")], PENDING_BYTES // 2)
    turn = asyncio.create_task(committer.room())
    await asyncio.sleep(0)
    assert not turn.done()
    store.gate.set()
    await turn
    await asyncio.gather(first, large)


async def test_drain_ends_the_wait_for_room() -> None:
    store = GatedStore()
    committer = Committer(store, Tally(), max_pending=1)
    (first,) = await begin(committer, "n", put("a"))
    await store.arrived.wait()
    waiting = committer.submit_all("n", [put("b")], 100)
    turn = asyncio.create_task(committer.room())
    await asyncio.sleep(0)
    drain = asyncio.create_task(committer.drain())
    with pytest.raises(Draining):
        await turn
    with pytest.raises(Draining):
        committer.submit_all("n", [put("c")], 100)
    with pytest.raises(Draining):
        await committer.room()
    store.gate.set()
    await drain
    assert len(await waiting) == 1
    await first
