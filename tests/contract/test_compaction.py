"""Forgetting the past: what a floor takes away, what it leaves, and how far a retention raises it."""

import asyncio

import pytest

from comity_server.errors import Compacted, NamespaceNotFound, RevisionInFuture
from comity_server.limits import Retention
from comity_server.model import Delete, NamespaceInfo, Put, Transaction
from comity_server.record import KEY, Record
from tests.contract.space import Space, plain
from tests.waiting import until

EVERYTHING = Retention(commits=10**9, age=1e9, history_bytes=10**15)


@pytest.fixture
async def lived(space: Space) -> Space:
    """Revisions: 1-4 put a, b, c, d; 5 a again; 6 deletes b and c; 7 c again; 8 deletes a; 9 d again; 10 e."""
    for key in "abcda":
        await space.put(key)
    await space.apply(Delete("b"), Delete("c"))
    await space.put("c")
    await space.delete("a")
    await space.put("d")
    await space.put("e")
    return space


async def states(space: Space, floor: int) -> list[list[Record]]:
    return [await space.entries(revision=revision) for revision in range(floor or 1, await space.revision() + 1)]


async def info(space: Space) -> NamespaceInfo:
    return await space.store.namespace(space.name)


@pytest.mark.parametrize("floor", range(1, 11))
async def test_state_is_readable_from_the_floor_and_commits_above_it(lived: Space, floor: int) -> None:
    before, log = await states(lived, floor), list(await lived.log())
    assert await lived.store.compact(lived.name, floor) == floor
    assert (await lived.position())[:2] == (10, floor)
    assert plain(await states(lived, floor)) == plain(before)
    for entries, revision in zip(before, range(floor, 11), strict=True):
        held = {entry[KEY]: entry for entry in entries}
        for key in "abcdef":
            assert await lived.get(key, revision) == held.get(key)
    assert plain(await lived.log()) == plain(log[floor:])
    for revision in range(1, floor):
        with pytest.raises(Compacted) as refused:
            await lived.get("d", revision)
        assert refused.value.metadata == {"floor": str(floor), "revision": "10"}
        with pytest.raises(Compacted):
            await lived.entries(revision=revision)


async def test_compaction_changes_neither_the_newest_state_nor_the_clock(lived: Space) -> None:
    newest = await lived.entries()
    assert await lived.store.compact(lived.name) == 10  # 0 is the newest
    assert plain(await lived.entries()) == plain(newest)
    assert await lived.revision() == 10
    assert (await lived.put("d")) == 11
    assert (await lived.entry("d"))[3:6] == (3, 4, 11)
    assert await lived.put("a") == 12
    assert (await lived.entry("a"))[3:6] == (1, 12, 12)
    (eleventh, twelfth) = await lived.log()
    assert eleventh.events[0].previous == next(entry for entry in newest if entry[KEY] == "d")
    assert twelfth.events[0].previous is None


async def test_floor_that_is_not_above_the_present_one_changes_nothing(lived: Space) -> None:
    assert await lived.store.compact(lived.name, 6) == 6
    before = await states(lived, 6)
    for lower in (1, 5, 6):
        assert await lived.store.compact(lived.name, lower) == 6
    assert plain(await states(lived, 6)) == plain(before)
    assert len(await lived.log()) == 4


async def test_compaction_of_the_future_or_of_nothing_is_an_error(lived: Space) -> None:
    with pytest.raises(RevisionInFuture):
        await lived.store.compact(lived.name, 11)
    assert (await lived.position())[:2] == (10, 0)
    absent = lived.sibling("absent")
    for revision in (0, 1):
        with pytest.raises(NamespaceNotFound):
            await absent.store.compact(absent.name, revision)
    with pytest.raises(NamespaceNotFound):
        await absent.store.retain(absent.name, EVERYTHING)


async def test_compaction_in_steps_ends_where_one_step_does(lived: Space) -> None:
    other = lived.sibling("other")
    for commit in await lived.log():
        await other.apply(
            *(Delete(e.entry[KEY]) if e.is_delete else Put(e.entry[KEY], e.entry[1]) for e in commit.events)
        )
    for floor in (2, 6, 7, 8):
        await lived.store.compact(lived.name, floor)
    await other.store.compact(other.name, 8)
    assert plain([commit._replace(time=0) for commit in await lived.log()], times=False) == plain(
        [commit._replace(time=0) for commit in await other.log()], times=False
    )
    for revision in (8, 9, 10):
        here, there = await lived.entries(revision=revision), await other.entries(revision=revision)
        assert plain(here, times=False) == plain(there, times=False)

    async def cost_the_same() -> bool:
        return (await info(lived))[3:7] == (await info(other))[3:7]

    await until(cost_the_same)


