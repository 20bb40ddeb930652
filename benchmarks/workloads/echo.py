"""One call at a time: Comity's client and stub beside a bare server of grpc.aio that answers with its request.

What Comity adds to a call is what is above the bare server's time; its put and its get are what programs wait for.
"""

import statistics
import uuid

import grpc

from benchmarks import measure
from benchmarks.clients import comity as clients
from benchmarks.options import Options
from benchmarks.peers import bare, comity
from benchmarks.peers.process import Process
from benchmarks.report import Column, Report

VALUE = b"v" * 100


async def run(options: Options) -> Report:
    report = Report()
    rounds, seconds, keys = options.of((9, 0.4, 1_000), (2, 0.02, 20))
    table = report.table(
        f"one at a time: the median of {rounds} rounds of {seconds:g} s",
        "call",
        *measure.COLUMNS,
        Column("p50, to bare", "ratio"),
    )
    namespace = f"bench-{uuid.uuid4().hex}"
    found: dict[str, list[measure.Round]] = {}
    with bare.serve() as server, comity.serve("memory:") as serving:
        async with (
            grpc.aio.insecure_channel(server.address) as channel,
            clients.stub(serving.address, namespace) as stub,
            clients.typed(serving.address, namespace) as typed,
        ):
            echo: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(bare.ECHO)
            calls: dict[str, tuple[measure.Call, Process]] = {
                "bare grpc.aio": (lambda _: echo(VALUE), server.process),
                "stub: get": (lambda number: stub.get(f"key-{number % keys}"), serving.process),
                "stub: put": (lambda number: stub.put(f"key-{number % keys}", VALUE), serving.process),
                "client: get": (lambda number: typed.get(f"key-{number % keys}"), serving.process),
                "client: put": (lambda number: typed.put(f"key-{number % keys}", VALUE), serving.process),
            }
            for number in range(keys):
                await stub.put(f"key-{number}", VALUE)
            for _ in range(rounds):
                for name, (call, process) in calls.items():
                    found.setdefault(name, []).append(await measure.measure(call, 1, seconds, process))
    base = found["bare grpc.aio"]
    for name, cells in found.items():
        ratios = [cell.p50 / other.p50 for cell, other in zip(cells, base, strict=True)]
        table.add(name, *measure.medians(cells), statistics.median(ratios))
    return report
