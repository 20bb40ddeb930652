"""Much of what HTTP/2 allows, or does not: it costs the server little memory, and others are served meanwhile."""

import asyncio
import contextlib
import gzip
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import grpc
import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from comity.v1 import state_pb2 as s
from comity.v1 import state_pb2_grpc
from tests import servers
from tests.fuzz.examples import SOAK
from tests.http2 import FRAME_BYTES, Connection, StingyClient, framed, request
from tests.memory import MIB, memory
from tests.servers import Server
from tests.waiting import until
from tests.wire.calls import TIMEOUT

GET = "/comity.v1.StateService/Get"
PUT = "/comity.v1.StateService/Put"
WATCH = "/comity.v1.StateService/Watch"
TIMES = 20 if SOAK else 1
AT_ONCE = 200  # frames, between which others have their turn
CONNECTIONS = 3_000 if SOAK else 300  # of which each takes up some 20 KB
ELSEWHERE = "127.0.0.2"  # an address of this machine, of which Linux has many
BOUND = (128 if SOAK else 64) * MIB
NAMESPACE = "floods"

put = s.PutRequest(namespace=NAMESPACE, key="k", value=bytes(1000)).SerializeToString()
watch = s.WatchRequest(namespace=NAMESPACE, prefix="").SerializeToString()

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0 if SOAK else 120)]


@pytest.fixture(scope="module")
def flooded() -> Iterator[Server]:
    with servers.start() as running:
        yield running


