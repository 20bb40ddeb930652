"""The life of a watch: opening, cancelling, breaking off, closing, and streams that break in the midst of a commit."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

import comity
from comity import Client, Event, Resync
from comity.listing import Listing
from tests.client.tries import noted
from tests.proxy import Proxy
from tests.servers import Server
from tests.waiting import until
from tests.wire import inprocess


@pytest.fixture
async def state(server: Server, namespace: str) -> AsyncIterator[Client]:
    async with comity.connect(server.address, namespace=namespace) as client:
        yield client


def streams() -> int:
    """How many streams gRPC has open in this event loop: it has a task for each. Only its private name tells them, so
    each test has to see one of them, too."""
    return sum("status_once_received" in repr(task) for task in asyncio.all_tasks())


async def key_of(item: Event | Resync) -> str:
    assert isinstance(item, Event)
    return item.key


async def test_ready_beside_a_reader(state: Client) -> None:
    watch = state.watch()
    first = asyncio.ensure_future(anext(watch))
    revision = await watch.ready()
    put = await state.put("a", 1)
    assert put.revision == revision + 1
    event = await first
    assert event.revision == put.revision == watch.revision
    await watch.close()


async def test_a_wait_that_is_cancelled_loses_nothing(state: Client) -> None:
    async with state.watch() as watch:
        await watch.ready()
        for number in range(5):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(watch), 0.01)
            await state.transact(then=[comity.Put(f"{number}/a", 1), comity.Put(f"{number}/b", 1)])
            assert await key_of(await anext(watch)) == f"{number}/a"
            assert await key_of(await anext(watch)) == f"{number}/b"


@pytest.mark.parametrize("options", [{}, {"from_revision": 1}, {"initial": True}], ids=str)
async def test_waits_that_are_shorter_than_the_way_to_the_server(
    server: Server, namespace: str, state: Client, options: dict[str, Any]
) -> None:
    async with Proxy(server.address) as proxy, comity.connect(proxy.address, namespace=namespace) as far:
        await far.wait_for_ready()
        proxy.delay = 0.1
        async with far.watch(**options) as watch:
            seen: list[Event | Resync] = []

            async def poll() -> bool:
                with contextlib.suppress(TimeoutError):
                    seen.append(await asyncio.wait_for(anext(watch), 0.03))
                await state.put("k", 1)
                return len(seen) >= 3

            await until(poll, 20)
            revisions = [item.revision for item in seen]
            assert revisions == list(range(revisions[0], revisions[0] + 3))


async def test_a_watch_that_is_dropped_after_a_wait_was_cancelled_ends(state: Client) -> None:
    watch = state.watch()
    await watch.ready()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(watch), 0.01)
    assert streams() == 1
    del watch
    gc.collect()
    await until(lambda: streams() == 0, 5)


async def test_breaking_off_ends_the_stream(state: Client) -> None:
    await state.put("a", 1)
    others = streams()  # of the writes
    async for _ in state.watch(from_revision=1):
        assert streams() == others + 1
        break
    await until(lambda: streams() == others)
    async for _ in state.watch(from_revision=1).commits():
        assert streams() == others + 1
        break
    await until(lambda: streams() == others)
    async for _ in state.cell("a", int).watch():
        assert streams() == others + 1
        break
    await until(lambda: streams() == others)


async def test_closing_ends_the_iteration_of_another_task(state: Client) -> None:
    watch = state.watch()
    events: list[Event | Resync] = []

    async def read() -> None:
        events.extend([event async for event in watch])

    reader = asyncio.create_task(read())
    await watch.ready()
    assert streams() == 1
    await watch.close()
    await watch.close()
    await reader
    assert events == []
    with pytest.raises(StopAsyncIteration):
        await anext(watch)
    await until(lambda: streams() == 0)


async def test_closing_ends_whoever_waits_for_a_state(
    server: Server, namespace: str, state: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await state.put("p/a", 1)
    async with Proxy(server.address) as proxy, comity.connect(proxy.address, namespace=namespace) as far:
        really = Listing.all

        async def stalled(listing: Listing) -> list[comity.Entry]:
            proxy.stall()
            return await really(listing)

        monkeypatch.setattr(Listing, "all", stalled)
        watch = far.watch("p/", initial=True)
        waiting = asyncio.create_task(anext(watch, None))
        await proxy.held_back()
        await watch.close()
        async with asyncio.timeout(2):
            assert await waiting is None
        proxy.resume()


async def test_a_watch_yields_events_or_commits(state: Client) -> None:
    await state.put("a", 1)
    watch = state.watch(from_revision=1)
    await anext(watch)
    with pytest.raises(RuntimeError, match="either events or commits"):
        await anext(watch.commits())
    await watch.close()


async def test_the_present_state_first(state: Client) -> None:
    put = await state.put("p/a", 1)
    async with state.watch("p/", initial=True) as watch:
        assert await watch.ready() == put.revision
        resync = await anext(watch)
        assert isinstance(resync, Resync)
        assert [entry.key for entry in resync.entries] == ["p/a"]
        assert resync.revision == watch.revision == put.revision
        await state.put("p/b", 1)
        assert await key_of(await anext(watch)) == "p/b"


async def test_a_bad_request_is_raised_and_not_tried_again(state: Client) -> None:
    with pytest.raises(comity.InvalidArgument):
        await anext(state.watch(key="x" * 2000))
    with pytest.raises(comity.OutOfRange):
        await anext(state.watch(from_revision=1000))


async def test_a_defect_of_the_server_is_raised_and_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, namespace: str
) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError

    async with (
        inprocess.run() as running,
        Proxy(running.server.addresses[0]) as proxy,
        comity.connect(proxy.address, namespace=namespace, timeout=60) as far,
        asyncio.timeout(10),
    ):
        watch = far.watch()
        await watch.ready()
        for method in ("follow", "position"):
            monkeypatch.setattr(running.store, method, fail)
        await proxy.cut()
        for broken in (watch, far.watch()):
            with pytest.raises(comity.Internal) as caught:
                await anext(broken)
            assert caught.value.reason == "INTERNAL"
            assert caught.value.metadata["error_id"]
        monkeypatch.undo()


async def test_a_server_that_was_never_there() -> None:
    async with comity.connect("127.0.0.1:1", timeout=0.2) as state:
        watch = state.watch()
        with pytest.raises(comity.Unavailable):
            await watch.ready()
        with pytest.raises(comity.Unavailable):
            await anext(watch)


async def test_a_deleted_namespace_is_a_new_state(state: Client) -> None:
    put = await state.put("a", 1)
    async with state.watch(from_revision=1) as watch:
        assert await key_of(await anext(watch)) == "a"
        await state.delete_namespace()
        resync = await anext(watch)
        assert isinstance(resync, Resync)
        assert resync.entries == ()
        assert (await state.put("b", 1)).revision > put.revision
        assert await key_of(await anext(watch)) == "b"


@pytest.mark.parametrize("whole", [False, True], ids=["events", "commits"])
async def test_a_large_commit_over_a_connection_that_breaks(
    server: Server, namespace: str, state: Client, whole: bool
) -> None:
    """Three megabytes come in several messages. The connection breaks once, in the midst of them."""
    names = [f"big/{number:02}" for number in range(30)]
    put = await state.transact(then=[comity.Put(name, bytes(100_000)) for name in names])
    await state.put("last", 1)
    async with Proxy(server.address) as proxy, comity.connect(proxy.address, namespace=namespace) as far:
        proxy.cut_after(1_500_000)
        watch = far.watch(from_revision=1)
        seen: list[str] = []
        if whole:
            async for commit in watch.commits():
                assert not isinstance(commit, Resync)
                seen += [event.key for event in commit.events]
                assert watch.revision == commit.revision
                if seen[-1] == "last":
                    break
        else:
            async for event in watch:
                assert isinstance(event, Event)
                seen.append(event.key)
                if len(seen) < len(names):
                    assert watch.revision == put.revision - 1
                if event.key == "last":
                    break
        assert seen == [*names, "last"]
        assert watch.revision == put.revision + 1
        assert proxy.connections == 2
        await watch.close()


async def test_a_lost_connection_is_told_once(server: Server, namespace: str, state: Client) -> None:
    told: list[comity.ComityError | None] = []
    async with (
        Proxy(server.address) as proxy,
        comity.connect(proxy.address, namespace=namespace) as far,
        far.watch(from_revision=1, on_connection=told.append) as watch,
    ):
        await state.put("a", 1)
        assert await key_of(await anext(watch)) == "a"
        following = asyncio.ensure_future(anext(watch))
        proxy.refuse()
        await proxy.cut()
        tries = proxy.connections
        await until(lambda: proxy.connections > tries + 1)
        (lost,) = told
        assert isinstance(lost, comity.ComityError)
        proxy.refuse(False)
        await state.put("b", 1)
        assert await key_of(await following) == "b"
        assert told == [lost, None]


async def test_a_server_that_is_away_is_tried_by_calls_that_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC keeps some memory of each stream that fails."""
    async with comity.connect("127.0.0.1:1", timeout=2.0) as state:
        tried = noted(monkeypatch, state._calls.channels.connection(), "state", "Watch")
        with pytest.raises(comity.Unavailable, match="connection refused"):
            await state.watch("a").ready()
    assert tried[0] == "stream"
    assert tried.count("call") > tried.count("stream")
