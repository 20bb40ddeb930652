"""What takes up memory of a server besides keys (a lease, a connection, one by TLS), and what keys take up on disk.

A connection has made one call, and is quiet since. Leases have no keys, and values have 100 bytes. Of each there are
many; what the server has resident, or the file, grows by so much, and is divided by their number.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import grpc
from google.protobuf.duration_pb2 import Duration

from benchmarks import filling
from benchmarks.options import Options
from benchmarks.peers import comity
from benchmarks.report import Column, Report
from comity.v1 import lease_pb2, lease_pb2_grpc, namespace_pb2, namespace_pb2_grpc
from comity_server.limits import Limits
from comity_server.stores.protocol import Store
from comity_server.stores.url import open_store
from tests.authority import Authority

NAMESPACE = "bench"
TOGETHER = 100  # calls, or connections that are made
TTL = Duration(seconds=3600)

Fill = Callable[[Store, str, Iterable[str]], Awaitable[None]]


async def run(options: Options) -> Report:
    report = Report()
    connections, leases, keys = options.of(2_000, 100), options.of(50_000, 500), options.of(100_000, 1_000)
    folder = options.folder / "footprint"
    folder.mkdir(parents=True, exist_ok=True)
    table = report.table("memory of a server", "what", Column("of them", "count"), Column("each", "bytes"))
    try:
        with comity.serve("memory:") as server:
            table.add("a server that has nothing", 1, await _empty(server))
            table.add("a lease", leases, await _leases(server, leases))
            table.add("a connection", connections, await _connections(server, connections, None))
        authority, arguments = _certify(folder)
        with comity.serve("memory:", *arguments) as server:
            table.add("a connection by TLS", connections, await _connections(server, connections, authority))
        table = report.table("the file of a store", "what", Column("of them", "count"), Column("each", "bytes"))
        table.add("a key, a thousand a commit", keys, await _file(folder / "many.db", filling.put, keys))
        table.add("a key, a key a commit", keys, await _file(folder / "single.db", filling.put_singly, keys))
    finally:
        shutil.rmtree(folder)
    return report


async def _file(path: Path, fill: Fill, keys: int) -> float:
    store = open_store(f"sqlite:{path}", Limits())
    await store.open()
    try:
        await fill(store, NAMESPACE, map(filling.key, range(keys)))
    finally:
        await store.close()
    return _size(path) / keys


def _size(path: Path) -> int:
    return path.stat().st_size


def _certify(folder: Path) -> tuple[bytes, list[str]]:
    """The authority of a certificate for the loopback, and how a server is told of it."""
    authority = Authority()
    pair = authority.server().write(folder)
    return authority.pem, ["--tls-cert", str(pair.cert), "--tls-key", str(pair.key)]


def _channel(address: str, authority: bytes | None) -> grpc.aio.Channel:
    own = [("grpc.use_local_subchannel_pool", 1)]
    if authority is None:
        return grpc.aio.insecure_channel(address, options=own)
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(authority), options=own)


async def _call(channel: grpc.aio.Channel) -> None:
    stub = namespace_pb2_grpc.NamespaceServiceStub(channel)
    await stub.ListNamespaces(namespace_pb2.ListNamespacesRequest())


async def _empty(server: comity.Comity) -> float:
    async with _channel(server.address, None) as channel:
        await _call(channel)
        return server.process.memory()


async def _connections(server: comity.Comity, count: int, authority: bytes | None) -> float:
    async def connect() -> grpc.aio.Channel:
        channel = _channel(server.address, authority)
        await _call(channel)
        return channel

    first = await asyncio.gather(*(connect() for _ in range(TOGETHER)))  # what the first ones make is for all
    before = server.process.memory()
    channels = [*first]
    for some in _portions(count):
        channels += await asyncio.gather(*(connect() for _ in range(some)))
    grown = server.process.memory() - before
    await asyncio.gather(*(channel.close() for channel in channels))
    return grown / count


async def _leases(server: comity.Comity, count: int) -> float:
    async with _channel(server.address, None) as channel:
        stub = lease_pb2_grpc.LeaseServiceStub(channel)
        request = lease_pb2.GrantLeaseRequest(namespace=NAMESPACE, ttl=TTL)
        await stub.GrantLease(request)
        before = server.process.memory()
        for some in _portions(count):
            await asyncio.gather(*(stub.GrantLease(request) for _ in range(some)))
        return (server.process.memory() - before) / count


def _portions(count: int) -> Iterable[int]:
    return [min(TOGETHER, count - start) for start in range(0, count, TOGETHER)]
