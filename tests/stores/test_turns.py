"""Writes that look through much: others have their turn meanwhile, and what is found does not depend on it."""

import asyncio
from collections.abc import Sequence

import pytest

from comity_server import turns
from comity_server.limits import Limits
from comity_server.model import (
    Condition,
    Delete,
    DeletePrefix,
    Fork,
    List,
    ListResult,
    Merge,
    Operator,
    Outcome,
    Put,
    Restore,
    Test,
    Transaction,
    Write,
)
from comity_server.record import KEY, MOD_REVISION
from comity_server.stores.memory import conditions, operations
from comity_server.stores.memory.store import MemoryStore
from comity_server.turns import Pace, Turns

KEYS = 60


@pytest.fixture(autouse=True)
def in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step takes up a whole turn."""
    monkeypatch.setattr(turns, "SECONDS", 0)
    monkeypatch.setattr(turns, "STEPS", 1)
    monkeypatch.setattr(conditions, "_CHUNK", 1)
    monkeypatch.setattr(operations, "_CHUNK", 1)


async def commit(store: MemoryStore, write: Write, namespace: str = "n") -> Outcome:
    (outcome,) = await store.commit(namespace, [write])
    assert isinstance(outcome, Outcome), outcome
    return outcome


async def filled(namespaces: Sequence[str] = ("n",)) -> MemoryStore:
    """Keys under a, and then more under b."""
    store = MemoryStore(Limits())
    for namespace in namespaces:
        for prefix in "ab":
            puts = [Put(f"{prefix}{number:03}", b"") for number in range(KEYS + (prefix == "b"))]
            await commit(store, Transaction(then=puts), namespace)
    return store


def unchanged(prefix: str, since: int) -> Condition:
    return Condition(prefix, Test.UNCHANGED_SINCE, since, Operator.EQUAL, True)


@pytest.mark.parametrize(
    "write",
    [
        Transaction([unchanged("a", 1)]),
        Transaction(then=[List("a", KEYS, True)]),
        Transaction([Condition("a", Test.EXISTS, 1)], otherwise=[List("a", KEYS, True)]),
        Transaction(then=[DeletePrefix("a")]),
        Restore(ref=1),
        Merge(fork="fork"),
    ],
)
async def test_others_have_their_turn_while_much_is_looked_through(write: Write) -> None:
    store = await filled()
    if isinstance(write, Merge):
        await commit(store, Fork(parent="n"), "fork")
        await commit(store, Transaction(then=[Put(f"c{number}", b"") for number in range(KEYS + 1)]), "fork")
    searching = asyncio.create_task(commit(store, write))
    passed = 0
    while not searching.done():
        await asyncio.sleep(0)
        passed += 1
    assert passed > KEYS
    assert (await searching).revision


@pytest.mark.parametrize("write", [Transaction([unchanged("a", 1)]), Restore(ref=1)])
async def test_in_each_round_one_lane_has_its_turn(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    number = 0
    taken: list[int] = []
    step = Pace.step

    async def noted(pace: Pace, count: int = 1) -> None:
        taken.append(number)
        await step(pace, count)

    names = [f"n{place}" for place in range(5)]
    store = await filled(names)
    monkeypatch.setattr(Pace, "step", noted)
    lanes = [asyncio.create_task(commit(store, write, name)) for name in names]
    while not all(lane.done() for lane in lanes):
        await asyncio.sleep(0)
        number += 1
    assert len(taken) > len(names) * KEYS
    assert len(set(taken)) >= len(taken) - len(names), "but for how each begins"


async def test_who_waits_for_a_turn_has_it_in_the_order_of_arrival() -> None:
    shared, done = Turns(), list[int]()

    async def work(name: int) -> None:
        await shared.next()
        shared.spend(1)
        done.append(name)

    await asyncio.gather(*(work(name) for name in range(20)))
    assert done == list(range(20))


async def test_what_changed_is_found_while_history_is_dropped() -> None:
    """Keys that were deleted are dropped between two steps of the search."""
    store = await filled()
    for number in range(KEYS):
        await commit(store, Transaction(then=[Delete(f"b{number:03}")]))
    last = store.state("n").revision
    await commit(store, Transaction(then=[Put(f"c{number:03}", b"") for number in range(KEYS)]))
    searching = asyncio.create_task(store.commit("n", [Transaction([unchanged("a", last), unchanged("c", last)])]))
    for _ in range(5):
        await asyncio.sleep(0)
    before = len(store.state("n").versions.own_keys())
    compacting = asyncio.create_task(store.compact("n", last))
    (outcome,) = await searching
    await compacting
    assert len(store.state("n").versions.own_keys()) == before - KEYS
    assert isinstance(outcome, Outcome)
    assert [(failed.position, failed.changed_revision) for failed in outcome.failed] == [(1, last + 1)]


async def test_a_walk_through_the_newest_goes_on_where_something_older_was_dropped() -> None:
    store = await filled()
    await commit(store, Transaction(then=[Delete("a001")]))
    versions, last = store.state("n").versions, store.state("n").revision
    await commit(store, Transaction(then=[Put(f"c{number}", b"") for number in range(10)]))
    walk = versions.changed_since_by(3, last)
    found = list(next(walk))
    assert versions.forget("a001", last)
    for some in walk:
        found += some
    assert [head[KEY] for head in found] == [f"c{number}" for number in reversed(range(10))]
    assert {head[MOD_REVISION] for head in found} == {last + 1}


async def test_a_list_sees_what_its_transaction_and_its_group_wrote() -> None:
    store = await filled()
    group = [
        Transaction(then=[Put("a0005", b""), Delete("a002")]),
        Transaction(
            then=[Put("a0015", b""), Delete("a003"), List("a00", 5, True), DeletePrefix("b"), List("b", 5, True)]
        ),
    ]
    _, outcome = await store.commit("n", group)
    assert isinstance(outcome, Outcome)
    first, last = outcome.results[2], outcome.results[4]
    assert isinstance(first, ListResult)
    assert [entry[KEY] for entry in first.entries] == ["a000", "a0005", "a001", "a0015", "a004"]
    assert first.more
    assert last == ListResult([], more=False)


async def test_what_is_looked_through_counts_as_operations() -> None:
    store = await filled()
    few = await commit(store, Transaction(then=[List("a", 10, True)]))
    much = await commit(store, Transaction([unchanged("a", 1)] * 4, [Put("a000", b"")]))
    assert (few.searched, much.searched) == (0, 4 * (2 * KEYS + 1) // 100)
