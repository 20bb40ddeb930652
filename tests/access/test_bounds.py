"""How much may be open, and for how long: what is beyond it is shed, and others are served."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from comity.v1 import lease_pb2, lease_pb2_grpc, state_pb2_grpc
from comity.v1 import state_pb2 as s
from comity_server.access import anybody
from comity_server.access.limits import Table
from tests.access.believing import as_principals, by, refused
from tests.waiting import until
from tests.wire.calls import TIMEOUT, Refusal, read_refusal
from tests.wire.inprocess import Running, run
from tests.wire.pipes import put

PUT = s.PutRequest(namespace="n", key="k")
GET = s.GetRequest(namespace="n", key="k")
WATCH = s.WatchRequest(namespace="n", prefix="")
HEALTH = health_pb2.HealthCheckRequest()
REFLECT = reflection_pb2.ServerReflectionRequest(list_services="")


async def held(running: Running, count: int, **call: Any) -> list[asyncio.Task[Any]]:
    """So many puts that are not answered while the store's gate is closed."""
    before = running.server.calls.unary_calls
    running.store.gate.clear()
    puts = [asyncio.ensure_future(running.state.Put(PUT, timeout=TIMEOUT, **call)) for _ in range(count)]
    await until(lambda: running.server.calls.unary_calls == before + count)
    return puts


