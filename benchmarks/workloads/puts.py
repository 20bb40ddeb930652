"""Durable puts, one at a time: Comity over sqlite beside etcd, on one disk, in rounds that take turns.

Each put is on disk before it is answered, at both. The client is the same for both, a synchronous gRPC channel. The
other rows tell where the time goes: `memory:` does all but the disk, and the last does nothing but append to a file
and wait for the disk.
"""

import contextlib
import os
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc

from benchmarks.options import Options
from benchmarks.peers import comity, etcd
from benchmarks.peers.process import Missing
from benchmarks.report import Column, Report, ratio
from comity.v1 import state_pb2, state_pb2_grpc

VALUE = b"v" * 256
KEYS = 1_000
PAGE = b"p" * 4096

Put = Callable[[str], object]


async def run(options: Options) -> Report:
    report = Report()
    rounds, puts = options.of((15, 400), (2, 20))
    times: dict[str, list[list[float]]] = {}
    with contextlib.ExitStack() as stack:
        peers: dict[str, Put] = {}
        sqlite = f"sqlite:{options.folder / 'puts.db'}"
        peers["comity sqlite:"] = stack.enter_context(_comity(sqlite))
        try:
            peers["etcd"] = stack.enter_context(_etcd(options.folder / "etcd"))
        except Missing as missing:
            report.note(str(missing))
        peers["comity memory:"] = stack.enter_context(_comity("memory:"))
        peers["append and fdatasync"] = stack.enter_context(_disk(options.folder / "disk"))
        for put in peers.values():
            _time(put, puts)  # so that all is warm
        for _ in range(rounds):
            for name, put in peers.items():
                times.setdefault(name, []).append(_time(put, puts))
    table = report.table(
        f"durable puts of 256 bytes, one at a time: {rounds} rounds of {puts}",
        "what",
        Column("p50", "s"),
        Column("p99", "s"),
        Column("p50 to etcd's", "ratio"),
        Column("p99 to etcd's", "ratio"),
    )
    # Of each round its own percentiles, and of these the median: one bad second of the machine decides nothing.
    found = {name: [_across(each, 50), _across(each, 99)] for name, each in times.items()}
    base = found.get("etcd", [None, None])
    for name, (p50, p99) in found.items():
        table.add(name, p50, p99, ratio(p50, base[0]), ratio(p99, base[1]))
    return report


def _across(rounds: list[list[float]], percent: int) -> float:
    return statistics.median(statistics.quantiles(each, n=100)[percent - 1] for each in rounds)


def _time(put: Put, puts: int) -> list[float]:
    times = []
    for number in range(puts):
        began = time.perf_counter()
        put(f"key-{number % KEYS}")
        times.append(time.perf_counter() - began)
    return times


@contextlib.contextmanager
def _comity(store: str) -> Iterator[Put]:
    namespace = f"bench-{uuid.uuid4().hex}"
    with comity.serve(store) as server, grpc.insecure_channel(server.address) as channel:
        put = state_pb2_grpc.StateServiceStub(channel).Put
        yield lambda key: put(state_pb2.PutRequest(namespace=namespace, key=key, value=VALUE))


@contextlib.contextmanager
def _etcd(folder: Path) -> Iterator[Put]:
    with etcd.serve(folder) as server, grpc.insecure_channel(server.address) as channel:
        put: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(etcd.PUT)
        yield lambda key: put(etcd.put(key.encode(), VALUE))


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[Put]:
    sync = getattr(os, "fdatasync", os.fsync)
    with path.open("wb", buffering=0) as file:

        def append(key: str) -> None:
            file.write(PAGE)
            sync(file.fileno())

        yield append
