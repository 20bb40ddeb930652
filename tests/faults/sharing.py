"""Servers that share a Redis which is made to fail, and clients that keep account of what they were answered."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as h
from grpc_health.v1 import health_pb2_grpc

from comity.v1 import namespace_pb2 as n
from comity.v1 import state_pb2 as s
from comity.v1 import types_pb2 as t
from tests import servers
from tests.faults.ledger import Asked, Ledger, Parts
from tests.faults.load import Connection
from tests.servers import Server
from tests.waiting import until
from tests.wire.calls import Refusal, read_refusal

NAME = "n"
SERVING = h.HealthCheckResponse.SERVING
NOT_SERVING = h.HealthCheckResponse.NOT_SERVING
SOON = 1.5  # seconds: health follows within one, on a machine that does nothing else
FAILS = 7.0  # seconds within which a call fails that cannot be answered


class Sharing:
    """Servers over one Redis, and the commits of one namespace as each shows them to a watch. See `sharing`."""

    def __init__(self, own: Sequence[Server]) -> None:
        self.servers = own
        self.asked: dict[str, Asked] = {}
        self.ledgers = [Ledger(NAME, self.asked) for _ in own]
        self.connections = [Connection(server.address) for server in own]
        self.ended: list[Refusal] = []  # why watches ended, where it was not for want of the store

    def new(self, key: str, size: int = 10) -> Asked:
        """An increment, which shows if it is applied twice, beside a put."""
        sequence = len(self.asked) + 1
        tag = f"p#{sequence}"
        options = t.WriteOptions(request_id=t.RequestId(client="p", sequence=sequence), message=tag)
        operations = [
            s.Operation(put=s.PutOperation(key=key, value=b"%d " % sequence + bytes(size))),
            s.Operation(increment=s.IncrementOperation(key="sum", delta=1)),
        ]
        asked = Asked(tag, NAME, s.TransactRequest(namespace=NAME, then=operations, options=options))
        self.asked[tag] = asked
        return asked

    async def send(self, asked: Asked, to: int = 0) -> Asked:
        asked.answer = await self.connections[to].call(asked.request)
        return asked

    async def insist(self, asked: Asked, to: int = 0) -> Asked:
        """Send until it is answered."""
        while True:
            try:
                return await self.send(asked, to)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise

    async def refused(self, request: Any, to: int = 0) -> Refusal:
        """A call that has to be refused, and soon."""
        began = time.monotonic()
        try:
            await self.connections[to].call(request)
        except grpc.aio.AioRpcError as error:
            assert time.monotonic() - began < FAILS
            return read_refusal(error)
        raise AssertionError("it was answered")

    async def all_fails(self) -> None:
        """Reads and writes are refused, more than once."""
        for _ in range(2):
            requests = [self.new("k").request, s.GetRequest(namespace=NAME, key="k"), s.ListRequest(namespace=NAME)]
            for refusal in await asyncio.gather(*map(self.refused, requests)):
                assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
                assert refusal.retry_after is not None
                assert not [word for word in ("Errno", "Traceback", "127.0.0.1") if word in refusal.message]

    async def says(self, status: int, seconds: float = SOON, of: int = 0) -> None:
        stub: Any = health_pb2_grpc.HealthStub(self.connections[of].channel)

        async def told() -> bool:
            answer = await stub.Check(h.HealthCheckRequest())
            return bool(answer.status == status)

        await until(told, seconds)

    async def recovers(self) -> None:
        """By itself: what was refused can be made, once; and the watches show all that was answered."""
        for number in range(len(self.servers)):
            await self.says(SERVING, 10, number)
        for asked in list(self.asked.values()):
            await self.insist(asked)
        await asyncio.gather(*(self.insist(self.new("k"), number) for number in range(len(self.servers))))
        await self.nothing_was_lost()

    async def nothing_was_lost(self) -> None:
        for connection, ledger in zip(self.connections, self.ledgers, strict=True):
            info = (await connection.call(n.GetNamespaceRequest(namespace=NAME))).namespace
            await until(lambda ledger=ledger, info=info: ledger.revision >= info.revision, 20)  # type: ignore[misc]
            assert ledger.revision == info.revision
            for asked in self.asked.values():
                if asked.answer is not None:
                    assert ledger.made[asked.tag] == asked.commit
            found = await connection.call(s.GetRequest(namespace=NAME, key="sum"))
            assert int(found.entry.value) == len(ledger.made)

    async def watch(self, place: int) -> None:
        """Follow the namespace over every failure of the store, without gap and repetition."""
        ledger = self.ledgers[place]
        while True:
            parts = Parts()
            request = s.WatchRequest(namespace=NAME, prefix="", from_revision=ledger.revision + 1, epoch=ledger.epoch)
            try:
                async for response in self.connections[place].state.Watch(request, wait_for_ready=True):
                    ledger.epoch = response.epoch or ledger.epoch
                    for commit in parts.add(response.commits):
                        ledger.see(commit)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    self.ended.append(read_refusal(error))
                    return


@asynccontextmanager
async def sharing(*urls: str) -> AsyncIterator[Sharing]:
    """A server for each URL, some keys, and a watch at each server."""
    async with AsyncExitStack() as stack:
        # Started in threads: a URL may lead through a proxy of this event loop.
        own = [stack.enter_context(await asyncio.to_thread(servers.start, "--store", url)) for url in urls]
        shared = Sharing(own)
        for connection in shared.connections:
            await stack.enter_async_context(connection.channel)
        for number in range(5):
            await shared.send(shared.new(f"many/{number}", 1000))
        watches = [asyncio.ensure_future(shared.watch(place)) for place in range(len(own))]
        try:
            await shared.nothing_was_lost()
            await shared.says(SERVING)
            yield shared
            for watch in watches:
                assert watch.done() == bool(shared.ended), watch
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.wait(watches)
