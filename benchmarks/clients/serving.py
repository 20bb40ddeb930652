"""Starts the servers that are to be compared, and names the clients that speak to them."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from benchmarks.clients import comity, etcd, redis
from benchmarks.clients.protocol import Client
from benchmarks.options import Options
from benchmarks.peers import comity as comity_server
from benchmarks.peers import etcd as etcd_server
from benchmarks.peers import redis as redis_server
from benchmarks.peers.process import Missing, Process
from benchmarks.report import Report

Connect = Callable[[str, str], AbstractAsyncContextManager[Client]]

CLIENTS: dict[str, Connect] = {
    "comity": comity.typed,
    "comity sqlite": comity.typed,
    "comity, unary stub": comity.stub,
    "aetcd": etcd.typed,
    "etcd, unary stub": etcd.stub,
    "redis-py": redis.watching,
    "redis-py, Lua": redis.scripting,
}


class Peer(NamedTuple):
    """A client by its name, and the server that it speaks to."""

    name: str
    address: str
    server: Process

    def connect(self, namespace: str) -> AbstractAsyncContextManager[Client]:
        """A client with keys of its own, for the running event loop."""
        return CLIENTS[self.name](self.address, namespace)


@contextlib.contextmanager
def serving(options: Options, report: Report, *names: str) -> Iterator[list[Peer]]:
    """The peers of these names that were asked for and can be had; the report says which are left out."""
    peers: list[Peer] = []
    with contextlib.ExitStack() as stack:
        servers: dict[str, tuple[str, Process]] = {}

        def serve(name: str) -> tuple[str, Process]:
            if name == "comity sqlite":
                kept = stack.enter_context(comity_server.serve(f"sqlite:{options.folder / 'clients.db'}"))
                return kept.address, kept.process
            if name.startswith("comity"):
                served = stack.enter_context(comity_server.serve("memory:"))
                return served.address, served.process
            if "etcd" in name:
                other = stack.enter_context(etcd_server.serve(options.folder / "etcd"))
                return other.address, other.process
            redis = stack.enter_context(redis_server.serve(options.folder / "redis"))
            return f"127.0.0.1:{redis.port}", redis.process

        for name in names:
            if not options.wants(name):
                continue
            kind = name.partition(",")[0].replace("aetcd", "etcd")
            try:
                if name == "aetcd":
                    etcd.check()
                if kind not in servers:
                    servers[kind] = serve(name)
            except Missing as missing:
                report.note(str(missing))
                continue
            peers.append(Peer(name, *servers[kind]))
        yield peers


@contextlib.asynccontextmanager
async def connected(peers: list[Peer], namespace: str) -> AsyncIterator[dict[str, Client]]:
    """A client of each, by its name."""
    async with contextlib.AsyncExitStack() as stack:
        yield {peer.name: await stack.enter_async_context(peer.connect(namespace)) for peer in peers}
