"""A server has in memory what its clients ask for, and lets go of it when they no longer do."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Protocol

import pytest

from comity_server.feed import Feed
from comity_server.limits import Limits, Retention
from comity_server.model import Get, Put, RequestId
from comity_server.pieces import Interest
from comity_server.record import VALUE
from comity_server.services.wire import watch_fragment
from comity_server.stores.memory import requests
from comity_server.stores.redis import loading, replicas, store
from comity_server.stores.redis.client import Client
from comity_server.stores.redis.portions import scan
from comity_server.stores.redis.store import RedisStore
from comity_server.stores.url import open_store
from tests.contract.crowd import all_of
from tests.contract.space import Space, fresh_name
from tests.stores.sharing import before
from tests.waiting import until


class Join(Protocol):
    async def __call__(self) -> RedisStore: ...


@pytest.fixture
async def join(redis_url: str) -> AsyncIterator[Join]:
    """Opens another store over the same Redis."""
    async with AsyncExitStack() as stack:

        async def joined() -> RedisStore:
            opened = open_store(redis_url, Limits())
            assert isinstance(opened, RedisStore)
            await opened.open()
            stack.push_async_callback(opened.close)
            return opened

        yield joined


async def test_names_that_are_made_up_do_not_fill_the_memory(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "ABSENT", 10)
    space = Space(await join(), fresh_name())
    await space.put("k")
    for number in range(100):
        made_up = Space(space.store, f"made-up-{number}")
        assert await made_up.get("k") is None
        await made_up.apply(Get("k"))
    known = space.store._replicas._replicas  # type: ignore[attr-defined]
    assert len(known) == 11
    assert len(space.store.deleted) == 10  # type: ignore[attr-defined]
    assert space.name in known


async def test_what_nobody_asks_for_is_let_go_of_and_comes_back_as_it_is(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await join(), await join()
    space = Space(one, fresh_name())
    await space.put("k", b"1")
    await space.checkpoint("c")
    fork = await space.fork("fork", "c")
    await fork.put("k", b"2")
    state = one.namespaces_by_name[space.name]
    monkeypatch.setattr(store, "IDLE_SECONDS", 0.0)
    await one.sweep()
    await one.sweep()  # the fork goes before what it shares
    assert not one.namespaces_by_name
    assert state.forks == 0
    await Space(two, space.name).put("k", b"3")
    assert (await space.entry("k"))[VALUE] == b"3"
    assert (await fork.entry("k"))[VALUE] == b"2"
    assert one.namespaces_by_name[space.name] is not state
    assert await space.store.checkpoint(space.name, "c")


@pytest.mark.parametrize("who", ["read", "write", "compaction"])
async def test_only_clients_ask_for_a_namespace(join: Join, who: str) -> None:
    one = await join()
    space = Space(one, fresh_name())
    await space.put("k")
    one._replicas.find(space.name).used -= store.IDLE_SECONDS + 1
    match who:
        case "read":
            await space.get("k")
        case "write":
            await space.put("k")
        case "compaction":  # as of all namespaces, over and over
            await one.retain(space.name, Retention())
    await one.sweep()
    assert (space.name in one.namespaces_by_name) == (who != "compaction")


async def test_readers_share_their_looks_at_redis(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who come while one is under way share the next one."""
    one = await join()
    space = Space(one, fresh_name())
    await space.put("k")
    looks: list[str] = []

    async def look(name: str) -> None:
        looks.append(name)

    before(monkeypatch, one._replicas, "_look", look)

    async def read() -> None:
        for _ in range(10):
            await space.get("k")

    await asyncio.gather(*(read() for _ in range(20)))
    assert len(looks) <= 20  # of 200 reads


