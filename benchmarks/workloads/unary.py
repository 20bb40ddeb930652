"""Unary calls of Comity and of etcd, one and 64 at a time, side by side, in rounds that take turns.

The client is the same for all, a channel of grpc.aio, and takes its part of the machine, so read the ratios, not the
rates. etcd and sqlite: write to disk before they answer; memory: does not.
"""

import asyncio
import contextlib
import itertools
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import grpc

from benchmarks.options import Options
from benchmarks.peers import comity, etcd
from benchmarks.peers.process import Missing
from benchmarks.report import Column, Report, ratio
from comity.v1 import state_pb2, state_pb2_grpc

KEYS = 1_000
VALUE = b"v" * 256

Call = Callable[[str], Awaitable[object]]


class Peer(NamedTuple):
    """A server under load: each call takes the key that it is about."""

    put: Call
    get: Call


async def run(options: Options) -> Report:
    report = Report()
    rounds, seconds = options.of((3, 2.0), (1, 0.1))
    async with contextlib.AsyncExitStack() as stack:
        peers = {
            "memory:": await stack.enter_async_context(_comity("memory:")),
            "sqlite:": await stack.enter_async_context(_comity(f"sqlite:{options.folder / 'unary.db'}")),
        }
        try:
            peers["etcd"] = await stack.enter_async_context(_etcd(options))
        except Missing as missing:
            report.note(str(missing))
        table = report.table(
            f"calls a second: the median of {rounds} rounds of {seconds:g} s",
            "calls",
            Column("at a time", "count"),
            *(Column(name, "per second") for name in ("memory:", "sqlite:", "etcd")),
            *(Column(f"{name} to etcd", "ratio") for name in ("memory:", "sqlite:")),
        )
        for name, tasks in (("put", 1), ("put", 64), ("get", 1), ("get", 64)):
            rates: dict[str, list[float]] = {}
            for _ in range(rounds):
                for peer, calls in peers.items():
                    rates.setdefault(peer, []).append(await _rate(getattr(calls, name), tasks, seconds))
            medians = {peer: statistics.median(found) for peer, found in rates.items()}
            memory, sqlite, other = (medians.get(peer) for peer in ("memory:", "sqlite:", "etcd"))
            table.add(name, tasks, memory, sqlite, other, ratio(memory, other), ratio(sqlite, other))
    return report


async def _rate(call: Call, tasks: int, seconds: float) -> float:
    """Calls a second, so many at a time."""
    numbers = itertools.count()
    end = time.perf_counter() + seconds

    async def work() -> int:
        done = 0
        while time.perf_counter() < end:
            await call(f"key-{next(numbers) % KEYS}")
            done += 1
        return done

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        working = [group.create_task(work()) for _ in range(tasks)]
    return sum(task.result() for task in working) / (time.perf_counter() - began)


@contextlib.asynccontextmanager
async def _comity(store: str) -> AsyncIterator[Peer]:
    namespace = f"bench-{uuid.uuid4().hex}"
    with comity.serve(store) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            state = state_pb2_grpc.StateServiceStub(channel)
            yield Peer(
                lambda key: state.Put(state_pb2.PutRequest(namespace=namespace, key=key, value=VALUE)),
                lambda key: state.Get(state_pb2.GetRequest(namespace=namespace, key=key)),
            )


@contextlib.asynccontextmanager
async def _etcd(options: Options) -> AsyncIterator[Peer]:
    with etcd.serve(options.folder / "etcd") as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            put: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(etcd.PUT)
            get: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(etcd.RANGE)
            yield Peer(lambda key: put(etcd.put(key.encode(), VALUE)), lambda key: get(etcd.get(key.encode())))
