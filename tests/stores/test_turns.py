"""Writes that look through much: others have their turn meanwhile, and what is found does not depend on it."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from comity_server import turns
from comity_server.limits import Limits
from comity_server.model import (
    Condition,
    Delete,
    DeletePrefix,
    DeleteResult,
    Expire,
    Fork,
    Grant,
    Lease,
    List,
    ListResult,
    Merge,
    Operator,
    Outcome,
    Put,
    RequestId,
    Restore,
    Revoke,
    Test,
    Transaction,
    Write,
)
from comity_server.record import KEY, MOD_REVISION
from comity_server.stores.memory import conditions, namespace, operations, versions
from comity_server.stores.memory.store import MemoryStore
from comity_server.stores.memory.versions import under
from comity_server.turns import Pace, Turns

KEYS = 60
TTL = 60_000_000  # µs


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
    for name in namespaces:
        for prefix in "ab":
            puts = [Put(f"{prefix}{number:03}", b"") for number in range(KEYS + (prefix == "b"))]
            await commit(store, Transaction(then=puts), name)
    return store


async def leased(store: MemoryStore) -> int:
    """A lease by which many keys live."""
    (lease,) = (await commit(store, Grant(ttl=TTL))).results
    assert isinstance(lease, Lease)
    await commit(store, Transaction(then=[Put(f"l{number:03}", b"", lease_id=lease.id) for number in range(KEYS + 1)]))
    return lease.id


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
        Revoke(lease_id=0),
        Expire(lease_ids=()),
    ],
)
async def test_others_have_their_turn_while_much_is_looked_through(write: Write) -> None:
    store = await filled()
    if isinstance(write, Merge):
        await commit(store, Fork(parent="n"), "fork")
        await commit(store, Transaction(then=[Put(f"c{number}", b"") for number in range(KEYS + 1)]), "fork")
    if isinstance(write, Revoke | Expire):
        id = await leased(store)
        write = replace(write, lease_id=id) if isinstance(write, Revoke) else replace(write, lease_ids=(id,))
        store.set_clock(store.clock() + 2 * TTL)
    searching = asyncio.create_task(commit(store, write))
    passed = 0
    while not searching.done():
        await asyncio.sleep(0)
        passed += 1
    assert passed > KEYS
    outcome = await searching
    assert outcome.revision
    if isinstance(write, Revoke | Expire):
        assert outcome.results == (DeleteResult(KEYS + 1),)


async def test_a_large_commit_is_applied_a_little_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace, "_APPLIED", 1)
    monkeypatch.setattr(turns, "STEPS", 10 * KEYS)  # of each part
    monkeypatch.setattr(namespace, "STEPS", 10 * KEYS)
    store = MemoryStore(Limits())
    writing = asyncio.create_task(commit(store, Transaction(then=[Put(f"a{number}", b"") for number in range(KEYS)])))
    passed = 0
    while not writing.done():
        await asyncio.sleep(0)
        passed += 1
        seen = await store.list("n", "", limit=KEYS, max_bytes=1_000_000)
        assert len(seen.entries) in (0, KEYS), "all of it or nothing"
    assert passed >= KEYS


async def test_a_lease_that_is_renewed_while_its_keys_are_looked_for_does_not_end() -> None:
    store = await filled()
    id = await leased(store)
    store.set_clock(store.clock() + 2 * TTL)
    ending = asyncio.create_task(commit(store, Expire(lease_ids=(id,))))
    for _ in range(KEYS // 2):
        await asyncio.sleep(0)
    assert not ending.done()
    await store.keep_alive("n", [id])
    assert (await ending).results == ()
    assert (await store.lease("n", id)).key_count == KEYS + 1


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


async def test_restores_merges_ends_of_leases_and_comparisons_count_as_operations() -> None:
    store = await filled()
    compared = await store.diff("n", 1, limit=10, max_bytes=1_000_000)
    assert compared.searched == (KEYS + 1 + 10) // 100
    dry = await commit(store, Restore(ref=1, dry_run=True))
    restored = await commit(store, Restore(ref=1))
    of_restore = (KEYS + 1) * (1 + operations.KEY_STEPS) // 100
    assert dry.searched == restored.searched == of_restore > 0
    await commit(store, Fork(parent="n"), "fork")
    await commit(store, Transaction(then=[Put(f"c{number}", b"") for number in range(KEYS)]), "fork")
    of_others = KEYS * operations.KEY_STEPS // 100
    assert (await commit(store, Merge(fork="fork"))).searched == of_others > 0
    revoked = await commit(store, Revoke(lease_id=await leased(store)))
    assert revoked.searched == (KEYS + 1) * operations.KEY_STEPS // 100


async def test_a_repeat_of_a_restore_counts_for_nothing() -> None:
    store = await filled()
    restore = Restore(ref=1, request_id=RequestId("c", 1))
    assert (await commit(store, restore)).searched
    assert not (await commit(store, restore)).searched


@pytest.mark.parametrize("newest", [True, False])
async def test_a_page_of_a_fork_of_forks_looks_at_no_more_than_another(
    newest: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them has the same keys, which are deleted in every second one."""
    looked_at = 0

    def counted(*arguments: str) -> Iterator[str]:
        nonlocal looked_at
        for key in under(*arguments):  # type: ignore[arg-type]
            looked_at += 1
            yield key

    depth = 20
    store = await filled()
    keys = [f"a{number:03}" for number in range(KEYS)]
    for place in range(depth):
        await commit(store, Fork(parent=f"f{place}" if place else "n"), f"f{place + 1}")
        await commit(
            store, Transaction(then=[Put(key, b"") if place % 2 else Delete(key) for key in keys]), f"f{place + 1}"
        )
    name, revision = (f"f{depth}", 0) if newest else (f"f{depth - 1}", store.state(f"f{depth - 1}").revision)
    monkeypatch.setattr(namespace, "LOOKED_AT", 200)
    monkeypatch.setattr(versions, "under", counted)
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        looked_at = 0
        page = await store.list(name, "a", after=after, limit=KEYS, max_bytes=1_000_000, revision=revision)
        found += [entry[KEY] for entry in page.entries]
        after = page.next_after
        assert looked_at <= 200 + 4 * depth, "and the next of each"
    assert found == (keys if newest else [])
