"""Transactions as functions: what they read, what is written of what they say, and when they run again."""

import asyncio
from collections.abc import AsyncIterator

import pytest

import comity
from comity import Client, Transaction
from tests.servers import Server


@pytest.fixture
async def state(server: Server, namespace: str) -> AsyncIterator[Client]:
    async with comity.connect(server.address, namespace=namespace) as client:
        yield client


async def keys(state: Client, prefix: str = "") -> list[str]:
    return [entry.key async for entry in state.list(prefix)]


async def test_all_reads_show_one_revision(state: Client) -> None:
    await state.transact(then=[comity.Put("a", 1), comity.Put("b/1", 1)])

    async def read(tx: Transaction) -> list[object]:
        first = await tx.get("a")
        await state.transact(then=[comity.Put("a", 2), comity.Put("b/1", 2), comity.Put("b/2", 2)])
        listed = await tx.list("b/")
        again = await tx.get("b/1")
        return [first and first.value, [(entry.key, entry.value) for entry in listed], again and again.value]

    assert await state.transact(read) == [1, [("b/1", 1)], 1]


async def test_a_list_is_awaited_or_iterated_over(state: Client) -> None:
    await state.transact(then=[comity.Put("a/1", 1), comity.Put("b", 1), comity.Put("b/1", 1)])

    async def read(tx: Transaction) -> list[list[str]]:
        both = await asyncio.gather(tx.list("a/"), tx.list("b"))
        later = tx.list("a/")
        tx.put("a/2", 2)
        seen = []
        async for entry in later:
            seen.append(entry.key)
            tx.delete(entry.key)
        assert [entry async for entry in later] == []
        return [[entry.key for entry in listed] for listed in both] + [seen]

    assert await state.transact(read) == [["a/1"], ["b", "b/1"], ["a/1", "a/2"]]
    assert await keys(state) == ["b", "b/1"]


async def test_the_empty_namespace_is_a_state_too(state: Client) -> None:
    runs = 0

    async def create(tx: Transaction) -> object:
        nonlocal runs
        runs += 1
        found = await tx.get("a")
        if runs == 1:
            await state.put("b", 1)
            assert await tx.get("b") is None
            assert await tx.list() == []
        tx.put("a", runs)
        return found

    assert await state.transact(create) is None
    assert runs == 2
    assert await keys(state) == ["a", "b"]


async def test_a_loser_runs_again_with_what_it_lost_to(state: Client) -> None:
    await state.put("a", 1)
    seen = []

    async def add(tx: Transaction) -> None:
        entry = await tx.get("a")
        assert entry is not None
        seen.append(entry.value)
        if len(seen) == 1:
            await state.put("a", 10)
        tx.put("a", entry.value + 1)

    await state.transact(add)
    assert seen == [1, 10]
    entry = await state.get("a")
    assert entry is not None
    assert (entry.value, entry.version) == (11, 3)


