"""A server in the test's own process, over a store that the test has in its hands."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from comity.v1 import state_pb2_grpc
from comity_server.errors import StateError
from comity_server.limits import Limits
from comity_server.model import Outcome, Write
from comity_server.server import Server
from comity_server.settings import Settings
from comity_server.stores.memory.store import MemoryStore


class HeldStore(MemoryStore):
    """A store whose commits wait for a gate, and which may say that it cannot commit."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.gate = asyncio.Event()
        self.gate.set()
        self.commits_begun = 0
        self.can_commit = True
        self.closed = False

    def writable(self) -> bool:
        return self.can_commit

    async def commit(self, namespace: str, group: Sequence[Write]) -> Sequence[Outcome | StateError]:
        self.commits_begun += 1
        await self.gate.wait()
        return await super().commit(namespace, group)

    async def close(self) -> None:
        await super().close()
        self.closed = True


class Running:
    """The server, its store, and stubs on it."""

    def __init__(self, server: Server, store: HeldStore, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.store = store
        self.channel = channel
        self.state: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)
        self.health: Any = health_pb2_grpc.HealthStub(channel)


@asynccontextmanager
async def run(**settings: Any) -> AsyncIterator[Running]:
    """Serve on a free port. The test may stop the server; else it is stopped in the end."""
    chosen = Settings(listen=["127.0.0.1:0"], **settings)
    store = HeldStore(chosen.limits())
    server = Server(chosen, store)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(server.addresses[0]) as channel:
            yield Running(server, store, channel)
    finally:
        store.gate.set()
        if not store.closed:
            await server.stop()
