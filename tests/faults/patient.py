"""A server whose disk is made to fail: what is asked of it before, meanwhile and afterwards."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2 as h
from grpc_health.v1 import health_pb2_grpc

from comity.v1 import checkpoint_pb2 as c
from comity.v1 import namespace_pb2 as n
from comity.v1 import state_pb2 as s
from comity.v1 import types_pb2 as t
from comity_server.stores.sqlite.check import check
from tests.faults.ledger import Asked, Ledger, Parts, short
from tests.faults.load import Connection
from tests.servers import Server
from tests.waiting import until
from tests.wire.calls import Refusal, read_refusal

NAME = "n"
PROGRESS = 0.1  # seconds
SOON = 3.0  # seconds: health is looked at twice a second, and so is whether the disk can be written
SERVICES = ("", "comity.v1.StateService", "comity.v1.CheckpointService", "comity.v1.NamespaceService")
TOLD_TO_NOBODY = ("sqlite", "SQL", "disk I/O", "database or disk", "Errno", "Traceback", "comity.db")


class Patient:
    """One server and one client of it, which keeps account of what it was answered. See `patient`."""

    def __init__(self, server: Server, path: Path) -> None:
        self.server = server
        self.path = path
        self.asked: dict[str, Asked] = {}
        self.ledger = Ledger(NAME, self.asked)
        self.connection = Connection(server.address)
        self.health: Any = health_pb2_grpc.HealthStub(self.connection.channel)
        self.heard: list[int] = []  # what a watch of the health was told
        self.messages = 0  # of the watch of the namespace
        self.watching: asyncio.Future[None]
        self._process = server.process

    async def put(self, key: str, size: int = 10) -> Asked:
        return await self.send(self.new(key, size))

    def new(self, key: str, size: int = 10) -> Asked:
        """A put that was not sent yet."""
        sequence = len(self.asked) + 1
        tag = f"p#{sequence}"
        options = t.WriteOptions(request_id=t.RequestId(client="p", sequence=sequence), message=tag)
        value = b"%d " % sequence + bytes(size)
        asked = Asked(tag, NAME, s.PutRequest(namespace=NAME, key=key, value=value, options=options))
        self.asked[tag] = asked
        return asked

    async def send(self, asked: Asked) -> Asked:
        asked.answer = await self.connection.call(asked.request)
        return asked

    async def refused(self, asked: Asked) -> Refusal:
        """Send a write that has to be refused, in words that say why and nothing of how the server is made."""
        try:
            await self.send(asked)
        except grpc.aio.AioRpcError as error:
            return self.told(error)
        raise AssertionError(f"{asked.tag} was answered")

    def told(self, error: grpc.aio.AioRpcError) -> Refusal:
        """What a refusal says, which has to be such words."""
        refusal = read_refusal(error)
        if refusal.reason == "STORE_FULL":
            assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        else:
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
            assert refusal.retry_after is not None
        assert refusal.message.startswith("the store")
        words = (*TOLD_TO_NOBODY, str(self.path.parent))
        assert not [word for word in words if word in refusal.message], refusal.message
        return refusal

    async def every_kind_of_write_is_refused(self) -> None:
        for request in (
            s.TransactRequest(then=[s.Operation(increment=s.IncrementOperation(key="i", delta=1))]),
            s.DeleteRequest(key="k"),
            c.CheckpointRequest(name="late"),
            c.DeleteCheckpointRequest(name="early"),
            c.RestoreRequest(ref=t.Ref(checkpoint="early")),
            n.ForkRequest(fork="fork"),
            n.CompactRequest(revision=1),
            n.DeleteNamespaceRequest(),
        ):
            request.namespace = NAME
            await self.refused(Asked("", NAME, request))

    async def says(self, status: int) -> None:
        """Wait until health says so: of everything, to who asks and to who watches."""

        async def told() -> bool:
            answers = [await self.health.Check(h.HealthCheckRequest(service=service)) for service in SERVICES]
            return {answer.status for answer in answers} == {status} and self.heard[-1] == status

        await until(told, SOON)

    async def reads_go_on(self) -> None:
        """All that was answered can be read and watched, from now and from the beginning."""
        revision, call = self.ledger.revision, self.connection.call
        state = self.ledger.state(revision)
        listed = await call(s.ListRequest(namespace=NAME))
        for entry in listed.entries:
            entry.value = short(entry.value)
        assert {entry.key: entry for entry in listed.entries} == state
        assert (await call(s.GetRequest(namespace=NAME, key="k"))).entry.key == "k"
        assert (await call(n.GetNamespaceRequest(namespace=NAME))).namespace.revision == revision
        assert (await call(c.GetCheckpointRequest(namespace=NAME, name="early"))).checkpoint.revision == 1
        assert (await call(c.DiffRequest(namespace=NAME, base=t.Ref(checkpoint="early")))).target_revision == revision
        await self.history_is_whole()
        again = Ledger(NAME, self.asked)
        await asyncio.wait_for(self._follow(again, revision), 10)
        seen = self.messages
        await until(lambda: self.messages > seen)  # the watch that was there before says that nothing happens

    async def history_is_whole(self) -> None:
        """It says what the watch saw."""
        commits: list[t.Commit] = []
        parts = Parts()
        request = s.HistoryRequest(namespace=NAME, order=s.HISTORY_ORDER_OLDEST_FIRST)
        while True:
            page = await self.connection.call(request)
            commits += parts.add(page.commits)
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        assert commits == self.ledger.commits

    async def nothing_was_lost(self) -> None:
        """The watch has every answered write, at the revision that was answered, and no other than was asked for."""
        info = (await self.connection.call(n.GetNamespaceRequest(namespace=NAME))).namespace
        await until(lambda: self.ledger.revision >= info.revision or self.watching.done())
        assert self.ledger.revision == info.revision, self.watching
        for asked in self.asked.values():
            if asked.answer is not None:
                assert self.ledger.made[asked.tag] == asked.commit
        await self.history_is_whole()

    async def goes_on(self, refused: list[Asked]) -> None:
        """The cause is gone: health says so by itself, what was refused can be made again, and a kill loses nothing."""
        await self.says(h.HealthCheckResponse.SERVING)
        assert self.server.process is self._process
        assert self._process.poll() is None
        for asked in refused:
            await self.send(asked)
            await self.send(asked)  # a repeat
        await self.put("k")
        await self.nothing_was_lost()
        assert set(self.ledger.made) >= {asked.tag for asked in refused}
        self.server.kill()
        report = await asyncio.to_thread(check, self.path)
        assert report.problems == []
        await asyncio.to_thread(self.server.restart)
        await self.connection.channel.channel_ready()
        await self.put("k")
        await self.nothing_was_lost()

    async def watch(self) -> None:
        """Follow the namespace, over a restart too."""
        while True:
            try:
                await self._follow(self.ledger, 2**62)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or self._process.poll() is None:
                    raise

    async def watch_health(self) -> None:
        async for answer in self.health.Watch(h.HealthCheckRequest()):
            self.heard.append(answer.status)

    async def _follow(self, ledger: Ledger, last: int) -> None:
        request = s.WatchRequest(namespace=NAME, prefix="", from_revision=ledger.revision + 1)
        request.progress_interval.CopyFrom(Duration(nanos=int(PROGRESS * 1e9)))
        parts = Parts()
        async for response in self.connection.state.Watch(request, wait_for_ready=True):
            self.messages += ledger is self.ledger
            for commit in parts.add(response.commits):
                ledger.see(commit)
            if ledger.revision >= last:
                return


@asynccontextmanager
async def patient(server: Server, path: Path) -> AsyncIterator[Patient]:
    """A healthy one, with something in it: some keys, and the checkpoint `early` of revision 1."""
    own = Patient(server, path)
    async with own.connection.channel:
        await own.put("k")
        request = c.CheckpointRequest(namespace=NAME, name="early")
        assert (await own.connection.call(request)).checkpoint.revision == 1
        for number in range(20):
            await own.put(f"many/{number}", 1000)
        watching = own.watching = asyncio.ensure_future(own.watch())
        health = asyncio.ensure_future(own.watch_health())
        try:
            await until(lambda: own.ledger.revision == 21 and bool(own.heard))
            await own.says(h.HealthCheckResponse.SERVING)
            yield own
            assert not watching.done(), watching
        finally:
            watching.cancel()
            health.cancel()
            await asyncio.wait([watching, health])