def is_shed(answer: Refusal, limit: str, of: str, most: int) -> None:
    assert (answer.code, answer.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS")
    assert answer.metadata == {"limit": limit, "of": of, "most": str(most)}
    assert answer.retry_after == 0.25


async def test_calls_beyond_what_may_be_open_are_shed() -> None:
    async with run(max_calls=5) as running:
        puts = await held(running, 5)
        for call in (running.state.Get(GET, timeout=TIMEOUT), running.state.Watch(WATCH, timeout=TIMEOUT).read()):
            is_shed(await refused(call), "max_calls", "", 5)
        assert (await running.health.Check(HEALTH, timeout=TIMEOUT)).status == health_pb2.HealthCheckResponse.SERVING
        watch = running.health.Watch(HEALTH)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        running.store.gate.set()
        await asyncio.gather(*puts)
        await until(lambda: not running.server._access.bounds.open)
        await running.state.Get(GET, timeout=TIMEOUT)
        assert running.server._tally.shed == {"max_calls": 2}


async def test_calls_of_a_principal_leave_room_for_others() -> None:
    async with run(max_principal_calls=3) as running:
        as_principals(running)
        puts = await held(running, 3, metadata=by("a"))
        is_shed(await refused(running.state.Get(GET, timeout=TIMEOUT, metadata=by("a"))), "max_principal_calls", "a", 3)
        await running.state.Get(GET, timeout=TIMEOUT, metadata=by("b"))
        await running.state.Watch(WATCH, timeout=TIMEOUT, metadata=by("a")).read()
        puts.pop().cancel()
        await until(lambda: running.server._access.bounds.open < 4)
        await running.state.Get(GET, timeout=TIMEOUT, metadata=by("a"))
        running.store.gate.set()
        await asyncio.gather(*puts)


async def test_where_nobody_is_known_an_address_counts() -> None:
    async with run(max_principal_calls=1) as running:
        puts = await held(running, 1)
        answer = await refused(running.state.Get(GET, timeout=TIMEOUT))
        is_shed(answer, "max_principal_calls", "127.0.0.1", 1)
        running.store.gate.set()
        await asyncio.gather(*puts)


async def test_streams_of_a_principal_leave_room_for_others() -> None:
    async with (
        run(max_principal_streams=3) as running,
        grpc.aio.insecure_channel(running.server.addresses[0]) as channel,
    ):
        as_principals(running)
        leases: lease_pb2_grpc.LeaseServiceAsyncStub = lease_pb2_grpc.LeaseServiceStub(channel)
        pipe = running.state.Pipeline(metadata=by("a"))
        await pipe.write(s.PipelineRequest(namespace="n", operations=[put("k", id=1)]))
        await pipe.read()
        renewals = leases.KeepAlive(metadata=by("a"))
        await renewals.write(lease_pb2.KeepAliveRequest(namespace="n", lease_id=1))
        await renewals.read()
        watch = running.state.Watch(WATCH, metadata=by("a"))
        await watch.read()
        for another in (running.state.Watch(WATCH, metadata=by("a")), running.state.Pipeline(metadata=by("a"))):
            is_shed(await refused(another.read()), "max_principal_streams", "a", 3)
        await running.state.Watch(WATCH, metadata=by("b")).read()
        await running.state.Get(GET, timeout=TIMEOUT, metadata=by("a"))
        for each in (pipe, renewals, watch):
            each.cancel()
        await until(lambda: running.server._access.bounds.open <= 1)
        await running.state.Watch(WATCH, metadata=by("a")).read()


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("grpc.health.v1.Health/Watch", HEALTH),
        ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", REFLECT),
    ],
)
@pytest.mark.parametrize("of", ["OF_CONNECTION", "OF_ADDRESS"])
async def test_streams_that_need_no_identity_are_bounded(
    of: str, path: str, request_: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before they have said what they ask for, which they may put off. A check of health is answered all the same."""
    monkeypatch.setattr(anybody, of, 3)
    async with run() as running, AsyncExitStack() as stack:
        channels = []
        for number in range(4):
            options = [("grpc.channel_id", number if of == "OF_ADDRESS" else 0)]
            channel = grpc.aio.insecure_channel(running.server.addresses[0], options=options)
            channels.append(await stack.enter_async_context(channel))
        calls: list[Any] = [channel.stream_stream(f"/{path}")() for channel in channels[:3]]
        for call in calls:
            await call.write(request_.SerializeToString())
            assert await call.read()
        late: Any = channels[3].stream_stream(f"/{path}")(timeout=TIMEOUT)
        is_shed(await refused(late.read()), "anybody_calls", "127.0.0.1", 3)
        assert (await running.health.Check(HEALTH, timeout=TIMEOUT)).status == health_pb2.HealthCheckResponse.SERVING
        await running.state.Get(GET, timeout=TIMEOUT)
        await running.state.Watch(WATCH, timeout=TIMEOUT).read()
        calls[0].cancel()

        async def has_room() -> bool:
            call: Any = channels[3].stream_stream(f"/{path}")()
            try:
                await call.write(request_.SerializeToString())
                return bool(await call.read())
            except grpc.aio.AioRpcError:
                return False

        await until(has_room)


async def test_reflection_counts_as_streams_of_its_address() -> None:
    async with run(max_principal_streams=1) as running:
        await running.state.Watch(WATCH).read()
        async with grpc.aio.insecure_channel(running.server.addresses[0]) as channel:
            call: Any = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")(
                timeout=TIMEOUT
            )
            is_shed(await refused(call.read()), "max_principal_streams", "127.0.0.1", 1)


async def test_a_table_of_the_policy_bounds_whom_it_names() -> None:
    async with run() as running:
        as_principals(running)
        running.server._access.bounds.use(
            [Table(principals=["guest-*"], max_principal_calls=1, max_principal_streams=0)]
        )
        puts = await held(running, 1, metadata=by("guest-1"))
        answer = await refused(running.state.Get(GET, timeout=TIMEOUT, metadata=by("guest-1")))
        is_shed(answer, "max_principal_calls", "guest-1", 1)
        await running.state.Get(GET, timeout=TIMEOUT, metadata=by("guest-2"))
        running.server._access.bounds.use([])
        await running.state.Get(GET, timeout=TIMEOUT, metadata=by("guest-1"))
        running.store.gate.set()
        await asyncio.gather(*puts)


async def test_a_burst_of_calls_is_answered_or_shed() -> None:
    """From several connections: nothing but the bound refuses them, and nothing is counted as open afterwards."""
    async with run(max_calls=50) as running, AsyncExitStack() as stack:
        running.store.gate.clear()
        puts = []
        for number in range(4):
            options = [("grpc.channel_id", number)]
            channel = grpc.aio.insecure_channel(running.server.addresses[0], options=options)
            await stack.enter_async_context(channel)
            stub: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)
            puts += [asyncio.ensure_future(stub.Put(PUT, timeout=60)) for _ in range(200)]
        await until(lambda: sum(each.done() for each in puts) == len(puts) - 50)
        running.store.gate.set()
        ended = await asyncio.gather(*puts, return_exceptions=True)
        failed = [read_refusal(each) for each in ended if isinstance(each, BaseException)]
        assert len(failed) == len(puts) - 50
        assert {each.reason for each in failed} == {"TOO_MANY_CALLS"}
        await until(lambda: not running.server._access.bounds.open)


@pytest.fixture
async def hurried() -> AsyncIterator[Running]:
    """No call may take longer than a moment."""
    async with run(max_deadline=0.2) as running:
        yield running


async def test_a_call_ends_after_the_largest_deadline(hurried: Running) -> None:
    watch = hurried.state.Watch(WATCH)
    await watch.read()
    hurried.store.gate.clear()
    for timeout in (None, TIMEOUT):
        answer = await refused(hurried.state.Put(PUT, timeout=timeout))
        assert answer.code == grpc.StatusCode.DEADLINE_EXCEEDED
        assert answer.reason in ("DEADLINE_REACHED", "DEADLINE_PASSED")
    hurried.store.gate.set()
    seen = await watch.read()
    assert isinstance(seen, s.WatchResponse)
    assert seen.revision == 1, "the first one was begun, and the stream has no deadline"
    assert (await hurried.state.Get(GET, timeout=TIMEOUT)).entry.version == 1, "the second one never was"


async def test_what_its_client_waits_for_no_more_is_not_begun() -> None:
    async with run() as running:
        first = await held(running, 1)
        await until(lambda: running.store.commits_begun == 1)
        answer = await refused(running.state.Put(s.PutRequest(namespace="n", key="late"), timeout=0.2))
        assert answer.code == grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: running.server.calls.unary_calls == 1)
        running.store.gate.set()
        await asyncio.gather(*first)
        found = await running.state.Get(s.GetRequest(namespace="n", key="late"), timeout=TIMEOUT)
        assert not found.HasField("entry")
        assert running.store.commits_begun == 1


async def test_what_ends_in_any_way_is_open_no_more() -> None:
    async with run(max_principal_calls=2) as running:
        for _ in range(5):
            await refused(running.state.Put(s.PutRequest(namespace="NOT A NAME", key="k"), timeout=TIMEOUT))
            await refused(running.state.Watch(s.WatchRequest(namespace="NOT A NAME"), timeout=TIMEOUT).read())
        [put] = await held(running, 1)
        put.cancel()
        running.store.gate.set()
        await until(lambda: not running.server._access.bounds.open)
        assert not running.server._access.bounds._calls
        assert not running.server._access.bounds._streams
