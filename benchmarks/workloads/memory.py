"""What a key takes up over Redis, there and in a server, beside a plain hash and plain keys of the same data.

Values have 100 bytes. Comity is measured with all of it in the log of the namespace, as it was written, and after a
compaction, when what can still be read is in the base and nothing else is left. Redis is asked for its used_memory, and
a server for what it has resident once it has read the namespace; of both what they have when they are empty is taken
off. The first read is the one for which a server loads the namespace.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import grpc

from benchmarks import filling
from benchmarks.options import Options
from benchmarks.peers import comity, redis
from benchmarks.peers.process import Missing
from benchmarks.report import Column, Report, ratio
from comity.v1 import state_pb2, state_pb2_grpc
from comity_server.limits import Limits
from comity_server.stores.protocol import Store
from comity_server.stores.url import open_store

NAMESPACE = "bench"
OFTEN = 10  # times that a key is written, where there is a history

Fill = Callable[[Store], Awaitable[None]]


class Sizes(NamedTuple):
    """What there is, in bytes, and how long the first read took, in seconds."""

    redis: float
    server: float | None = None
    first_read: float | None = None


async def run(options: Options) -> Report:
    report = Report()
    keys = options.of(100_000, 2_000)
    names = list(map(filling.key, range(keys)))
    often = [name for name in names[: keys // OFTEN] for _ in range(OFTEN)]
    fills: Sequence[tuple[str, int, Fill]] = [
        ("1,000 keys a commit", keys, lambda store: filling.put(store, NAMESPACE, names)),
        ("a key a commit", keys, lambda store: filling.put_singly(store, NAMESPACE, names)),
        (f"keys written {OFTEN} times", keys // OFTEN, lambda store: filling.put_singly(store, NAMESPACE, often)),
    ]
    table = report.table(
        f"{keys:,} writes of 100 bytes: what a key takes up",
        "what",
        Column("keys", "count"),
        Column("in Redis", "bytes"),
        Column("to a hash", "ratio"),
        Column("in a server", "bytes"),
        Column("that to a hash", "ratio"),
        Column("first read", "s"),
    )

    def add(what: str, count: int, found: Sizes) -> None:
        each, unit = found.redis / count, plain.redis / keys
        server = None if found.server is None else found.server / count
        table.add(what, count, each, ratio(each, unit), server, ratio(server, unit), found.first_read)

    try:
        with redis.serve(options.folder / "memory", "--appendfsync", "always") as peer:
            pairs = [(name.encode(), filling.VALUE) for name in names]
            plain = _plain(peer, lambda: peer.put_hash(b"plain", pairs))
            add("redis, a hash", keys, plain)
            add("redis, a key each", keys, _plain(peer, lambda: peer.put(pairs)))
            for what, count, fill in fills:
                written, compacted = await _comity(peer, fill, names[0])
                add(f"{what}: in the log", count, written)
                add(f"{what}: in the base", count, compacted)
    except Missing as missing:
        report.note(str(missing))
    return report


def _used(peer: redis.Redis) -> int:
    return int(peer.info("memory")["used_memory"])


def _plain(peer: redis.Redis, put: Callable[[], None]) -> Sizes:
    peer.ask(b"FLUSHALL")
    empty = _used(peer)
    put()
    return Sizes(_used(peer) - empty)


async def _comity(peer: redis.Redis, fill: Fill, key: str) -> tuple[Sizes, Sizes]:
    """As it was written, and compacted."""
    peer.ask(b"FLUSHALL")
    url = f"redis://127.0.0.1:{peer.port}"
    store = open_store(url, Limits())
    await store.open()
    try:
        empty = _used(peer)
        await fill(store)
        written = _read(url, key, _used(peer) - empty)
        await store.compact(NAMESPACE)
        return written, _read(url, key, _used(peer) - empty)
    finally:
        await store.close()


def _read(url: str, key: str, used: int) -> Sizes:
    with comity.serve(url) as server, grpc.insecure_channel(server.address) as channel:
        get = state_pb2_grpc.StateServiceStub(channel).Get
        get(state_pb2.GetRequest(namespace="empty", key=key))
        empty = server.process.memory()
        began = time.perf_counter()
        answer = get(state_pb2.GetRequest(namespace=NAMESPACE, key=key))
        took = time.perf_counter() - began
        assert answer.entry.value == filling.VALUE
        return Sizes(used, server.process.memory() - empty, took)