async def test_whoever_waits_for_a_look_hears_of_its_end(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    """With those who came after it had begun."""
    one = await join()
    space = Space(one, fresh_name())
    begun = asyncio.Event()

    async def look(name: str) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(one._replicas, "_look", look)
    readers = [asyncio.create_task(space.get("k"))]
    await begun.wait()
    readers.append(asyncio.create_task(space.get("k")))
    await until(lambda: one._replicas._barriers._by_name[space.name]._next is not None)
    await one._replicas.close()
    done, _ = await asyncio.wait(readers, timeout=10)
    assert len(done) == 2


async def test_a_list_of_namespaces_loads_none(join: Join) -> None:
    one = await join()
    spaces = [Space(one, fresh_name()) for _ in range(5)]
    for space in spaces:
        await space.put("k", b"value")
    fork = await spaces[0].fork("fork")
    await fork.checkpoint("c")  # which is no update
    told = await one.namespaces("", limit=10)
    two = await join()
    assert await two.namespaces("", limit=10) == told
    assert {info.name for info in told} == {space.name for space in (*spaces, fork)}
    assert not two.namespaces_by_name


async def test_what_another_server_has_is_compacted_there(join: Join) -> None:
    one, two, three = await join(), await join(), await join()
    space = Space(one, fresh_name())
    for _ in range(20):
        await space.put("k")
    much = Retention(commits=100, age=1000.0, history_bytes=1 << 20)
    little = Retention(commits=10, age=1000.0, history_bytes=1 << 20)
    assert await two.retain(space.name, much) == 0
    assert not two.namespaces_by_name
    assert await two.retain(space.name, little) == 10  # one that has not loaded it sees to it too: it may be at rest
    assert two.namespaces_by_name
    for _ in range(20):
        await space.put("k")
    assert await three.retain(space.name, little) == 10  # but not each of them
    assert not three.namespaces_by_name
    assert await two.retain(space.name, little) == 30


async def test_a_server_that_only_follows_forgets_silent_clients_too(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "_SWEPT", 10)
    one, two = await join(), await join()
    space = Space(one, fresh_name())
    for number in range(50):
        await space.apply(Put("k", b""), request_id=RequestId(f"c{number}", 1))
    state = await two._replicas.fresh(space.name)
    assert len(state.requests.names()) == 50
    monkeypatch.setattr(state.requests, "_limits", Limits(request_window=0.0))
    await two.retain(space.name, Retention())
    assert state.requests.names() == []


async def test_what_redis_says_twice_counts_once(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it may of a hash that others change meanwhile."""
    one = await join()
    space = Space(one, fresh_name())
    for number in range(20):
        await space.apply(Put(f"k{number % 3}", bytes(100)), request_id=RequestId("ann", number))
        await space.checkpoint(f"c{number}")
    await space.compact()
    await space.put("k")

    async def twice(client: Client, key: str) -> AsyncIterator[tuple[bytes, bytes]]:
        for _ in range(2):
            async for pair in scan(client, key):
                yield pair

    monkeypatch.setattr(loading, "scan", twice)
    two = await join()
    assert await all_of(Space(two, space.name)) == await all_of(space)
    sizes = [store.namespaces_by_name[space.name].requests._size_bytes for store in (one, two)]
    assert sizes[0] == sizes[1] > 0
    for number in range(20):
        await Space(two, space.name).drop(f"c{number}")
    assert await Space(two, space.name).settled() == 0


async def test_a_follower_goes_on_after_a_cancellation_that_nobody_asked_for(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = Space(await join(), fresh_name()), await join()
    await writer.put("k")
    read, strays = Client.read_blocking, 0

    async def stray(client: Client, key: str, after: str, count: int) -> Sequence[tuple[bytes, dict[bytes, bytes]]]:
        nonlocal strays
        if client is reader._client and not strays:
            strays += 1
            raise asyncio.CancelledError
        return await read(client, key, after, count)

    monkeypatch.setattr(Client, "read_blocking", stray)
    feed = Feed(reader, watch_fragment)
    cursor = await feed.watch(writer.name, Interest("", is_prefix=True))
    await until(lambda: bool(strays))
    await writer.put("k")
    batch = await cursor.read(1_000_000, 60)
    assert (batch.revision, len(batch.fragments)) == (2, 1)
    await cursor.close()