async def test_a_deletion_and_a_new_key_under_a_listed_prefix_are_changes(state: Client) -> None:
    await state.put("p/a", 1)
    runs = 0

    async def count(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        listed = await tx.list("p/")
        if runs == 1:
            await state.put("p/b", 1)
        if runs == 2:
            await state.delete("p/a")
        tx.put("count", [entry.key for entry in listed])

    await state.transact(count)
    entry = await state.get("count")
    assert entry is not None
    assert (entry.value, runs) == (["p/b"], 3)


async def test_what_was_not_read_does_not_matter(state: Client) -> None:
    runs = 0

    async def blind(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        tx.put("a", 1)
        tx.increment("n")
        await state.transact(then=[comity.Put("a", 2), comity.Increment("n", 5)])

    await state.transact(blind)
    entry = await state.get("n")
    assert entry is not None
    assert (entry.value, runs) == (6, 1)


async def test_reads_that_begin_together_show_one_revision(state: Client) -> None:
    await state.put("n", 0)

    async def read(tx: Transaction) -> set[int]:
        entries = await asyncio.gather(*(tx.get(f"k{number}") for number in range(20)), tx.get("n"))
        assert entries[-1] is not None
        return {entries[-1].value}

    assert await state.transact(read) == {0}


async def test_a_compacted_snapshot_is_read_again(state: Client) -> None:
    await state.put("a", 1)
    await state.put("b", 1)
    runs = 0

    async def read(tx: Transaction) -> tuple[object, object]:
        nonlocal runs
        runs += 1
        first = await tx.get("a")
        if runs == 1:
            await state.transact(then=[comity.Put("a", 2), comity.Put("b", 2)])
            await state.compact()
        try:
            second = await tx.get("b")
        except comity.OutOfRange as error:
            raise ValueError("a function may make what it likes of an error") from error
        return first and first.value, second and second.value

    assert await state.transact(read) == (2, 2)
    assert runs == 2


async def test_what_is_out_of_range_to_the_function_itself_is_raised(state: Client) -> None:
    await state.put("a", 1)
    await state.put("a", 2)
    await state.compact()
    runs = 0

    async def read_elsewhere(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        await tx.get("a")
        await state.get("a", revision=1)

    with pytest.raises(comity.Compacted) as caught:
        await state.transact(read_elsewhere)
    assert (caught.value.revision, runs) == (2, 1)

    def fail(tx: Transaction) -> None:
        raise comity.OutOfRange("of the function's own")

    with pytest.raises(comity.OutOfRange, match="of the function's own"):
        await state.transact(fail)


async def test_writes_under_a_prefix_that_was_deleted_before(state: Client) -> None:
    await state.transact(then=[comity.Put(f"p/{name}", 1) for name in "abc"])

    def replace(tx: Transaction) -> None:
        tx.delete(prefix="p/")
        tx.put("p/b", 2)
        tx.put("p/d", 2)

    await state.transact(replace)
    assert {entry.key: (entry.value, entry.version) async for entry in state.list("p/")} == {
        "p/b": (2, 2),
        "p/d": (2, 1),
    }


async def test_more_than_a_transaction_may_do_is_said_in_the_terms_of_the_function(state: Client) -> None:
    await state.transact(then=[comity.Put(f"p/{number}", 1) for number in range(1000)])

    def replace(tx: Transaction) -> None:
        tx.delete(prefix="p/")
        tx.put("p/new", 1)

    with pytest.raises(
        comity.InvalidArgument, match="1001 writes; a prefix that it deleted and then wrote under"
    ) as caught:
        await state.transact(replace)
    assert caught.value.reason == "INVALID_REQUEST"
    assert [violation.field for violation in caught.value.violations] == ["then"]

    async def get_each(tx: Transaction) -> None:
        await asyncio.gather(*(tx.get(f"q/{number}") for number in range(1001)))
        tx.put("q", 1)

    with pytest.raises(comity.InvalidArgument, match="it read 1001 keys and prefixes: list a prefix instead"):
        await state.transact(get_each)

    async def get_what_was_listed(tx: Transaction) -> None:
        await asyncio.gather(*(tx.get(entry.key) for entry in await tx.list("p/")))
        tx.delete(prefix="p/")

    await state.transact(get_what_was_listed)
    assert await keys(state) == []

    def fail(tx: Transaction) -> None:
        tx.put("", 1)
        tx.increment("k" * 2000)

    with pytest.raises(comity.InvalidArgument, match=r"^key '': is required; key 'k{64}…': must not be longer than"):
        await state.transact(fail)


async def test_a_race_that_is_never_won_is_a_conflict(state: Client) -> None:
    await state.put("a", 0)

    async def lose(tx: Transaction) -> None:
        entry = await tx.get("a")
        assert entry is not None
        await state.put("a", entry.value + 1)
        tx.put("a", -1)

    with pytest.raises(comity.Conflict) as caught:
        await state.transact(lose, timeout=0.3)
    assert caught.value.key == "a"
    entry = await state.get("a")
    assert entry is not None
    assert caught.value.mod_revision == entry.mod_revision
    assert entry.value > 1


async def test_the_result_and_the_message(state: Client) -> None:
    def put(tx: Transaction) -> str:
        tx.put("a", 1)
        return "done"

    assert await state.transact(put, message="why") == "done"
    assert [commit.message async for commit in state.history()] == ["why"]


async def test_a_transaction_is_of_no_use_after_its_function(state: Client) -> None:
    kept = await state.transact(lambda tx: tx)
    with pytest.raises(RuntimeError, match="has ended"):
        kept.put("a", 1)
    with pytest.raises(RuntimeError, match="has ended"):
        await kept.get("a")
    assert await keys(state) == []


async def test_an_increment_of_text_fails_as_a_whole(state: Client) -> None:
    await state.put("text", "x")

    def write(tx: Transaction) -> None:
        tx.put("a", 1)
        tx.increment("text")

    with pytest.raises(comity.FailedPrecondition) as caught:
        await state.transact(write)
    assert caught.value.metadata["key"] == "text"
    assert await keys(state) == ["text"]
