"""A server that is killed and comes back: clients go on by themselves."""

import asyncio
from collections.abc import Iterator

import grpc
import pytest

import comity
from comity import Event, Resync
from comity.v1 import state_pb2, state_pb2_grpc
from tests import servers
from tests.servers import Server
from tests.wire.calls import read_refusal


@pytest.fixture
def own() -> Iterator[Server]:
    with servers.start() as running:
        yield running


async def test_a_watch_over_a_server_that_lost_its_memory_resyncs(own: Server) -> None:
    """`memory:` begins a new history at a restart: the watch says so, instead of going on as if it were the old one."""
    async with comity.connect(own.address, timeout=30) as state, state.watch() as watch:
        await watch.ready()
        await state.put("old", 1)
        await state.put("old", 2)
        while watch.revision < 2:
            await anext(watch)
        own.kill()
        await asyncio.to_thread(own.restart)
        for number in range(5):  # the new history is longer than the old one before the watch is back
            await state.put(f"new/{number}", number)
        resync = await anext(watch)
        assert isinstance(resync, Resync)
        keys = {entry.key for entry in resync.entries}
        while watch.revision < 5:
            event = await anext(watch)
            assert isinstance(event, Event)
            keys.add(event.entry.key)
        assert keys == {f"new/{number}" for number in range(5)}


async def test_calls_wait_out_a_restart(own: Server) -> None:
    async with comity.connect(own.address, timeout=30) as state:
        await state.put("k", 1)
        own.kill()
        waiting = [asyncio.create_task(state.put("k", 2)), asyncio.create_task(state.put("l", 3))]
        await asyncio.to_thread(own.restart)
        await asyncio.gather(*waiting)
        assert [entry.key async for entry in state.list()] == ["k", "l"]


async def test_a_drained_server_ends_watches_with_a_reason_and_they_go_on_at_the_next(own: Server) -> None:
    async with (
        grpc.aio.insecure_channel(own.address) as channel,
        comity.connect(own.address, timeout=30) as state,
        state.watch() as watch,
    ):
        stub: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)
        raw = stub.Watch(state_pb2.WatchRequest(namespace=state.namespace, prefix=""))
        created = await raw.read()
        assert isinstance(created, state_pb2.WatchResponse)
        assert created.created
        await watch.ready()
        assert await asyncio.to_thread(own.stop) == 0
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await raw.read()
        reason = read_refusal(ended.value)
        assert (reason.code, reason.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert reason.retry_after is not None
        await asyncio.to_thread(own.restart)
        await state.put("k", 1)
        event = await anext(watch)
        assert isinstance(event, Resync) or event.entry.key == "k"
