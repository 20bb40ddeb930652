"""The feed: what a cursor reads is the history, whatever way it took there."""

import asyncio
import random
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

import pytest

from comity_server import feed as feed_module
from comity_server import topics
from comity_server.errors import Compacted, Draining, EpochChanged, RevisionInFuture
from comity_server.feed import Batch, Cursor, Feed
from comity_server.limits import Limits
from comity_server.model import Commit, Delete, DeletePrefix, Event, Operation, Position, Put, Transaction
from comity_server.record import KEY
from comity_server.services.wire import watch_fragment
from comity_server.stores.memory.store import MemoryStore
from comity_server.stores.protocol import Listener
from comity_server.topics import TOPIC_COMMITS, Interest
from tests.waiting import until

EVERYTHING = Interest("", is_prefix=True)


def encode(commit: Commit, events: Sequence[Event], start: int, previous: bool) -> tuple[bytes, int]:
    """Two events at a time."""
    keys = [("-" if event.is_delete else "+") + event.entry[KEY] for event in events[start : start + 2]]
    return f"{commit.revision}:{','.join(keys)};".encode(), start + len(keys)


class World:
    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore(Limits())
        self.encoded = 0
        self.feed = Feed(self.store, self._encode)

    def _encode(self, commit: Commit, events: Sequence[Event], start: int, previous: bool) -> tuple[bytes, int]:
        self.encoded += 1
        return encode(commit, events, start, previous)

    async def write(self, *operations: Operation, namespace: str = "n") -> int:
        (outcome,) = await self.store.commit(namespace, [Transaction(then=operations)])
        assert not isinstance(outcome, Exception)
        return outcome.revision

    async def fill(self, count: int, key: str = "k", value: bytes = b"") -> None:
        await self.store.commit("n", [Transaction(then=[Put(key, value)])] * count)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    assert not made.feed._followed, "a cursor was left open"
    assert not made.store._listeners


def text(batch: Batch) -> str:
    return b"".join(batch.fragments).decode()


async def read(cursor: Cursor, max_bytes: int = 1_000_000) -> str:
    return text(await cursor.read(max_bytes, 10))


async def read_until(cursor: Cursor, revision: int, max_bytes: int = 1_000_000) -> str:
    found = ""
    while cursor.revision < revision:
        found += await read(cursor, max_bytes)
    return found


async def test_a_cursor_reads_what_follows_it(world: World) -> None:
    await world.write(Put("a", b""))
    cursor = await world.feed.watch("n", EVERYTHING)
    assert cursor.revision == 1
    await world.write(Put("b", b""))
    await world.write(Delete("a"))
    assert await read(cursor) == "2:+b;3:-a;"
    assert cursor.revision == 3
    await cursor.close()


async def test_a_waiting_cursor_is_woken_by_a_commit_that_concerns_it(world: World) -> None:
    cursor = await world.feed.watch("n", Interest("a", is_prefix=False))
    waiting = asyncio.create_task(cursor.read(1000, 10))
    await asyncio.sleep(0)
    await world.write(Put("b", b""))
    await asyncio.sleep(0)
    assert not waiting.done()
    await world.write(Put("a", b""))
    assert text(await waiting) == "2:+a;"
    await cursor.close()


async def test_a_quiet_cursor_says_how_far_it_knows(world: World) -> None:
    cursor = await world.feed.watch("n", Interest("a", is_prefix=True))
    await world.fill(7, "other")
    batch = await cursor.read(1000, 0.01)
    assert batch == Batch(7, [])
    await cursor.close()


async def test_a_cursor_from_an_earlier_revision_reads_the_store_and_then_the_topic(world: World) -> None:
    await world.fill(1000)
    cursor = await world.feed.watch("n", EVERYTHING, from_revision=500)
    await world.fill(10)
    seen = await read_until(cursor, 1010)
    assert seen == "".join(f"{revision}:+k;" for revision in range(500, 1011))
    await cursor.close()


async def test_what_is_in_memory_already_is_not_waited_for_after_a_gap_without_a_match(world: World) -> None:
    await world.fill(10, "other")
    stalled = await world.feed.watch("n", Interest("a/", is_prefix=True))  # for its sake the topic keeps what follows
    for _ in range(3):
        await world.write(Put("a/k", b""))
    resuming = await world.feed.watch("n", Interest("a/", is_prefix=True), from_revision=5)
    async with asyncio.timeout(2):
        assert text(await resuming.read(1000, 60)) == "11:+a/k;12:+a/k;13:+a/k;"
    await resuming.close()
    await stalled.close()


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
    monkeypatch.setattr(topics, "RECENT_BYTES", 30)
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


async def test_streams_that_watch_the_same_share_one_serialisation(world: World) -> None:
    cursors = [await world.feed.watch("n", EVERYTHING) for _ in range(50)]
    await world.fill(20)
    for cursor in cursors:
        await read_until(cursor, 20)
        await cursor.close()
    assert world.encoded == 20


