"""Mixed work through the pipeline, from a raw stub, beside etcd doing the same through unary calls.

Of 100 operations 36 are puts, 12 puts with a condition, 50 reads and 2 transactions of five puts, with values of 100
bytes over 10,000 keys. Comity is sent messages that were made before, each with 64 operations, on four streams of one
connection; the client parses the answers and counts them. etcd is sent the same kinds of operations by h2load, each
kind by itself, 64 at a time on each of four connections, and its rate for the mixture is put together from theirs. A
row says whether the writes have request ids: etcd has nothing of the kind. Ratios are of rates in the same round.
"""

import asyncio
import contextlib
import itertools
import random
import statistics
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

import grpc

from benchmarks.options import Options
from benchmarks.peers import comity, etcd, h2load
from benchmarks.peers.process import Missing, Process
from benchmarks.report import Column, Report
from comity.v1 import state_pb2

VALUE: Final = b"v" * 100
KEYS: Final = 10_000
SHARES: Final = {"put": 36, "put if": 12, "get": 50, "transaction": 2}
KEYS_OF_ONE: Final = 5  # transaction
OPERATIONS: Final = 64  # of a message
STREAMS: Final = 4
AHEAD: Final = 8  # messages of a stream that are not answered
METHOD: Final = "/comity.v1.StateService/Pipeline"


class Round(NamedTuple):
    """Operations in a second, how long a message or a call took, and processor time for each operation, in seconds."""

    rate: float
    p50: float
    p99: float
    server: float
    client: float | None


Peer = Callable[[], Awaitable[Round]]


