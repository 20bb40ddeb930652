"""Large commits in the feed: in parts, published in steps, and bounded in memory."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

import pytest

from comity_server import pieces, topics
from comity_server.errors import Compacted
from comity_server.feed import Cursor, Feed
from comity_server.limits import Limits
from comity_server.model import Delete, DeletePrefix, Position, Put, Transaction
from comity_server.pieces import Interest
from comity_server.services.wire import watch_fragment
from comity_server.stores.memory.store import MemoryStore
from comity_server.stores.protocol import Listener
from tests.core.feeding import EVERYTHING, World, read_until, text


async def test_a_commit_in_parts_stays_below_its_revision_until_the_last(world: World) -> None:
    cursor = await world.feed.watch("n", EVERYTHING)
    await world.write(*(Put(f"k{i}", b"") for i in range(6)))
    first = await cursor.read(1, 10)
    assert (first.revision, text(first)) == (0, "1:+k0,+k1;")
    second = await cursor.read(1, 10)
    assert (second.revision, text(second)) == (0, "1:+k2,+k3;")
    last = await cursor.read(1, 10)
    assert (last.revision, text(last)) == (1, "1:+k4,+k5;")
    await cursor.close()


async def test_of_a_large_commit_no_more_is_in_memory_than_is_read(world: World) -> None:
    """However many watch it and whether they read or not: a part at a time is serialised, as the first takes it off."""
    await world.write(*(Put(f"k{i:03}", b"") for i in range(900)))
    cursors = [await world.feed.watch("n", EVERYTHING, from_revision=1) for _ in range(10)]
    for cursor in cursors:
        assert text(await cursor.read(1, 10)) == "1:+k000,+k001;"
    assert world.encoded == 1
    for cursor in cursors:
        await cursor.close()


async def large_commit(world: World, count: int = 20_000) -> None:
    for first in range(0, count, 1000):
        await world.write(*(Put("k" * 100 + f"{number:05}", b"") for number in range(first, first + 1000)))


async def longest_step(work: Awaitable[object]) -> float:
    """How many seconds of the processor something takes at most without letting others in."""
    longest = 0.0

    async def look() -> None:
        nonlocal longest
        while True:
            before = time.process_time()
            await asyncio.sleep(0)
            longest = max(longest, time.process_time() - before)

    looking = asyncio.create_task(look())
    await asyncio.sleep(0)
    await work
    await asyncio.sleep(0)
    looking.cancel()
    return longest


async def test_of_a_large_commit_each_part_is_serialised_once_for_all() -> None:
    encoded = 0

    def note(*arguments: Any) -> tuple[bytes, int]:
        nonlocal encoded
        encoded += 1
        return watch_fragment(*arguments)

    store = MemoryStore(Limits())
    world = World(store)
    await large_commit(world)
    feed = Feed(store, note)
    cursors = [await feed.watch("n", EVERYTHING) for _ in range(50)]
    revision = await world.write(DeletePrefix(""))
    parts = dict.fromkeys(cursors, b"")
    while any(cursor.revision < revision for cursor in cursors):
        for cursor in cursors:
            parts[cursor] += b"".join((await cursor.read(1, 10)).fragments)
    assert len(set(parts.values())) == 1
    assert encoded < 10
    for cursor in cursors:
        await cursor.close()


async def test_what_is_kept_of_large_commits_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "RECENT_BYTES", 30)
    cursor = await world.feed.watch("n", EVERYTHING)
    await world.write(*(Put(f"k{number}", b"") for number in range(8)))
    while cursor.revision < 1:
        await cursor.read(1, 10)
    assert 0 < sum(len(part) for part, _ in world.feed.recent._parts.values()) <= 30
    await cursor.close()


@pytest.mark.parametrize("matching", [True, False])
async def test_a_large_commit_is_published_in_steps(matching: bool) -> None:
    """Whether many topics are concerned, or none of even more: 20,000 keys, each cut to each length of a prefix."""
    world = World()
    await large_commit(world)
    target = "k" if matching else "x"
    lengths = range(1, 101 if matching else 501)
    cursors = [await world.feed.watch("n", Interest(target * length, True)) for length in lengths]

    async def read(cursor: Cursor) -> None:
        batch = await cursor.read(1, 60 if matching else 2)
        assert bool(batch.fragments) is matching
        while matching and cursor.revision < batch.revision:
            await cursor.read(1, 60)

    reading = asyncio.gather(*(read(cursor) for cursor in cursors))
    await asyncio.sleep(0)
    step = await longest_step(world.write(DeletePrefix("")))
    step = max(step, await longest_step(reading))
    assert step < 0.3, "the commit itself takes about 0.1 s of the store"
    for cursor in cursors:
        await cursor.close()


async def test_a_commit_that_is_being_published_is_shown_whole_to_who_comes_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topics, "STEP", 1)
    world = World()
    first = await world.feed.watch("n", EVERYTHING)
    await world.write(*(Put(f"k{number}", b"") for number in range(9)))
    late = await world.feed.watch("n", Interest("k", True), from_revision=1)
    await world.write(Put("k", b""))
    now = await world.feed.watch("n", Interest("", True, puts=True, deletes=False))
    await world.write(Delete("k1"), Put("l", b""))
    shown = "1:+k0,+k1;1:+k2,+k3;1:+k4,+k5;1:+k6,+k7;1:+k8;2:+k;"
    assert await read_until(late, 3) == shown + "3:-k1;"
    assert await read_until(first, 3) == shown + "3:-k1,+l;"
    assert await read_until(now, 3) == "3:+l;"
    for cursor in (first, late, now):
        await cursor.close()


async def test_a_history_that_ends_while_it_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "STEP", 1)
    world = World()
    old = await world.feed.watch("n", EVERYTHING)
    await world.write(*(Put(f"k{number}", b"") for number in range(9)))
    await world.store.delete_namespace("n")
    new = await world.feed.watch("n", EVERYTHING)
    revision = await world.write(Put("new", b""))
    assert await read_until(new, revision) == f"{revision}:+new;"
    with pytest.raises(Compacted):
        await old.read(1, 10)
    await old.close()
    await new.close()


async def test_a_commit_that_is_published_before_follow_returns_is_not_lost() -> None:
    class Early(MemoryStore):
        """Commits come while the store is still busy with making the namespace followed, as over a network."""

        async def follow(self, namespace: str, listener: Listener) -> Position:
            position = await super().follow(namespace, listener)
            await self.commit(namespace, [Transaction(then=[Put("a", b"")])])
            return position

    world = World(Early(Limits()))
    cursor = await world.feed.watch("n", EVERYTHING, from_revision=1)
    await world.write(Put("b", b""))
    assert await read_until(cursor, 2) == "1:+a;2:+b;"
    await cursor.close()