async def test_size_of_the_history_goes_down_as_the_floor_rises(space: Space) -> None:
    for turn in range(20):
        await space.group(
            Transaction(then=[Put("a", bytes(1000))]),
            Transaction(then=[Put(f"gone/{turn}", bytes(1000))]),
        )
    await space.delete_prefix("gone/")
    whole = await info(space)
    assert (whole.key_count, whole.size_bytes, whole.commit_count) == (1, 1001, 41)
    assert whole.history_size_bytes > 39 * 1000

    async def shrunk_to(size: int) -> bool:
        return (await info(space)).history_size_bytes <= size

    await space.store.compact(space.name, 20)
    await until(lambda: shrunk_to(whole.history_size_bytes - 9 * 1000))
    half = await info(space)
    assert (half.key_count, half.size_bytes, half.commit_count) == (1, 1001, 21)
    # From revision 20 on 20 values of gone/ are needed, and 11 of a.
    assert half.history_size_bytes > 30 * 1000
    await space.store.compact(space.name)
    await until(lambda: shrunk_to(0))
    assert (await info(space))[2:6] == (41, 1, 1001, 0)


async def test_keys_that_were_deleted_before_the_floor_vanish(space: Space) -> None:
    for turn in range(3):  # created again and again, they leave nothing behind
        await space.group(*(Transaction(then=[Put(f"{turn}/{number}", b"v")]) for number in range(50)))
        await space.delete_prefix("")
        await space.store.compact(space.name)

    async def empty() -> bool:
        return (await info(space))[3:7] == (0, 0, 0, 0)

    await until(empty)
    assert await space.keys() == []
    assert await space.get("0/1") is None
    assert await space.put("0/1") == 154
    assert (await space.entry("0/1"))[3:6] == (1, 154, 154)


async def test_retention_that_asks_for_nothing_raises_no_floor(lived: Space) -> None:
    assert await lived.store.retain(lived.name, EVERYTHING) == 0
    assert await lived.store.retain(lived.name, Retention()) == 0
    assert len(await lived.log()) == 10
    await lived.store.compact(lived.name, 3)
    assert await lived.store.retain(lived.name, EVERYTHING) == 3


async def test_retention_keeps_so_many_commits(lived: Space) -> None:
    assert await lived.store.retain(lived.name, EVERYTHING._replace(commits=10)) == 0
    assert await lived.store.retain(lived.name, EVERYTHING._replace(commits=4)) == 6
    assert [commit.revision for commit in await lived.log()] == [7, 8, 9, 10]
    assert await lived.store.retain(lived.name, EVERYTHING._replace(commits=7)) == 6  # a floor never sinks
    await lived.put("a")
    assert await lived.store.retain(lived.name, EVERYTHING._replace(commits=4)) == 7
    assert await lived.store.retain(lived.name, EVERYTHING._replace(commits=1)) == 10
    assert [commit.revision for commit in await lived.log()] == [11]


async def test_retention_keeps_what_is_younger_than_its_age(lived: Space) -> None:
    assert await lived.store.retain(lived.name, EVERYTHING._replace(age=3600)) == 0
    age = 0.05
    floors = [0]

    async def forgotten() -> bool:
        floors.append(await lived.store.retain(lived.name, EVERYTHING._replace(age=age)))
        return floors[-1] >= 10

    await until(forgotten)
    assert floors == sorted(floors)
    young = await lived.put("a")
    assert await lived.store.retain(lived.name, EVERYTHING._replace(age=3600)) == 10
    assert [commit.revision for commit in await lived.log()] == [young]


async def test_retention_keeps_so_many_bytes_of_history(space: Space) -> None:
    for _ in range(50):
        await space.put("a", bytes(1000))
    keep = EVERYTHING._replace(history_bytes=20_000)
    floor = await space.store.retain(space.name, keep)

    async def small_enough() -> bool:
        return (await info(space)).history_size_bytes <= 20_000

    await until(small_enough)
    assert (await info(space)).floor == floor
    assert 30 <= floor <= 40, "it forgets what it must, and not much more"
    assert await space.store.retain(space.name, keep) == floor
    assert len(await space.log()) == 50 - floor
    assert (await space.entry("a", floor))[5] == floor


async def test_tombstone_counts_as_history_for_as_long_as_it_is_kept(space: Space) -> None:
    sizes = []
    for _ in range(3):
        await space.put("k" * 1000)
        await space.delete("k" * 1000)
        sizes.append((await info(space)).history_size_bytes)
    assert sizes[0] > 2 * 1000
    assert sizes[1] - sizes[0] == sizes[2] - sizes[1] == sizes[0]
    await space.store.compact(space.name)

    async def nothing_is_left() -> bool:
        return (await info(space)).history_size_bytes == 0

    await until(nothing_is_left)


async def test_compaction_that_nobody_waits_for_any_more_is_finished(space: Space) -> None:
    for _ in range(5):
        await space.apply(*(Put(f"k{number:04}", b"v" * 100) for number in range(1000)))
    compacting = asyncio.ensure_future(space.store.compact(space.name))
    await asyncio.sleep(0)
    compacting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await compacting

    async def nothing_is_left() -> bool:
        return (await info(space)).history_size_bytes == 0

    await until(nothing_is_left)
