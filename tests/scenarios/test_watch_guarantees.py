"""What a watch promises, each promise under its name: docs/guarantees.md lists them."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from functools import partial

import pytest

import comity
from comity import Client, Commit, Delete, Event, EventType, Increment, Put, Resync
from tests.proxy import Proxy
from tests.servers import Server
from tests.waiting import until


@pytest.fixture
async def state(server: Server, namespace: str) -> AsyncIterator[Client]:
    async with comity.connect(server.address, namespace=namespace) as client:
        yield client


async def take(watch: AsyncIterator[Event | Resync], count: int) -> list[Event]:
    """The next events; there must be no Resync among them."""
    events: list[Event] = []
    while len(events) < count:
        event = await anext(watch)
        assert isinstance(event, Event), event
        events.append(event)
    return events


def told(event: Event) -> str:
    return f"{event.type.name} {event.entry.key}@{event.entry.mod_revision}"


def further(events: Sequence[str], before: int, writing: asyncio.Task[None]) -> bool:
    return len(events) > before or writing.done()


async def write_at_random(state: Client, chance: random.Random, count: int) -> None:
    """Puts, deletes and transactions under a/ and b/."""
    for _ in range(count):
        keys = chance.sample([f"{side}/{number}" for side in "ab" for number in range(6)], 3)
        if chance.random() < 0.3:
            await state.delete(keys[0])
        else:
            await state.transact(then=[Put(keys[0], 0), Put(keys[1], 1), Delete(keys[2])])


async def test_filter(state: Client) -> None:
    """A watch shows what it asked for, by key, by prefix and by type, and nothing else."""
    async with (
        state.watch("a/") as prefix,
        state.watch(key="a") as key,
        state.watch("", types=[EventType.DELETE]) as deletes,
        state.watch("a/", types=[EventType.PUT]) as puts,
    ):
        for watch in (prefix, key, deletes, puts):
            await watch.ready()
        for name in ("a", "a/1", "ab", "b/1"):
            await state.put(name, name)
        await state.delete(prefix="a")
        await state.put("a/2", 2)
        assert [told(event) for event in await take(prefix, 3)] == ["PUT a/1@2", "DELETE a/1@5", "PUT a/2@6"]
        assert [told(event) for event in await take(key, 2)] == ["PUT a@1", "DELETE a@5"]
        assert [told(event) for event in await take(deletes, 3)] == ["DELETE a@5", "DELETE a/1@5", "DELETE ab@5"]
        assert [told(event) for event in await take(puts, 2)] == ["PUT a/1@2", "PUT a/2@6"]


async def test_ordered(state: Client) -> None:
    """Events come in the order of their revisions, whoever wrote them."""
    async with state.watch() as watch:
        await watch.ready()
        await asyncio.gather(*(state.put(f"k{number % 7}", number) for number in range(200)))
        revisions = [event.entry.mod_revision for event in await take(watch, 200)]
    assert revisions == list(range(1, 201))


async def test_unique(state: Client, server: Server) -> None:
    """No event comes twice, also where the connection broke in between."""
    async with (
        Proxy(server.address) as proxy,
        comity.connect(proxy.address, namespace=state.namespace) as far,
        far.watch() as watch,
    ):
        await watch.ready()
        seen: list[int] = []
        for round_ in range(5):
            await asyncio.gather(*(state.put("k", number) for number in range(20)))
            seen += [event.entry.mod_revision for event in await take(watch, 10 if round_ < 4 else 60)]
            await proxy.cut()
    assert seen == list(range(1, 101))


async def test_atomic(state: Client) -> None:
    """A commit is seen whole: its events come as one, however many there are and however large they are."""
    large = "x" * 300_000
    async with state.watch("a/") as watch:
        await watch.ready()
        await state.transact(then=[Put(f"a/{number}", large) for number in range(10)])
        await state.transact(then=[*(Put(f"a/b{number:03}", 0) for number in range(900)), Put("c", 1)])
        commits = watch.commits()
        first, second = await anext(commits), await anext(commits)
    assert isinstance(first, Commit)
    assert isinstance(second, Commit)
    assert [event.entry.key for event in first.events] == [f"a/{number}" for number in range(10)]
    assert [event.entry.key for event in second.events] == [f"a/b{number:03}" for number in range(900)]
    assert (first.revision, second.revision) == (1, 2)


async def test_atomic_for_the_bookmark(state: Client) -> None:
    """Between two events of one commit the bookmark stays below it: who resumes there gets the whole commit."""
    async with state.watch() as watch:
        await watch.ready()
        await state.transact(then=[Put("a", 1), Put("b", 2)])
        await anext(watch)
        assert watch.revision == 0
    async with state.watch(from_revision=watch.revision + 1) as again:
        assert [told(event) for event in await take(again, 2)] == ["PUT a@1", "PUT b@1"]


async def test_resumable(state: Client) -> None:
    """A watch from a revision shows all that came from there on, as if it had been there."""
    chance = random.Random(1)
    async with state.watch() as live:
        await live.ready()
        await write_at_random(state, chance, 60)
        newest = (await state.namespace_info()).revision
        whole = []
        while live.revision < newest:
            whole += await take(live, 1)
    for start in range(1, newest + 1, 7):
        expected = [told(event) for event in whole if event.entry.mod_revision >= start]
        async with state.watch(from_revision=start) as watch:
            assert [told(event) for event in await take(watch, len(expected))] == expected


async def test_bookmarkable(state: Client) -> None:
    """The bookmark grows on a quiet watch too, so that compaction does not overtake it."""
    async with state.watch("quiet/", progress_interval=0.1) as watch:
        await watch.ready()
        for number in range(20):
            await state.put("loud", number)
        waiting = asyncio.create_task(anext(aiter(watch)))
        await until(lambda: watch.revision >= 20)
        await state.compact()
        await state.put("quiet/1", 1)
        event = await waiting
    assert isinstance(event, Event)
    assert told(event) == "PUT quiet/1@21"


async def test_reliable_across_reconnects(state: Client, server: Server) -> None:
    """No gap, however often the connection breaks while others write."""
    async with (
        Proxy(server.address) as proxy,
        comity.connect(proxy.address, namespace=state.namespace) as far,
        state.watch("a/") as near_watch,
        far.watch("a/") as far_watch,
    ):
        await near_watch.ready()
        await far_watch.ready()
        writing = asyncio.create_task(write_at_random(state, random.Random(2), 300))
        near: list[str] = []
        distant: list[str] = []

        async def read(watch: comity.Watch, into: list[str]) -> None:
            async for event in watch:
                assert isinstance(event, Event)
                if event.entry.key == "a/end":
                    return
                into.append(told(event))

        readers = [asyncio.create_task(read(near_watch, near)), asyncio.create_task(read(far_watch, distant))]
        while not writing.done():
            seen = len(distant)
            await proxy.cut()
            await until(partial(further, distant, seen, writing))
        await writing
        await state.put("a/end", True)
        await asyncio.gather(*readers)
    assert proxy.connections > 3
    assert distant == near


async def test_reliable_under_load(state: Client) -> None:
    """No gap while many write at once: replaying the events gives the state."""
    copy: dict[str, object] = {}
    async with state.watch() as watch:
        await watch.ready()
        seeds = [random.Random(seed) for seed in range(10)]
        await asyncio.gather(*(write_at_random(state, chance, 50) for chance in seeds))
        newest = (await state.namespace_info()).revision
        while watch.revision < newest:
            (event,) = await take(watch, 1)
            if event.type is EventType.PUT:
                copy[event.entry.key] = event.entry.value
            else:
                del copy[event.entry.key]
    assert copy == {entry.key: entry.value async for entry in state.list()}


async def test_reliable_while_the_history_is_compacted(state: Client, server: Server) -> None:
    """What compaction takes from a watch that was away, a Resync brings: events and resyncs together give the state."""
    copy: dict[str, object] = {}
    resyncs = 0
    async with (
        Proxy(server.address) as proxy,
        comity.connect(proxy.address, namespace=state.namespace) as far,
        far.watch() as watch,
    ):
        await watch.ready()
        chance = random.Random(3)
        for _ in range(5):
            proxy.refuse()
            await proxy.cut()
            await write_at_random(state, chance, 20)
            await state.compact()
            proxy.refuse(refusing=False)
            await write_at_random(state, chance, 20)
            newest = (await state.namespace_info()).revision
            while watch.revision < newest:
                event = await anext(watch)
                if isinstance(event, Resync):
                    resyncs += 1
                    copy = {entry.key: entry.value for entry in event.entries}
                elif event.type is EventType.PUT:
                    copy[event.entry.key] = event.entry.value
                else:
                    del copy[event.entry.key]
            assert copy == {entry.key: entry.value async for entry in state.list()}
    assert resyncs == 5


async def test_created_vs_modified(state: Client) -> None:
    """A watcher can tell a key that came into being from one that was overwritten, also after a delete."""
    async with state.watch() as watch:
        await watch.ready()
        await state.put("k", 1)
        await state.put("k", 2)
        await state.delete("k")
        await state.put("k", 3)
        await state.transact(then=[Increment("n", 1)])
        events = await take(watch, 5)
    kinds = ["created" if event.is_create else "modified" if event.is_put else "deleted" for event in events]
    assert kinds == ["created", "modified", "deleted", "created", "created"]
    assert [event.entry.version for event in events] == [1, 2, 0, 1, 1]


async def test_previous_entry(state: Client) -> None:
    """On request each event carries the entry before it; without, none does."""
    async with state.watch(previous=True) as watch, state.watch() as plain:
        await watch.ready()
        await plain.ready()
        await state.put("k", 1)
        await state.put("k", 2)
        await state.delete("k")
        await state.put("k", 3)
        events = await take(watch, 4)
        assert [event.previous for event in await take(plain, 4)] == [None] * 4
    assert [event.previous and event.previous.value for event in events] == [None, 1, 2, None]
    assert [event.previous and event.previous.mod_revision for event in events] == [None, 1, 2, None]