async def test_what_all_have_read_is_let_go(world: World) -> None:
    cursors = [await world.feed.watch("n", EVERYTHING) for _ in range(3)]
    await world.fill(100)
    for cursor in cursors:
        await read_until(cursor, 100)
    (followed,) = world.feed._followed.values()
    (topic,) = followed.topics.values()
    assert not topic.pieces
    for cursor in cursors:
        await cursor.close()


async def test_a_slow_cursor_neither_holds_memory_nor_loses_a_commit(world: World) -> None:
    slow = await world.feed.watch("n", EVERYTHING)
    fast = await world.feed.watch("n", EVERYTHING)
    total = 5 * TOPIC_COMMITS
    for revision in range(0, total, 64):
        await world.fill(64)
        await read_until(fast, revision + 64)
    (followed,) = world.feed._followed.values()
    (topic,) = followed.topics.values()
    assert len(topic.pieces) <= TOPIC_COMMITS
    seen = await read_until(slow, total)
    assert seen == "".join(f"{revision}:+k;" for revision in range(1, total + 1))
    await slow.close()
    await fast.close()


async def test_a_topic_is_bounded_in_bytes(world: World) -> None:
    slow = await world.feed.watch("n", EVERYTHING)
    tracemalloc.start()
    try:
        for _ in range(60):
            await world.fill(1, value=bytes(512 * 1024))
            await world.store.compact("n")
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 8 * 512 * 1024
    with pytest.raises(Compacted):
        await read_until(slow, 60)
    await slow.close()


async def test_a_publish_between_timeout_and_wake_up_is_not_skipped(world: World) -> None:
    cursor = await world.feed.watch("n", EVERYTHING)
    waiting = asyncio.create_task(cursor.read(1_000_000, 0))
    await asyncio.sleep(0)  # the time is up at once; before the task runs again, more comes than the topic holds
    total = 3 * TOPIC_COMMITS
    await world.fill(total)
    seen = text(await waiting) + await read_until(cursor, total)
    assert seen == "".join(f"{revision}:+k;" for revision in range(1, total + 1))
    await cursor.close()


async def test_filters_choose_events(world: World) -> None:
    puts = await world.feed.watch("n", Interest("a", is_prefix=True, deletes=False))
    deletes = await world.feed.watch("n", Interest("a", is_prefix=True, puts=False))
    exact = await world.feed.watch("n", Interest("a1", is_prefix=False))
    await world.write(Put("a1", b""), Put("b", b""), Put("a2", b""))
    await world.write(Delete("a1"), Put("a3", b""))
    assert await read(puts) == "1:+a1,+a2;2:+a3;"
    assert await read(deletes) == "2:-a1;"
    assert await read(exact) == "1:+a1;2:-a1;"
    for cursor in (puts, deletes, exact):
        await cursor.close()


async def test_a_revision_that_cannot_be_shown_is_refused(world: World) -> None:
    await world.fill(5)
    await world.store.compact("n", 3)
    with pytest.raises(Compacted):
        await world.feed.watch("n", EVERYTHING, from_revision=3)
    with pytest.raises(RevisionInFuture):
        await world.feed.watch("n", EVERYTHING, from_revision=7)
    with pytest.raises(EpochChanged):
        await world.feed.watch("n", EVERYTHING, epoch="another")
    for revision in (4, 6):
        await (await world.feed.watch("n", EVERYTHING, from_revision=revision)).close()


async def test_a_cursor_that_falls_below_the_floor_is_told(world: World) -> None:
    cursor = await world.feed.watch("n", EVERYTHING)
    await world.fill(3 * TOPIC_COMMITS)
    await world.store.compact("n")
    with pytest.raises(Compacted) as raised:
        await read(cursor)
    assert raised.value.metadata["floor"] == str(3 * TOPIC_COMMITS)
    await cursor.close()


async def test_the_deletion_of_the_namespace_ends_its_cursors(world: World) -> None:
    await world.fill(3)
    cursor = await world.feed.watch("n", EVERYTHING)
    waiting = asyncio.create_task(cursor.read(1000, 10))
    await asyncio.sleep(0)
    await world.store.delete_namespace("n")
    with pytest.raises(Compacted):
        await waiting
    again = await world.feed.watch("n", EVERYTHING)
    await world.write(Put("new", b""))
    assert await read(again) == "5:+new;"
    await cursor.close()
    await again.close()


async def test_close_ends_every_cursor_with_draining(world: World) -> None:
    cursor = await world.feed.watch("n", EVERYTHING)
    waiting = asyncio.create_task(cursor.read(1000, 10))
    await asyncio.sleep(0)
    await world.feed.close()
    with pytest.raises(Draining):
        await waiting
    with pytest.raises(Draining):
        await world.feed.watch("n", EVERYTHING)
    await cursor.close()