async def run(options: Options) -> Report:
    report = Report()
    rounds, operations = options.of((5, 64_000), (2, 2_560))
    found: dict[str, list[Round]] = {}
    async with contextlib.AsyncExitStack() as stack:
        peers: dict[str, Peer] = {}
        for store in ("memory:", f"sqlite:{options.folder / 'pipeline.db'}"):
            if not options.wants(f"comity {store.partition(':')[0]}"):
                continue
            serving = stack.enter_context(comity.serve(store))
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(serving.address))
            for what, named in (("", False), (", request ids", True)):
                name = f"comity {store.partition(':')[0]}{what}"
                peers[name] = _pipeline(channel, serving.process, operations // STREAMS, named=named)
        try:
            if not options.wants("etcd"):
                raise Missing("etcd is left out: it was not asked for")
            h2load.check()
            serving_etcd = stack.enter_context(etcd.serve(options.folder / "etcd"))
            peers["etcd"] = _unary(serving_etcd, operations // 8)
        except Missing as missing:
            report.note(str(missing))
        for peer in peers.values():
            await peer()  # so that all is warm, and the keys exist
        for _ in range(rounds):
            for name, peer in peers.items():
                found.setdefault(name, []).append(await peer())
    table = report.table(
        f"mixed operations: the median of {rounds} rounds of {operations:,}",
        "what",
        Column("rate", "per second"),
        Column("to etcd", "ratio"),
        Column("p50", "s"),
        Column("p99", "s"),
        Column("server, each", "s"),
        Column("client, each", "s"),
    )
    base = found.get("etcd")
    for name, cells in found.items():
        ratios = [cell.rate / other.rate for cell, other in zip(cells, base, strict=True)] if base else []
        clients = [cell.client for cell in cells if cell.client is not None]
        table.add(
            name,
            statistics.median(cell.rate for cell in cells),
            statistics.median(ratios) if ratios else None,
            *(statistics.median(getattr(cell, figure) for cell in cells) for figure in ("p50", "p99", "server")),
            statistics.median(clients) if clients else None,
        )
    report.note(f"p50 and p99 are of a message of {OPERATIONS} operations, and for etcd of a call: a put")
    return report


# Comity


def _pipeline(channel: grpc.aio.Channel, server: Process, operations: int, *, named: bool) -> Peer:
    """Rounds of so many operations on each stream."""
    namespace = f"bench-{uuid.uuid4().hex}"
    seeds = itertools.count()

    async def measure() -> Round:
        loads = [_messages(namespace, operations, random.Random(next(seeds)), named) for _ in range(STREAMS)]
        busy, own = server.processor_seconds(), time.process_time()
        began = time.perf_counter()
        times = await asyncio.gather(*(_stream(channel, messages) for messages in loads))
        took = time.perf_counter() - began
        count = operations * STREAMS
        places = statistics.quantiles(itertools.chain(*times), n=100)
        return Round(
            count / took,
            places[49],
            places[98],
            (server.processor_seconds() - busy) / count,
            (time.process_time() - own) / count,
        )

    return measure


def _messages(namespace: str, operations: int, random: random.Random, named: bool) -> Sequence[bytes]:
    kinds = random.choices(list(SHARES), list(SHARES.values()), k=operations)
    messages = []
    for start in range(0, operations, OPERATIONS):
        message = state_pb2.PipelineRequest(awaited=max(1, start - OPERATIONS * 2 * AHEAD))
        if not start:
            message.namespace = namespace
            message.client = str(uuid.uuid4()) if named else ""
        for id, kind in enumerate(kinds[start : start + OPERATIONS], start + 1):
            _fill(message.operations.add(), id, kind, random)
        messages.append(message.SerializeToString())
    return messages


def _fill(operation: state_pb2.PipelineOperation, id: int, kind: str, random: random.Random) -> None:
    operation.id = id
    match kind:
        case "get":
            operation.kind = state_pb2.PIPELINE_KIND_GET
            operation.key = _key(random)
        case "transaction":
            operation.kind = state_pb2.PIPELINE_KIND_TRANSACT
            for key in {_key(random) for _ in range(KEYS_OF_ONE)}:
                put = operation.transact.then.add().put
                put.key = key
                put.value = VALUE
        case _:
            operation.kind = state_pb2.PIPELINE_KIND_PUT
            operation.key = _key(random)
            operation.value = VALUE
            operation.if_version = 1 if kind == "put if" else 0


def _key(random: random.Random) -> str:
    return f"key-{random.randrange(KEYS)}"


async def _stream(channel: grpc.aio.Channel, messages: Sequence[bytes]) -> Sequence[float]:
    """Send all messages, some ahead of their answers, and return how long each took to be answered in full."""
    call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(METHOD)()
    left: deque[tuple[float, int]] = deque()  # when each message was sent, and the last of its ids
    times: list[float] = []
    sent = answered = 0
    while answered < len(messages) * OPERATIONS:
        while sent < len(messages) and sent * OPERATIONS - answered < AHEAD * OPERATIONS:
            left.append((time.perf_counter(), (sent + 1) * OPERATIONS))
            await call.write(messages[sent])
            sent += 1
        data: Any = await call.read()
        if data is grpc.aio.EOF:
            raise ConnectionError(f"the stream ended: {await call.code()}: {await call.details()}")
        answered += len(state_pb2.PipelineResponse.FromString(data).results)
        while left and left[0][1] <= answered:
            times.append(time.perf_counter() - left.popleft()[0])
    await call.done_writing()
    return times


# etcd


def _unary(server: etcd.Etcd, calls: int) -> Peer:
    """Rounds of so many calls of each kind."""
    keys = [b"key-%d" % number for number in range(KEYS_OF_ONE)]
    kinds = {
        "put": (etcd.PUT, etcd.put(keys[0], VALUE)),
        "put if": (etcd.TXN, etcd.put_if_version(keys[1], VALUE, 1)),
        "get": (etcd.RANGE, etcd.get(keys[0])),
        "transaction": (etcd.TXN, etcd.put_all(keys, VALUE)),
    }

    async def measure() -> Round:
        seconds = busy = 0.0
        loads: dict[str, h2load.Load] = {}
        for kind, (method, message) in kinds.items():
            before = server.process.processor_seconds()
            load = await h2load.run(
                server.address, method, message, calls=calls, connections=STREAMS, concurrent=OPERATIONS
            )
            share = SHARES[kind] / 100
            seconds += share / load.rate
            busy += share * (server.process.processor_seconds() - before) / calls
            loads[kind] = load
        return Round(1 / seconds, loads["put"].p50, loads["put"].p99, busy, None)

    return measure
