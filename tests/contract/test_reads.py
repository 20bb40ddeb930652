"""Reads of a key at every revision, and of commits: what history shows is what was."""

import asyncio

import pytest

from comity_server.errors import Compacted, RevisionInFuture
from comity_server.model import Commit, Delete, DeletePrefix, Get, Increment, List, Operation, Put
from comity_server.record import KEY, Record
from tests.contract.space import Space, plain

HISTORY: list[list[Operation]] = [
    [Put("a", b"1")],
    [Put("a", b"2"), Put("b", b"1")],
    [Delete("a")],
    [Put("c", b"1")],
    [Put("a", b"3"), Delete("b")],
    [Put("a", b"4")],
    [DeletePrefix("")],
    [Increment("a", 1), Put("b", b"2")],
    [Increment("a", 1)],
    [Delete("a")],
]
VALUES: list[dict[str, bytes]] = [
    {},
    {"a": b"1"},
    {"a": b"2", "b": b"1"},
    {"b": b"1"},
    {"b": b"1", "c": b"1"},
    {"a": b"3", "c": b"1"},
    {"a": b"4", "c": b"1"},
    {},
    {"a": b"1", "b": b"2"},
    {"a": b"2", "b": b"2"},
    {"b": b"2"},
]


@pytest.fixture
async def lived(space: Space) -> Space:
    """A namespace with the history above: revision 1 is its first line."""
    for operations in HISTORY:
        await space.apply(*operations)
    return space


def values(entries: list[Record]) -> dict[str, bytes]:
    return {entry[0]: entry[1] for entry in entries}


async def test_get_at_every_revision(lived: Space) -> None:
    for revision, state in enumerate(VALUES):
        if not revision:
            continue  # 0 asks for the newest
        for key in ("a", "b", "c", "d"):
            read = await lived.store.get(lived.name, key, revision)
            assert read.revision == revision
            assert (read.entry[1] if read.entry else None) == state.get(key), (key, revision)
    newest = await lived.store.get(lived.name, "b")
    assert newest[:2] == (await lived.entry("b", 10), 10)


async def test_entry_read_later_is_the_entry_that_was(space: Space) -> None:
    seen: list[list[Record]] = []
    for operations in HISTORY:
        await space.apply(*operations)
        seen.append(await space.entries())
    for revision, entries in enumerate(seen, start=1):
        assert plain(await space.entries(revision=revision)) == plain(entries)
        for entry in entries:
            assert await space.get(entry[KEY], revision) == entry


async def test_list_at_every_revision(lived: Space) -> None:
    for revision, state in enumerate(VALUES):
        if revision:
            assert values(await lived.entries(revision=revision)) == state
            assert values(await lived.entries("a", revision=revision)) == {k: v for k, v in state.items() if k == "a"}
    assert values(await lived.entries()) == VALUES[-1]


async def test_revision_in_the_future_is_an_error(lived: Space) -> None:
    with pytest.raises(RevisionInFuture) as refused:
        await lived.get("a", 11)
    assert refused.value.metadata == {"floor": "0", "revision": "10"}
    with pytest.raises(RevisionInFuture):
        await lived.entries(revision=11)
    with pytest.raises(RevisionInFuture):
        await lived.sibling("absent").get("a", 1)


async def test_read_sees_every_write_that_was_answered(space: Space) -> None:
    for turn in range(1, 20):
        revision = await space.put("a", str(turn).encode())
        read = await space.store.get(space.name, "a")
        assert read[:2] == (await space.entry("a", revision), revision)
        assert (await space.apply(Get("a"), List("", 1))).revision == revision
        assert (await space.position()).revision == revision
        assert (await space.log())[-1].revision == revision


async def commits(
    space: Space, first: int, last: int, limit: int = 100, newest_first: bool = False
) -> list[int]:  # fmt: skip
    read = await space.store.commits(space.name, first=first, last=last, limit=limit, newest_first=newest_first)
    assert (read.revision, read.floor) == ((await space.position()).revision, (await space.position()).floor)
    return [commit.revision for commit in read.commits]


async def test_commits_between_two_revisions_whichever_exist(lived: Space) -> None:
    assert await commits(lived, 1, 10) == list(range(1, 11))
    assert await commits(lived, 3, 5) == [3, 4, 5]
    assert await commits(lived, 4, 4) == [4]
    assert await commits(lived, 9, 99) == [9, 10]
    assert await commits(lived, 11, 99) == []
    assert await commits(lived, 5, 4) == []
    assert await commits(lived.sibling("absent"), 1, 99) == []


async def test_commits_are_limited_from_the_side_that_is_asked_for(lived: Space) -> None:
    assert await commits(lived, 2, 9, limit=3) == [2, 3, 4]
    assert await commits(lived, 2, 9, limit=3, newest_first=True) == [9, 8, 7]
    assert await commits(lived, 2, 99, limit=3, newest_first=True) == [10, 9, 8]
    assert await commits(lived, 2, 4, newest_first=True) == [4, 3, 2]
    assert await commits(lived, 11, 99, newest_first=True) == []
    assert await commits(lived, 5, 4, newest_first=True) == []


