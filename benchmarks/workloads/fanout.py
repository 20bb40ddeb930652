"""One commit to many watchers: how long until each has it, how many deliveries a second, and the memory of a stream.

Streams are opened by a process of its own, a thousand a connection, which then writes and waits until all have what it
wrote before it writes again. In bursts it writes 64 at a time, for ten thousand streams six, and waits until all have
arrived. Beside it the same from a bare server of grpc.aio, which writes what it is sent to every stream, and nothing
else. The client takes its part of the machine: on two cores it is as busy as the server.
"""

import asyncio
import multiprocessing
import time
import uuid
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import grpc

from benchmarks import measure
from benchmarks.options import Options
from benchmarks.peers import bare, comity
from benchmarks.peers.process import Process
from benchmarks.report import Column, Report, ratio
from comity.v1 import state_pb2
from comity_server.serve import new_event_loop

STREAMS_OF_ONE = 1_000  # connection
BURST = 64  # puts, or as many as make 64,000 deliveries
VALUE = b"v" * 100
WATCH = "/comity.v1.StateService/Watch"
PUT = "/comity.v1.StateService/Put"


class Told(NamedTuple):
    """What the process that watches is told."""

    address: str
    streams: int
    namespace: str  # empty: of the bare server
    commits: int
    bursts: int


class Found(NamedTuple):
    """Seconds from the call to the arrival, of deliveries; and deliveries a second, one by one and in bursts."""

    p50: float
    p99: float
    rate: float
    burst: float


async def run(options: Options) -> Report:
    report = Report()
    table = report.table(
        "a put of 100 bytes to many streams",
        "server",
        Column("streams", "count"),
        Column("p50", "s"),
        Column("p99", "s"),
        Column("deliveries", "per second"),
        Column("to bare", "ratio"),
        Column("in bursts", "per second"),
        Column("those to bare", "ratio"),
        Column("memory a stream", "bytes"),
        Column("memory in all", "bytes"),
    )
    for streams in options.of((1, 100, 1_000, 10_000), (20,)):
        commits = options.of(max(3, min(200, 20_000 // streams)), 3)
        bursts = options.of(max(1, min(10, 2_000 // streams)), 1)
        found: dict[str, tuple[Found, int, int]] = {}
        for name in ("bare grpc.aio", "comity"):
            if name == "comity":
                with comity.serve("memory:", "--max-connection-calls", str(2 * STREAMS_OF_ONE)) as server:
                    told = Told(server.address, streams, f"bench-{uuid.uuid4().hex}", commits, bursts)
                    found[name] = await asyncio.to_thread(_measure, server.process, told)
            else:
                with bare.serve() as other:
                    told = Told(other.address, streams, "", commits, bursts)
                    found[name] = await asyncio.to_thread(_measure, other.process, told)
        base = found["bare grpc.aio"][0]
        for name, (times, memory, whole) in found.items():
            table.add(
                name,
                streams,
                times.p50,
                times.p99,
                times.rate,
                ratio(times.rate, base.rate),
                times.burst,
                ratio(times.burst, base.burst),
                memory / streams if streams >= 100 else None,
                whole,
            )
    return report


def _measure(server: Process, told: Told) -> tuple[Found, int, int]:
    """With what the streams added to the server's memory while they were idle, and what it has in all."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_watch, args=(told, theirs), daemon=True)
    before = server.memory()
    process.start()
    theirs.close()  # so that its end is noticed
    ours.recv()  # all streams are live
    memory = server.memory()
    ours.send(None)
    found: Found = ours.recv()
    process.join()
    return found, memory - before, memory


def _watch(told: Told, pipe: Connection) -> None:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_Watcher(told).run(pipe))


class _Watcher:
    def __init__(self, told: Told) -> None:
        self._told = told
        self._live = 0
        self._arrived = 0
        self._expected = 0
        self._began = 0.0
        self._times: list[float] = []
        self._all = asyncio.Event()
        self._failure: BaseException | None = None

    async def run(self, pipe: Connection) -> None:
        told = self._told
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        channels = [
            grpc.aio.insecure_channel(told.address, options=options) for _ in range(-(-told.streams // STREAMS_OF_ONE))
        ]
        request = b""
        if told.namespace:
            asked = state_pb2.WatchRequest(namespace=told.namespace, prefix="")
            asked.progress_interval.FromSeconds(3600)
            request = asked.SerializeToString()
        count: Callable[[bytes], int] = _commits if told.namespace else _one
        streams = [
            asyncio.create_task(self._stream(channels[number // STREAMS_OF_ONE], request, count))
            for number in range(told.streams)
        ]
        self._expected = told.streams
        for stream in streams:
            stream.add_done_callback(self._ended)
        await self._wait()
        pipe.send(None)
        await asyncio.to_thread(pipe.recv)
        writer = grpc.aio.insecure_channel(told.address, options=options)
        rate = await self._rate(writer, told.commits, 1)
        times = measure.percentiles(self._times)
        burst = await self._rate(writer, told.bursts, min(BURST, BURST * 1_000 // told.streams))
        pipe.send(Found(*times, rate, burst))
        for stream in streams:
            stream.cancel()
        await asyncio.wait(streams)
        for channel in (writer, *channels):
            await channel.close()

    async def _rate(self, channel: grpc.aio.Channel, rounds: int, together: int) -> float:
        """Deliveries a second."""
        began = time.perf_counter()
        for _ in range(rounds):
            self._arrived, self._expected = 0, together * self._told.streams
            self._all.clear()
            self._began = time.perf_counter()
            await asyncio.gather(*(self._put(channel) for _ in range(together)))
            await self._wait()
        return rounds * together * self._told.streams / (time.perf_counter() - began)

    async def _put(self, channel: grpc.aio.Channel) -> None:
        namespace = self._told.namespace
        put: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PUT if namespace else bare.PUT)
        request = state_pb2.PutRequest(namespace=namespace or "bare", key="watched", value=VALUE)
        await put(request.SerializeToString())

    async def _stream(self, channel: grpc.aio.Channel, request: bytes, count: Callable[[bytes], int]) -> None:
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(
            WATCH if self._told.namespace else bare.WATCH
        )
        call: Any = method(request)
        await call.read()  # it is live
        self._count(1)
        while (message := await call.read()) is not grpc.aio.EOF:
            self._times.append(time.perf_counter() - self._began)
            self._count(count(message))

    def _ended(self, stream: "asyncio.Task[None]") -> None:
        if not stream.cancelled():
            self._failure = stream.exception() or ConnectionError("a stream ended")
            self._all.set()

    async def _wait(self) -> None:
        await self._all.wait()
        if self._failure is not None:
            raise self._failure

    def _count(self, arrived: int) -> None:
        self._arrived += arrived
        if self._arrived == self._expected:
            self._all.set()


def _one(_: bytes) -> int:
    return 1


def _commits(message: bytes) -> int:
    return len(state_pb2.WatchResponse.FromString(message).commits)
