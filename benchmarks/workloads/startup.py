"""A start with a million keys, and the memory of a key, beside a redis-server that holds the same data.

Both are timed from the start of the process to its first answer, and both read a file that they wrote themselves:
Comity its sqlite file, Redis its append-only file, as it was written and after a rewrite. Comity is measured with keys
that were written a thousand in a commit, and with a commit for each key, of which it keeps the newest 100,000. Memory
is what the process has resident after the start, less what it has when it is empty. Values have 100 bytes.
"""

import asyncio
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import grpc

from benchmarks import filling
from benchmarks.options import Options
from benchmarks.peers import comity, redis
from benchmarks.peers.process import Missing
from benchmarks.report import Column, Report, ratio
from comity.v1 import state_pb2, state_pb2_grpc
from comity_server.limits import Limits, Retention
from comity_server.stores.sqlite.store import SqliteStore

NAMESPACE = "bench"


class Start(NamedTuple):
    """How one start went."""

    seconds: float
    memory: int


async def run(options: Options) -> Report:
    report = Report()
    keys, runs = options.of((1_000_000, 3), (2_000, 1))
    starts: dict[str, Callable[[], Start]] = {}

    for name, put in (("a thousand keys a commit", filling.put), ("a key a commit", filling.put_singly)):
        path = options.folder / f"{put.__name__}.db"
        store = SqliteStore(path, Limits())
        await store.open()
        await put(store, NAMESPACE, map(filling.key, range(keys)))
        await store.retain(NAMESPACE, Retention())
        await store.close()
        starts[f"comity, {name}"] = _comity(path, keys)
    del store
    empty = {"comity": _comity(options.folder / "empty.db", 0)}
    try:
        starts |= _write_redis(options.folder, keys)
        empty["redis"] = _redis(options.folder / "empty", 0)
    except Missing as missing:
        report.note(str(missing))

    found: dict[str, list[Start]] = {}
    for _ in range(runs):  # in turns
        for name, start in (empty | starts).items():
            found.setdefault(name, []).append(await asyncio.to_thread(start))
    _fill(report, keys, {name: _median(each) for name, each in found.items()}, runs)
    return report


def _fill(report: Report, keys: int, found: dict[str, Start], runs: int) -> None:
    table = report.table(
        f"start-up with {keys:,} keys of 100 bytes: the median of {runs} starts",
        "what",
        Column("start", "s"),
        Column("resident", "bytes"),
        Column("per key", "bytes"),
        Column("start to redis", "ratio"),
        Column("per key to redis", "ratio"),
    )
    redis_start = found.get("redis, as written")
    redis_key = _per_key(redis_start, found["redis"], keys) if redis_start else None
    for name, start in found.items():
        kind = name.partition(",")[0]
        if name == kind:
            table.add(f"{name}, empty", start.seconds, start.memory, None, None, None)
            continue
        per_key = _per_key(start, found[kind], keys)
        table.add(
            name,
            start.seconds,
            start.memory,
            per_key,
            ratio(start.seconds, redis_start.seconds if redis_start else None),
            ratio(per_key, redis_key),
        )


def _per_key(start: Start, empty: Start, keys: int) -> float:
    return (start.memory - empty.memory) / keys


def _median(starts: list[Start]) -> Start:
    return Start(
        statistics.median(start.seconds for start in starts), int(statistics.median(start.memory for start in starts))
    )


def _comity(path: Path, keys: int) -> Callable[[], Start]:
    def start() -> Start:
        with comity.serve(f"sqlite:{path}") as server, grpc.insecure_channel(server.address) as channel:
            if keys:
                request = state_pb2.GetRequest(namespace=NAMESPACE, key=filling.key(keys - 1))
                answer = state_pb2_grpc.StateServiceStub(channel).Get(request)
                assert answer.entry.value == filling.VALUE
            return Start(server.start_seconds, server.process.memory())

    return start


def _redis(folder: Path, keys: int) -> Callable[[], Start]:
    def start() -> Start:
        with redis.serve(folder) as server:
            assert server.ask(b"DBSIZE") == b"%d" % keys
            return Start(server.start_seconds, server.process.memory())

    return start


def _write_redis(folder: Path, keys: int) -> dict[str, Callable[[], Start]]:
    """Raises Missing."""
    for name in ("redis", "rewritten"):
        with redis.serve(folder / name) as server:
            server.put((filling.key(number).encode(), filling.VALUE) for number in range(keys))
            if name == "rewritten":
                server.rewrite()
    return {
        "redis, as written": _redis(folder / "redis", keys),
        "redis, rewritten": _redis(folder / "rewritten", keys),
    }