async def test_a_cancelled_read_leaves_nothing_behind_and_loses_nothing(world: World) -> None:
    cursor = await world.feed.watch("n", EVERYTHING)
    for _ in range(20):
        waiting = asyncio.create_task(cursor.read(1000, 10))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    (followed,) = world.feed._followed.values()
    (topic,) = followed.topics.values()
    assert not topic.waiting
    await world.write(Put("a", b""))
    assert await read(cursor) == "1:+a;"
    await cursor.close()


class SlowToFollow(MemoryStore):
    """A store that is a while about following, and about the end of it."""

    def __init__(self) -> None:
        super().__init__(Limits())
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()  # to follow, or to end that

    async def follow(self, namespace: str, listener: Listener) -> Position:
        position = await super().follow(namespace, listener)
        self.begun.set()
        await self.gate.wait()
        return position

    async def unfollow(self, namespace: str) -> None:
        self.begun.set()
        await self.gate.wait()
        await super().unfollow(namespace)


async def test_a_watch_that_is_cancelled_as_it_begins_leaves_nothing_followed() -> None:
    store = SlowToFollow()
    feed = Feed(store, encode)
    watching = [asyncio.create_task(feed.watch("n", EVERYTHING)) for _ in range(3)]
    await store.begun.wait()
    for task in watching:
        task.cancel()
    await until(lambda: not feed._followed["n"].users, 2)
    for task in watching:  # a second time while it lets go
        task.cancel()
    await asyncio.wait(watching)
    assert all(task.cancelled() for task in watching)
    store.gate.set()
    await until(lambda: not feed._followed, 2)
    assert not store._listeners


async def test_a_close_that_is_cancelled_leaves_nothing_followed() -> None:
    store = SlowToFollow()
    feed = Feed(store, encode)
    store.gate.set()
    cursor = await feed.watch("n", EVERYTHING)
    store.gate.clear()
    store.begun.clear()
    closing = asyncio.create_task(cursor.close())
    await store.begun.wait()
    closing.cancel()
    await asyncio.wait([closing])
    store.gate.set()
    await until(lambda: not feed._followed, 2)
    assert not store._listeners


@pytest.mark.parametrize("seed", range(5))
async def test_every_cursor_reads_exactly_its_part_of_the_history(
    world: World, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cursors of all kinds come, read at their own pace and go, while commits are made; small bounds, so that each
    often has to go by way of the store."""
    monkeypatch.setattr(topics, "TOPIC_COMMITS", 4)
    monkeypatch.setattr(feed_module, "_CHUNK", 3)
    chance = random.Random(seed)
    targets = [("", True), ("a", True), ("ab", True), ("a", False), ("ab1", False), ("b", True), ("zz", True)]
    history: list[tuple[int, list[str]]] = []
    open_cursors: list[tuple[Cursor, Interest, int, list[str]]] = []

    def expected(interest: Interest, after: int, until: int) -> list[str]:
        shown: list[str] = []
        for revision, changes in history:
            matching = [
                change
                for change in changes
                if (change[1:].startswith(interest.target) if interest.is_prefix else change[1:] == interest.target)
                and (interest.deletes if change[0] == "-" else interest.puts)
            ]
            if matching and after < revision <= until:
                shown.extend(f"{revision}:{','.join(matching[at : at + 2])}" for at in range(0, len(matching), 2))
        return shown

    live: set[str] = set()
    for _ in range(300):
        step = chance.random()
        if step < 0.5:
            operations: list[Operation] = []
            changes = []
            for key in chance.sample(["a", "ab", "ab1", "ab2", "b", "b1", "c"], chance.randint(1, 5)):
                if key in live and chance.random() < 0.4:
                    operations.append(Delete(key))
                    changes.append("-" + key)
                    live.discard(key)
                else:
                    operations.append(Put(key, b""))
                    changes.append("+" + key)
                    live.add(key)
            history.append((await world.write(*operations), changes))
        elif step < 0.6:
            target, is_prefix = chance.choice(targets)
            puts, deletes = chance.choice([(True, True), (True, False), (False, True)])
            interest = Interest(target, is_prefix, puts, deletes)
            after = chance.randint(0, len(history))
            cursor = await world.feed.watch("n", interest, from_revision=after + 1)
            open_cursors.append((cursor, interest, after, []))
        elif open_cursors:
            cursor, interest, after, seen = chance.choice(open_cursors)
            batch = await cursor.read(chance.choice([1, 10, 1000]), 0)
            seen.extend(filter(None, text(batch).split(";")))
            whole = expected(interest, after, len(history))
            assert seen == whole[: len(seen)]
            assert expected(interest, after, batch.revision) == whole[: len(expected(interest, after, batch.revision))]
            assert len(seen) >= len(expected(interest, after, batch.revision))
            if chance.random() < 0.1:
                await cursor.close()
                open_cursors.remove((cursor, interest, after, seen))
    for cursor, interest, after, seen in open_cursors:
        while cursor.revision < len(history):
            seen.extend(filter(None, text(await cursor.read(100, 0)).split(";")))
        assert seen == expected(interest, after, len(history))
        await cursor.close()
