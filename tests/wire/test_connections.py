"""Which connections there may be, and how long: bounded in number, and none that is of no use."""

import asyncio
from contextlib import AsyncExitStack

import grpc
import pytest
from hyperframe.frame import DataFrame

import comity
from comity.v1 import state_pb2 as s
from comity.v1 import state_pb2_grpc
from tests.http2 import Connection, framed
from tests.proxy import Proxy
from tests.waiting import until
from tests.wire.calls import TIMEOUT
from tests.wire.inprocess import run

GET = "/comity.v1.StateService/Get"
WATCH = "/comity.v1.StateService/Watch"


async def begun(connection: Connection) -> None:
    """Begin a connection of HTTP/2, which the server lets in or ends."""
    connection.begin()
    await until(lambda: connection.heard.is_set())


async def ask(connection: Connection, method: str, message: bytes) -> int:
    """Begin a call. Returns its stream."""
    stream = connection.stream()
    await connection.send(connection.headers(stream, method), DataFrame(stream, framed(message), flags=["END_STREAM"]))
    return stream


@pytest.mark.parametrize("sent", [b"", b"PRI * HTTP/2.0\r\n", b"GET / HTTP/1.1\r\n\r\n"])
async def test_what_does_not_become_a_connection_of_http2_ends(sent: bytes) -> None:
    async with run(handshake_timeout=0.2) as running, Connection(running.server.addresses[0]) as connection:
        connection.write(sent)
        await connection.closed.wait()


async def test_a_connection_without_calls_ends_and_one_with_a_quiet_call_does_not() -> None:
    async with (
        run(connection_idle=1) as running,
        Connection(running.server.addresses[0]) as watching,
        Connection(running.server.addresses[0]) as idle,
    ):
        await begun(watching)
        watch = s.WatchRequest(namespace="n", prefix="").SerializeToString()
        stream = await ask(watching, WATCH, watch)
        await until(lambda: running.server.calls.streams == 1)
        await begun(idle)
        await idle.closed.wait()
        assert not watching.closed.is_set()
        assert stream not in watching.ended


async def test_connections_beyond_those_allowed_end_at_once() -> None:
    async with run(max_connections=2) as running, AsyncExitStack() as stack:
        address = running.server.addresses[0]
        connections = [await stack.enter_async_context(Connection(address)) for _ in range(5)]
        for connection in connections:
            await begun(connection)
        await until(lambda: sum(one.closed.is_set() for one in connections) == 3)
        kept = [one for one in connections if not one.closed.is_set()]
        request = s.GetRequest(namespace="n", key="k")
        for connection in kept:
            stream = await ask(connection, GET, request.SerializeToString())
            await until(lambda stream=stream, of=connection: stream in of.ended)  # type: ignore[misc]
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await running.state.Get(request, timeout=TIMEOUT)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        await kept[0].finish()
        await running.state.Get(request, timeout=TIMEOUT, wait_for_ready=True)


async def test_a_client_does_not_notice_that_its_idle_connection_ended() -> None:
    async with (
        run(connection_idle=1) as running,
        Proxy(running.server.addresses[0]) as proxy,
        comity.connect(proxy.address, namespace="n") as client,
        grpc.aio.insecure_channel(proxy.address) as channel,
    ):
        stub: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)
        request = s.GetRequest(namespace="n", key="k")
        await running.state.Put(s.PutRequest(namespace="n", key="k"), timeout=TIMEOUT)
        await asyncio.gather(client.checkpoint("a"), stub.Get(request, timeout=TIMEOUT))
        await until(lambda: proxy.open == 0)
        await asyncio.gather(client.checkpoint("b"), client.put("k", 1), stub.Get(request, timeout=TIMEOUT))
        assert proxy.connections == 4