async def test_commits_tell_every_step_from_one_state_to_the_next(lived: Space) -> None:
    state: dict[str, Record] = {}
    for commit in await lived.log():
        for event in commit.events:
            key = event.entry[KEY]
            assert event.previous == state.get(key)
            if event.is_delete:
                del state[key]
            else:
                state[key] = event.entry
        assert {record[KEY]: record for record in await lived.entries(revision=commit.revision)} == state


async def test_commits_below_the_floor_are_an_error(lived: Space) -> None:
    whole: list[Commit] = list(await lived.log())
    with pytest.raises(Compacted):
        await commits(lived, 0, 5)
    await lived.store.compact(lived.name, 4)
    for first in (1, 3, 4):
        for newest_first in (False, True):
            with pytest.raises(Compacted) as refused:
                await commits(lived, first, 10, newest_first=newest_first)
            assert refused.value.metadata == {"floor": "4", "revision": "10"}
    assert await commits(lived, 5, 10) == [5, 6, 7, 8, 9, 10]
    assert plain(await lived.log()) == plain(whole[4:])  # what came before an event is told as it was


async def test_get_all_reads_each_key_as_get_does(lived: Space) -> None:
    keys = ["b", "a", "absent", "b", "c"]
    read = await lived.store.get_all(lived.name, keys)
    assert read.revision == 10
    assert list(read.entries) == [await lived.get(key) for key in keys]
    assert [entry and entry[0] for entry in read.entries] == ["b", None, None, "b", None]


async def test_get_all_at_every_revision(lived: Space) -> None:
    keys = ["b", "a", "absent", "b", "c"]
    for revision in range(1, len(VALUES)):
        read = await lived.store.get_all(lived.name, keys, revision)
        assert read.revision == revision
        assert list(read.entries) == [await lived.get(key, revision) for key in keys]


async def test_get_all_at_a_revision_that_cannot_be_read(lived: Space) -> None:
    with pytest.raises(RevisionInFuture) as refused:
        await lived.store.get_all(lived.name, ["a"], 11)
    assert refused.value.metadata == {"floor": "0", "revision": "10"}
    await lived.compact(8)
    with pytest.raises(Compacted):
        await lived.store.get_all(lived.name, ["a", "b"], 7)
    (a, b), revision = await lived.store.get_all(lived.name, ["a", "b"], 8)
    assert (a and a[1], b and b[1], revision) == (b"1", b"2", 8)
    with pytest.raises(RevisionInFuture):
        await lived.store.get_all(lived.sibling("absent").name, [], 1)


async def test_get_all_of_nothing(lived: Space, space: Space) -> None:
    assert (list((await lived.store.get_all(lived.name, [])).entries), await lived.revision()) == ([], 10)
    unknown = await space.store.get_all(space.sibling("absent").name, ["a", "b"])
    assert (list(unknown.entries), unknown.revision) == ([None, None], 0)


async def test_get_all_shows_one_revision(space: Space) -> None:
    """Commits that change all keys at once are never seen by half."""
    keys = [f"{number}" for number in range(20)]
    ended = False

    async def write() -> None:
        for number in range(1, 51):
            await space.apply(*(Put(key, b"%d" % number) for key in keys))

    async def read() -> list[int]:
        revisions = []
        while not ended:
            entries, revision = await space.store.get_all(space.name, keys)
            assert {entry and entry[1] for entry in entries} == ({b"%d" % revision} if revision else {None})
            revisions.append(revision)
            await asyncio.sleep(0)
        return revisions

    reading = [asyncio.create_task(read()) for _ in range(3)]
    await write()
    ended = True
    for revisions in await asyncio.gather(*reading):
        assert revisions == sorted(revisions)


async def test_get_all_sees_what_was_answered_before(space: Space) -> None:
    for number in range(20):
        revision = await space.put("a", b"%d" % number)
        entries, read = await space.store.get_all(space.name, ["a", "b"])
        assert read == revision
        assert entries[0] == await space.entry("a")


async def test_get_all_goes_on_past_compaction_forks_and_deletion(lived: Space) -> None:
    fork = await lived.fork("fork")
    await lived.compact()
    for space in (lived, fork):
        (b, absent), _ = await space.store.get_all(space.name, ["b", "a"])
        assert b is not None
        assert (b[1], absent) == (b"2", None)
    await lived.put("b", b"3")
    (b,), _ = await fork.store.get_all(fork.name, ["b"])
    assert b is not None
    assert b[1] == b"2"
    await lived.store.delete_namespace(lived.name)
    (gone,), _ = await lived.store.get_all(lived.name, ["b"])
    assert gone is None
    assert await lived.put("b", b"4") > 11
    (b,), revision = await lived.store.get_all(lived.name, ["b"])
    assert b == await lived.entry("b", revision)
