"""A client that asks for much and takes off nothing, or begins much and finishes nothing, holds up only itself."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from comity.v1 import state_pb2 as s
from comity.v1 import state_pb2_grpc
from comity_server.services import receiving
from tests import servers
from tests.access.principals import shown, token_of, write_tokens
from tests.http2 import StingyClient
from tests.memory import MIB, memory, settled
from tests.servers import Server
from tests.waiting import until
from tests.wire.calls import TIMEOUT, read_refusal
from tests.wire.inprocess import run

LIST = "/comity.v1.StateService/List"
PUT = "/comity.v1.StateService/Put"
HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


@pytest.fixture
def own() -> Iterator[Server]:
    with servers.start() as running:
        yield running


@pytest.fixture
async def state(own: Server) -> AsyncIterator["state_pb2_grpc.StateServiceAsyncStub"]:
    async with grpc.aio.insecure_channel(own.address) as channel:
        yield state_pb2_grpc.StateServiceStub(channel)


async def test_answers_that_nobody_takes_off_are_bounded(
    own: Server, state: "state_pb2_grpc.StateServiceAsyncStub"
) -> None:
    for key in "ab":
        await state.Put(s.PutRequest(namespace="n", key=key, value=bytes(MIB - 1024)))
    request = s.ListRequest(namespace="n").SerializeToString()
    async with StingyClient(own.address) as stingy:
        before = memory(own)
        for _ in range(500):
            await stingy.call(LIST, request)
        assert await settled(own, state) - before < 250 * MIB, "all of the answers are 1,000 MiB"
        answer = await state.List(s.ListRequest(namespace="n"), timeout=TIMEOUT)
        assert [entry.key for entry in answer.entries] == ["a", "b"]


async def test_requests_that_are_not_finished_are_bounded(
    own: Server, state: "state_pb2_grpc.StateServiceAsyncStub"
) -> None:
    request = bytes(4 * MIB)
    async with StingyClient(own.address) as stingy:
        before = memory(own)
        calls = [asyncio.create_task(stingy.call(PUT, request, withheld=100)) for _ in range(200)]
        assert await settled(own, state) - before < 200 * MIB, "all of the requests are 800 MiB"
        await state.Put(s.PutRequest(namespace="n", key="k"), timeout=TIMEOUT)
        for call in calls:
            call.cancel()


async def test_a_request_that_does_not_come_makes_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "REQUEST_SECONDS", 0.1)
    request = s.PutRequest(namespace="n", key="k").SerializeToString()
    async with run(max_connection_bytes=1) as running, StingyClient(running.server.addresses[0]) as stingy:
        slow = [await stingy.call(PUT, request, withheld=1) for _ in range(3)]
        await stingy.call(PUT, request)
        await until(lambda: running.store.commits_begun == 1)
        assert stingy.ended >= set(slow)


async def test_what_waits_for_room_is_refused_at_the_end() -> None:
    async with run(max_connection_bytes=1) as running:
        running.store.gate.clear()
        puts = [
            asyncio.ensure_future(running.state.Put(s.PutRequest(namespace="n", key="k"), timeout=TIMEOUT))
            for _ in range(4)
        ]
        await until(lambda: running.store.commits_begun == 1)
        stopping = asyncio.create_task(running.server.stop())
        await until(lambda: sum(put.done() for put in puts) == 3)
        running.store.gate.set()
        await stopping
        failed = [error for put in puts if (error := put.exception())]
        assert len(failed) == 3
        for error in failed:
            assert isinstance(error, grpc.aio.AioRpcError)
            assert read_refusal(error).reason == "DRAINING"
        assert running.store.commits_begun == 1


async def test_watches_that_are_not_read_are_bounded(
    own: Server, state: "state_pb2_grpc.StateServiceAsyncStub"
) -> None:
    for number in range(4):
        await state.Put(s.PutRequest(namespace="n", key=f"{number}", value=bytes(MIB - 1024)), timeout=TIMEOUT)
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 65_536),
    ]
    async with grpc.aio.insecure_channel(own.address, options=options) as channel:
        watching: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)
        before = await settled(own, state)
        watches = [watching.Watch(s.WatchRequest(namespace="n", prefix="", from_revision=1)) for _ in range(100)]
        for watch in watches:
            await watch.read()
        assert await settled(own, state) - before < 80 * MIB, "all of the messages are 200 MiB"


async def refused_put(state: "state_pb2_grpc.StateServiceAsyncStub", value: bytes) -> None:
    await state.Put(s.PutRequest(namespace="n", key="k", value=value), timeout=TIMEOUT)


async def refused_transact(state: "state_pb2_grpc.StateServiceAsyncStub", value: bytes) -> None:
    put = s.Operation(put=s.PutOperation(key="k", value=value))
    await state.Transact(s.TransactRequest(namespace="n", then=[put]), timeout=TIMEOUT)


async def refused_pipeline(state: "state_pb2_grpc.StateServiceAsyncStub", value: bytes) -> None:
    pipeline = state.Pipeline(timeout=TIMEOUT)
    operation = s.PipelineOperation(id=1, kind=s.PIPELINE_KIND_PUT, key="k", value=value)
    await pipeline.write(s.PipelineRequest(namespace="No", operations=[operation]))
    await pipeline.read()


@pytest.mark.parametrize("ask", [refused_put, refused_transact, refused_pipeline])
async def test_refused_requests_are_not_kept(
    own: Server,
    state: "state_pb2_grpc.StateServiceAsyncStub",
    ask: "Callable[[state_pb2_grpc.StateServiceAsyncStub, bytes], Awaitable[None]]",
) -> None:
    before = await settled(own, state)
    for _ in range(60):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await ask(state, bytes(4 * MIB))
        assert read_refusal(error.value).reason == "INVALID_REQUEST"
    assert await settled(own, state) - before < 60 * MIB, "all of them are 240 MiB"


async def test_requests_of_many_connections_are_bounded(tmp_path: Path) -> None:
    """By what all together may take up, which takes nothing from another principal."""
    tokens = write_tokens(tmp_path / "tokens", ("greedy", "other"))
    metadata = shown("other")
    request = bytes(4 * MIB)
    async with AsyncExitStack() as stack:
        own = stack.enter_context(servers.start("--max-bytes", f"{50 * MIB}", "--tokens", str(tokens)))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(own.address))
        state: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)
        get = s.GetRequest(namespace="n", key="k")
        await state.Get(get, timeout=TIMEOUT, metadata=metadata)
        before = memory(own)
        clients, calls = [], []
        for _ in range(40):
            client = StingyClient(own.address, ("authorization", f"Bearer {token_of('greedy')}"))
            clients.append(await stack.enter_async_context(client))
            calls.append(asyncio.create_task(client.call(PUT, request, withheld=100)))
        stack.callback(lambda: [call.cancel() for call in calls])
        await until(lambda: sum(len(client.ended) for client in clients) >= 30)
        for _ in range(500):
            await state.Get(get, timeout=TIMEOUT, metadata=metadata)
        assert memory(own) - before < 90 * MIB, "all of the requests are 160 MiB"


@pytest.mark.parametrize("method", [HEALTH, REFLECTION])
async def test_requests_of_nobody_in_particular_are_bounded(own: Server, method: str) -> None:
    """Who needs not say who it is has a little room, which is nobody else's."""
    request = bytes(4 * MIB)
    async with AsyncExitStack() as stack:
        before = memory(own)
        clients, calls = [], []
        for _ in range(30):
            client = await stack.enter_async_context(StingyClient(own.address))
            clients.append(client)
            calls += [asyncio.create_task(client.call(method, request, withheld=100)) for _ in range(2)]
        stack.callback(lambda: [call.cancel() for call in calls])
        await until(lambda: sum(len(client.ended) for client in clients) >= 40)
        assert memory(own) - before < 100 * MIB, "all of the requests are 240 MiB"
