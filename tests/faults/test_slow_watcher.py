"""A watcher that does not read keeps nothing from the others, costs the server no memory and itself no events."""

import asyncio
import time
from collections.abc import AsyncIterator

import grpc
import psutil
import pytest

import comity
from comity import Event
from comity.v1 import state_pb2, state_pb2_grpc
from tests import servers
from tests.servers import Server
from tests.waiting import until

WRITES = 5_000
PROBES = 50
PROBE_SECONDS = 2.0
STALL_SECONDS = 10.0
VALUE = "x" * 8_192  # in all 40 MiB: far more than sockets and topics hold
MIB = 1024 * 1024

Stream = grpc.aio.UnaryStreamCall[state_pb2.WatchRequest, state_pb2.WatchResponse]


@pytest.fixture
async def slow(server: Server) -> AsyncIterator["state_pb2_grpc.StateServiceAsyncStub"]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield state_pb2_grpc.StateServiceStub(channel)


async def write(state: comity.Client, count: int) -> None:
    for _ in range(0, count, 50):
        await asyncio.gather(*(state.put("k", VALUE) for _ in range(50)))


async def read_to_the_end(stream: Stream) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


async def read(stream: Stream, last: int) -> int:
    """Read the commits from the first to the last one, or as far as the stream goes, and return the number."""
    seen = 0
    while seen < last and isinstance(response := await stream.read(), state_pb2.WatchResponse):
        for commit in response.commits:
            seen += 1
            assert commit.revision == seen
    return seen


async def test_a_stalled_watcher_keeps_nothing_from_another_and_loses_no_event(
    server: Server, slow: "state_pb2_grpc.StateServiceAsyncStub", namespace: str
) -> None:
    stalled = [slow.Watch(state_pb2.WatchRequest(namespace=namespace, prefix="")) for _ in range(2)]
    for stream in stalled:
        created = await stream.read()
        assert isinstance(created, state_pb2.WatchResponse)
        assert created.created
    began = time.monotonic()
    async with comity.connect(server.address, namespace=namespace) as state, state.watch() as fast:
        await fast.ready()
        writing = asyncio.create_task(write(state, WRITES))
        for revision in range(1, WRITES + 1):  # with the others stalled the fast one gets everything
            event = await anext(fast)
            assert isinstance(event, Event)
            assert event.entry.mod_revision == revision
        await writing
        for _ in range(PROBES):  # and that without delay
            put = await state.put("k", 1)
            async with asyncio.timeout(PROBE_SECONDS):
                event = await anext(fast)
            assert isinstance(event, Event)
            assert event.revision == put.revision
        await until(lambda: time.monotonic() - began > STALL_SECONDS)
        assert await read(stalled[0], WRITES + PROBES) == WRITES + PROBES  # and then a stalled one gets everything too
        stalled[0].cancel()
        await state.compact()  # what the other one was not sent by now is gone: so stalled it was, and all the time
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await read(stalled[1], WRITES)
        assert raised.value.code() is grpc.StatusCode.OUT_OF_RANGE


async def test_a_watcher_that_resumes_beside_a_stalled_one_is_not_held_up(
    server: Server, slow: "state_pb2_grpc.StateServiceAsyncStub", namespace: str
) -> None:
    """What the server keeps in memory for the stalled one is shown to the other, past a gap without a match."""
    async with comity.connect(server.address, namespace=namespace) as state:
        for _ in range(40):
            await state.put("a/k", bytes(MIB))
        gap = await state.put("b/k", 1)
        stalled = slow.Watch(state_pb2.WatchRequest(namespace=namespace, prefix="a/", from_revision=1))
        assert isinstance(await stalled.read(), state_pb2.WatchResponse)
        latest = [await state.put("a/new", number) for number in range(3)]
        async with state.watch("a/", from_revision=gap.revision, progress_interval=60) as resuming:
            for put in latest:
                async with asyncio.timeout(PROBE_SECONDS):
                    event = await anext(resuming)
                assert isinstance(event, Event)
                assert event.revision == put.revision
        stalled.cancel()


async def test_the_lag_of_slow_watchers_is_no_memory_of_the_server(namespace: str) -> None:
    """Ten watchers that read nothing, and a history that is kept short: the server must not keep it for them."""
    with servers.start("--retention-history-bytes", str(MIB), "--compaction-interval", "0.2") as own:
        process = psutil.Process(own.process.pid)
        async with grpc.aio.insecure_channel(own.address) as channel, comity.connect(own.address) as state:
            await write(state, 500)
            before = process.memory_info().rss
            stub = state_pb2_grpc.StateServiceStub(channel)
            streams = [
                stub.Watch(state_pb2.WatchRequest(namespace=state.namespace, prefix=prefix)) for prefix in ("", "k") * 5
            ]
            for stream in streams:
                await stream.read()
            await write(state, WRITES)
            grown = process.memory_info().rss - before
            assert grown < 40 * MIB, f"the lag alone is {10 * WRITES * len(VALUE) // MIB} MiB"
            for stream in streams:  # what they missed is compacted, and they are told
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await read_to_the_end(stream)
                assert raised.value.code() is grpc.StatusCode.OUT_OF_RANGE
