"""What a server refuses for now, or for good, though it can be reached: by a gRPC server that says so."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_health.v1 import health
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

import comity
from comity.v1 import lease_pb2, namespace_pb2, state_pb2
from comity.v1.lease_pb2_grpc import LeaseServiceServicer, add_LeaseServiceServicer_to_server
from comity.v1.namespace_pb2_grpc import NamespaceServiceServicer, add_NamespaceServiceServicer_to_server
from comity.v1.state_pb2_grpc import StateServiceServicer, add_StateServiceServicer_to_server
from tests.waiting import until

Context = grpc.aio.ServicerContext[Any, Any]

TTL = 100  # seconds: no lease ends of itself
DELAY = 0.15  # seconds that the server asks for


class Refusing(StateServiceServicer, NamespaceServiceServicer, LeaseServiceServicer):
    """Answers the next calls with errors, and those after them with what there is."""

    def __init__(self) -> None:
        self.errors: deque[tuple[grpc.StatusCode, list[Message]]] = deque()
        self.calls: list[float] = []  # when
        self.renewed: list[int] = []  # leases

    def limit(self, seconds: float, times: int = 1) -> None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(seconds * 1000))
        info = error_details_pb2.ErrorInfo(reason="RATE_LIMITED", domain="comity")
        self.errors.extend([(grpc.StatusCode.RESOURCE_EXHAUSTED, [info, retry])] * times)

    async def _enter(self, context: Context) -> None:
        self.calls.append(asyncio.get_running_loop().time())
        if not self.errors:
            return
        code, details = self.errors.popleft()
        status = status_pb2.Status(code=code.value[0])
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        await context.abort(code, "refused", (("grpc-status-details-bin", status.SerializeToString()),))

    async def Get(self, request: state_pb2.GetRequest, context: Context) -> state_pb2.GetResponse:
        await self._enter(context)
        return state_pb2.GetResponse()

    async def Watch(self, request: state_pb2.WatchRequest, context: Context) -> AsyncIterator[state_pb2.WatchResponse]:
        await self._enter(context)
        yield state_pb2.WatchResponse(created=True, revision=1, epoch="e")
        await asyncio.Event().wait()

    async def Pipeline(
        self, requests: AsyncIterator[state_pb2.PipelineRequest], context: Context
    ) -> AsyncIterator[state_pb2.PipelineResponse]:
        async for _ in requests:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED)
        yield state_pb2.PipelineResponse()

    async def DeleteNamespace(
        self, request: namespace_pb2.DeleteNamespaceRequest, context: Context
    ) -> namespace_pb2.DeleteNamespaceResponse:
        await self._enter(context)
        return namespace_pb2.DeleteNamespaceResponse()

    async def KeepAlive(
        self, requests: AsyncIterator[lease_pb2.KeepAliveRequest], context: Context
    ) -> AsyncIterator[lease_pb2.KeepAliveResponse]:
        """Errors are for lease 2."""
        async for request in requests:
            if request.lease_id == 2 and self.errors:
                self.renewed.clear()
                await self._enter(context)
            self.renewed.append(request.lease_id)
            response = lease_pb2.KeepAliveResponse(namespace=request.namespace, lease_id=request.lease_id)
            response.ttl.seconds = TTL
            yield response


@contextlib.asynccontextmanager
async def refusing() -> AsyncIterator[tuple[str, Refusing]]:
    server = grpc.aio.server()
    servicer = Refusing()
    add_StateServiceServicer_to_server(servicer, server)
    add_NamespaceServiceServicer_to_server(servicer, server)
    add_LeaseServiceServicer_to_server(servicer, server)
    add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", servicer
    finally:
        await server.stop(None)


async def test_where_there_is_no_room_calls_wait_for_as_long_as_the_server_says() -> None:
    async with refusing() as (address, server), refusing() as (other, idle):
        async with comity.connect(f"{address},{other}", timeout=60) as state:
            for call in (lambda: state.get("a"), lambda: state.watch().ready(), state.delete_namespace):
                server.calls.clear()
                server.limit(DELAY, times=2)
                await call()
                first, second, third = server.calls
                assert second - first >= DELAY
                assert third - second >= DELAY
        assert not idle.calls  # nothing is wrong with the first one


async def test_who_cannot_wait_for_so_long_is_told_at_once() -> None:
    async with refusing() as (address, server), comity.connect(address, timeout=20) as state:
        for call in (lambda: state.get("a"), lambda: state.watch().ready(), state.delete_namespace):
            server.limit(30.0)
            with pytest.raises(comity.RateLimited) as raised:
                await asyncio.wait_for(call(), 10)
            assert raised.value.retry_after == 30.0
            assert raised.value.reason == "RATE_LIMITED"
            assert isinstance(raised.value, comity.ResourceExhausted)


async def test_what_cannot_be_repeated_is_where_the_server_did_not_take_it() -> None:
    async with refusing() as (address, server), comity.connect(address, timeout=60) as state:
        draining = error_details_pb2.ErrorInfo(reason="DRAINING", domain="comity")
        server.errors.append((grpc.StatusCode.UNAVAILABLE, [draining]))
        await state.delete_namespace()
        assert len(server.calls) == 2
        server.errors.append((grpc.StatusCode.UNAVAILABLE, []))  # who knows what it did
        with pytest.raises(comity.Unavailable):
            await state.delete_namespace()
        assert len(server.calls) == 3


async def test_a_quota_is_no_lack_of_room() -> None:
    async with refusing() as (address, server), comity.connect(address, timeout=20) as state:
        server.errors.append((grpc.StatusCode.RESOURCE_EXHAUSTED, []))
        with pytest.raises(comity.ResourceExhausted) as raised:
            await state.get("a")
        assert type(raised.value) is comity.ResourceExhausted
        assert len(server.calls) == 1


async def test_a_lease_that_may_not_be_kept_alive_any_more_is_lost_alone() -> None:
    async with refusing() as (address, server), comity.connect(address, namespace="n") as state:
        kept, denied = await state.keep_alive(1, ttl=TTL), await state.keep_alive(2, ttl=TTL)
        info = error_details_pb2.ErrorInfo(
            reason="PERMISSION_DENIED",
            domain="comity",
            metadata={"namespace": "n", "lease_id": "2", "principal": "ann"},
        )
        server.errors.append((grpc.StatusCode.PERMISSION_DENIED, [info]))
        await until(lambda: not denied.alive)
        with pytest.raises(comity.LeaseLost, match="refused"):
            denied.check()
        await until(lambda: server.renewed == [1])  # on another stream, where all begin anew
        assert kept.alive