@contextlib.asynccontextmanager
async def served(server: Server) -> AsyncIterator[None]:
    """While the block goes on and after it, another client's calls are answered, and the server's memory is bounded."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        state: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)
        answered, most = 0, 0

        async def go_on() -> None:
            nonlocal answered, most
            while True:
                written = await state.Put(s.PutRequest(namespace="other", key="k"), timeout=TIMEOUT)
                read = await state.Get(s.GetRequest(namespace="other", key="k"), timeout=TIMEOUT)
                assert read.entry.mod_revision == written.revision
                answered, most = answered + 1, max(most, memory(server))

        async def answered_now() -> None:
            goal = answered + 2
            await until(lambda: answered >= goal or others.done())

        others = asyncio.create_task(go_on())
        try:
            await answered_now()
            before = memory(server)
            yield
            await answered_now()
            if others.done():
                await others
            assert most - before < BOUND, f"{(most - before) / MIB:.0f} MiB"
            assert server.process.poll() is None
        finally:
            others.cancel()


async def send_often(connection: Connection, count: int, make: Callable[[], list[Frame]]) -> None:
    """Send frames again and again, until the server has read them all, or has enough of it."""
    for _ in range(0, count * TIMES, AT_ONCE):
        if not await connection.send(*(frame for _ in range(AT_ONCE) for frame in make())):
            break
        await asyncio.sleep(0)
    await connection.finish()


def repeating(
    frame: Frame, count: int, *, polite: bool = True, in_call: bool = False
) -> Callable[[str], Awaitable[None]]:
    """A flood of one frame. `in_call`: in a call that was begun, and is on stream 1."""

    async def flood(address: str) -> None:
        async with Connection(address, polite=polite) as connection:
            connection.begin()
            if in_call:
                connection.write(connection.headers(connection.stream(), PUT))
            await send_often(connection, count, lambda: [frame])

    return flood


def resets(method: str, body: bytes = b"") -> Callable[[str], Awaitable[None]]:
    """Calls that are given up as soon as they are begun."""

    async def flood(address: str) -> None:
        async with Connection(address) as connection:
            connection.begin()

            def call() -> list[Frame]:
                stream = connection.stream()
                sent = [DataFrame(stream, framed(body), flags=["END_STREAM"])] if body else []
                return [connection.headers(stream, method), *sent, RstStreamFrame(stream, error_code=8)]

            await send_often(connection, 4_000, call)

    return flood


async def headers_without_end(address: str) -> None:
    """CONTINUATION on CONTINUATION, in all 160 MiB of headers."""
    async with Connection(address) as connection:
        connection.begin()
        connection.write(HeadersFrame(1, connection.encoder.encode(request(GET))))
        more = ContinuationFrame(1, connection.encoder.encode([("x", "y" * FRAME_BYTES)], huffman=False)[:FRAME_BYTES])
        await send_often(connection, 10_000, lambda: [more])


async def header_bombs(address: str) -> None:
    """A header of 4,000 bytes that is told once, and then meant 15,000 times by one byte each: 60 MB a call."""
    async with Connection(address) as connection:
        connection.begin()
        told = connection.encoder.encode([*request(GET), ("x", "b" * 4_000)])
        connection.write(HeadersFrame(connection.stream(), told, flags=["END_HEADERS"]))
        for _ in range(20 * TIMES):
            bomb = connection.encoder.encode(request(GET)) + bytes((0x80 | 62,)) * 15_000
            if not await connection.send(HeadersFrame(connection.stream(), bomb, flags=["END_HEADERS"])):
                break
            await asyncio.sleep(0)
        await connection.finish()


async def gzip_bombs(address: str) -> None:
    """Messages of half a MiB, which are 100 MiB once they are unpacked."""
    bomb = gzip.compress(bytes(100 * MIB), 1)
    async with StingyClient(address) as client:
        for _ in range(TIMES):
            stream = await client.call(PUT, bomb, encoding="gzip")
            await until(lambda stream=stream: stream in client.ended or client.closed.is_set())  # type: ignore[misc]


async def data_beyond_the_window(address: str) -> None:
    async with Connection(address) as connection:
        connection.begin()
        connection.write(connection.headers(connection.stream(), PUT))
        connection.write(DataFrame(1, b"\0" + (4 * MIB).to_bytes(4)))
        await send_often(connection, 10_000, lambda: [DataFrame(1, bytes(FRAME_BYTES))])


async def calls_beyond_those_allowed(address: str) -> None:
    async with Connection(address) as connection:
        connection.begin()
        await send_often(connection, 5_000, lambda: [connection.headers(connection.stream(), PUT)])


async def watches_that_nobody_reads(address: str) -> None:
    async with StingyClient(address) as client:
        for _ in range(500):
            await client.call(WATCH, watch)
        await client.finish()


async def connections_that_say_nothing(address: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(CONNECTIONS):
            await stack.enter_async_context(Connection(address, polite=False))


async def connections_that_only_begin(address: str) -> None:
    """Enough of them take up all the room that there is for requests: then each address has a part."""
    source = ELSEWHERE if sys.platform == "linux" else None  # else they are too few for that
    connections = CONNECTIONS if source else min(CONNECTIONS, 1_000)
    async with contextlib.AsyncExitStack() as stack:
        for number in range(connections):
            connection = await stack.enter_async_context(Connection(address, polite=False, source=source))
            connection.begin()
            if number % 2:
                await connection.send(connection.headers(connection.stream(), PUT))


FLOODS = {
    "settings": repeating(SettingsFrame(settings={SettingsFrame.MAX_CONCURRENT_STREAMS: 100}), 50_000),
    "settings whose answers nobody reads": repeating(SettingsFrame(settings={3: 100}), 50_000, polite=False),
    "pings": repeating(PingFrame(opaque_data=b"12345678"), 4_000),
    "pings whose answers nobody reads": repeating(PingFrame(opaque_data=b"12345678"), 4_000, polite=False),
    "windows": repeating(WindowUpdateFrame(0, window_increment=1), 50_000),
    "windows that overflow": repeating(WindowUpdateFrame(0, window_increment=2**31 - 1), 1_000),
    "windows of a call that overflow": repeating(WindowUpdateFrame(1, window_increment=2**31 - 1), 1_000, in_call=True),
    "priorities": repeating(PriorityFrame(1, depends_on=3, stream_weight=1), 50_000),
    "empty data": repeating(DataFrame(1), 50_000, in_call=True),
    "data of one byte": repeating(DataFrame(1, b"\0"), 50_000, in_call=True),
    "empty headers": repeating(ContinuationFrame(1), 50_000),
    "frames of no kind": repeating(ExtensionFrame(0x77, 0, body=bytes(FRAME_BYTES)), 10_000),
    "resets": resets(PUT),
    "resets of writes": resets(PUT, put),
    "resets of watches": resets(WATCH, watch),
    "headers without end": headers_without_end,
    "header bombs": header_bombs,
    "gzip bombs": gzip_bombs,
    "data beyond the window": data_beyond_the_window,
    "calls beyond those allowed": calls_beyond_those_allowed,
    "watches that nobody reads": watches_that_nobody_reads,
    "connections that say nothing": connections_that_say_nothing,
    "connections that only begin": connections_that_only_begin,
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_holds_up_nobody_else(flooded: Server, flood: str) -> None:
    async with served(flooded):
        with contextlib.suppress(ConnectionError):  # the server may have enough of it at any moment
            await FLOODS[flood](flooded.address)


def test_floods_leave_nothing_in_the_log(flooded: Server) -> None:
    assert [line for line in flooded.log().splitlines() if '"level": "info"' not in line] == []
