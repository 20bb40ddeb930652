"""The feed: what a cursor reads is the history, whatever way it took there."""

import asyncio
import random
import tracemalloc

import pytest
from structlog.testing import capture_logs

from comity_server import feed as feed_module
from comity_server import pieces, topics
from comity_server.errors import Compacted, Draining, EpochChanged, RevisionInFuture
from comity_server.feed import Batch, Cursor, Feed
from comity_server.limits import Limits
from comity_server.model import Delete, Operation, Position, Put
from comity_server.pieces import Interest
from comity_server.stores.memory.store import MemoryStore
from comity_server.stores.protocol import Listener
from comity_server.topics import TOPIC_COMMITS
from tests.core.feeding import EVERYTHING, World, encode, read, read_until, text
from tests.waiting import until


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


class StepByStep(MemoryStore):
    """A store that begins to follow when it is let, and is done with the end of that likewise."""

    def __init__(self) -> None:
        super().__init__(Limits())
        self.following = asyncio.Event()
        self.unfollowing = asyncio.Event()

    async def follow(self, namespace: str, listener: Listener) -> Position:
        await self.following.wait()
        return await super().follow(namespace, listener)

    async def unfollow(self, namespace: str) -> None:
        await super().unfollow(namespace)
        await self.unfollowing.wait()


async def test_a_watch_that_was_given_up_as_another_left_takes_nothing_from_the_next_one() -> None:
    world = World(store := StepByStep())
    store.following.set()
    leaving = asyncio.create_task((await world.feed.watch("n", EVERYTHING)).close())
    await until(lambda: not store._listeners, 2)
    given_up = asyncio.create_task(world.feed.watch("n", EVERYTHING))
    await until(lambda: world.feed._followed["n"].users == 1, 2)
    given_up.cancel()
    await until(lambda: not world.feed._followed["n"].users, 2)
    store.following.clear()
    store.unfollowing.set()
    await leaving
    next_one = asyncio.create_task(world.feed.watch("n", EVERYTHING))
    await until(lambda: "n" in world.feed._followed, 2)
    store.following.set()
    cursor = await next_one
    await asyncio.wait([given_up])
    await world.write(Put("a", b""))
    assert await read(cursor) == "1:+a;"
    await cursor.close()
    await until(lambda: not world.feed._tasks and not world.feed._followed, 2)
    assert not store._listeners


async def test_a_watch_that_begins_as_another_leaves_goes_by_the_history_that_there_is_then() -> None:
    world = World(store := StepByStep())
    store.following.set()
    cursor = await world.feed.watch("n", EVERYTHING)
    await world.fill(10)
    await read_until(cursor, 10)
    leaving = asyncio.create_task(cursor.close())
    await until(lambda: not store._listeners, 2)
    beginning = asyncio.create_task(world.feed.watch("n", EVERYTHING))
    await until(lambda: world.feed._followed["n"].users == 1, 2)
    del store.namespaces_by_name["n"]  # as of a Redis that has lost its state
    store.unfollowing.set()
    cursor = await beginning
    await leaving
    assert world.feed.lags() == [0]
    await world.write(Put("a", b""))
    assert await read(cursor) == "1:+a;"
    await cursor.close()


@pytest.mark.parametrize("in_steps", [False, True])
async def test_a_commit_that_cannot_be_shown_is_left_out_of_no_watch(
    in_steps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    monkeypatch.setattr(topics, "STEP", 0 if in_steps else topics.STEP)
    cursor = await world.feed.watch("n", EVERYTHING)
    with monkeypatch.context() as defect, capture_logs() as logged:
        defect.setattr(topics, "Small", None)
        await world.write(Put("a", b""))
        with pytest.raises(Compacted):
            await read(cursor)
    assert [line["event"] for line in logged] == ["a commit could not be shown to watches"]
    await cursor.close()
    cursor = await world.feed.watch("n", EVERYTHING, from_revision=1)
    await world.write(Put("b", b""))
    assert await read_until(cursor, 2) == "1:+a;2:+b;"
    await cursor.close()


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("seed", range(5))
async def test_every_cursor_reads_exactly_its_part_of_the_history(
    world: World, seed: int, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cursors of all kinds come, read at their own pace and go, while commits are made; small bounds, so that each
    often has to go by way of the store. Whether commits are small, or such as are searched."""
    if large:
        for module, bound in ((topics, "STEP"), (topics, "SEARCH"), (pieces, "LARGE"), (feed_module, "LARGE")):
            monkeypatch.setattr(module, bound, 0)
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


async def test_who_waits_for_a_commit_is_woken_in_rounds_that_others_have_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "WOKEN", 3)
    cursors = [await world.feed.watch("n", EVERYTHING) for _ in range(10)]
    reading = [asyncio.create_task(cursor.read(1000, 60)) for cursor in cursors]
    await asyncio.sleep(0)
    (topic,) = world.feed._followed["n"].topics.values()
    woken = []
    await world.write(Put("a", b""))
    assert not topic.waiting
    while not all(task.done() for task in reading):
        await asyncio.sleep(0)
        woken.append(sum(task.done() for task in reading))
    assert max(after - before for before, after in zip([0, *woken], woken, strict=False)) <= 3
    for cursor, task in zip(cursors, reading, strict=True):
        assert text(await task) == "1:+a;"
        await cursor.close()
