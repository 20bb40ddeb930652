"""A server that is killed at any moment, again and again: what it answered is there, and the rest whole or not at all.

Clients write, fork, merge, restore and retry through all of it, and a watch goes on by revision. After each start,
while the clients wait, everything that they were answered and that the watch saw is held against what there is.
"""

import asyncio
import os
import random
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import grpc
import psutil
import pytest

from comity.v1 import checkpoint_pb2 as c
from comity.v1 import namespace_pb2 as n
from comity.v1 import state_pb2 as s
from comity.v1 import types_pb2 as t
from comity_server.stores.sqlite.check import check
from tests import servers
from tests.faults.ledger import Asked, Ledger, Parts
from tests.faults.ledger import short as shorten
from tests.faults.load import PAIRED, Connection, Load, Writer
from tests.servers import Server
from tests.waiting import until
from tests.wire.calls import read_refusal

SOAK = os.environ.get("COMITY_SOAK") == "1"
KILLS = 500 if SOAK else 16
WRITERS = 8
ANSWERS = 150  # at most, between two kills
MOMENT = 0.02  # seconds: a kill comes at any time within
KEPT = 300  # commits, when the history is compacted
LOOKED_AT = 4  # checkpoints, forks and revisions after each start
NAMESPACES = ("one", "two")

T = TypeVar("T")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "comity.db"


@pytest.fixture
def own(path: Path) -> Iterator[Server]:
    with servers.start("--store", f"sqlite:{path}") as running:
        yield running


class Crashes:
    """One server, its clients, and what is known of both."""

    def __init__(self, server: Server, path: Path, seed: str) -> None:
        self.server = server
        self.path = path
        self.chance = random.Random(seed)
        self.serves = asyncio.Event()
        self.serves.set()
        self.load = Load()
        self.ledgers = {name: Ledger(name, self.load.asked) for name in NAMESPACES}
        self.writers = [
            Writer(self.load, server.address, NAMESPACES[number % 2], f"w{number}", says_awaited=number % 4 > 1)
            for number in range(WRITERS)
        ]
        self.connection = Connection(server.address)
        self.compacted = dict.fromkeys(NAMESPACES, 0)  # to which revision, as was answered
        self.checked = [0] * WRITERS  # how many of each writer's answers were found to be true

    async def run(self, kills: int) -> None:
        async with AsyncExitStack() as stack:
            for connection in (self.connection, *(writer.connection for writer in self.writers)):
                await stack.enter_async_context(connection.channel)
            async with asyncio.TaskGroup() as group:
                watches = [group.create_task(self.watch(ledger)) for ledger in self.ledgers.values()]
                writing = [group.create_task(writer.run()) for writer in self.writers]
                for number in range(kills):
                    await self.write_for_a_while()
                    self.load.gate.clear()
                    self.serves.clear()
                    self.server.kill()
                    await self.start_again(number)
                    await self.check()
                self.load.ended = True
                self.load.gate.set()
                await asyncio.wait(writing)
                self.serves.clear()
                assert await asyncio.to_thread(self.server.stop) == 0
                await self.start_again(0)
                await self.check(everything=True)
                for watch in watches:
                    watch.cancel()

    async def watch(self, ledger: Ledger) -> None:
        """Read every commit of a namespace, and go on where it ended."""
        while True:
            await self.serves.wait()
            request = s.WatchRequest(
                namespace=ledger.name, prefix="", from_revision=ledger.revision + 1, epoch=ledger.epoch
            )
            parts = Parts()
            try:
                async for response in self.connection.state.Watch(request, wait_for_ready=True):
                    if response.created:
                        assert ledger.epoch in ("", response.epoch)
                        ledger.epoch = response.epoch
                    for commit in parts.add(response.commits):
                        ledger.see(commit)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise

    async def write_for_a_while(self) -> None:
        """Let the clients write, up to a moment that may be any."""
        wanted = self.load.answers + self.chance.randint(0, ANSWERS)
        self.load.gate.set()
        await until(lambda: self.load.answers >= wanted)
        if self.chance.random() < 0.3:
            await self.compact(self.chance.choice(NAMESPACES))
        await asyncio.sleep(self.chance.uniform(0, MOMENT))

    async def compact(self, namespace: str) -> None:
        revision = self.ledgers[namespace].revision - KEPT
        if revision > 0:
            await self.connection.call(n.CompactRequest(namespace=namespace, revision=revision))
            self.compacted[namespace] = max(revision, self.compacted[namespace])

    async def start_again(self, number: int) -> None:
        """Start the server, with now and then another kill before it serves, and a look at the file as it was left."""
        await until(lambda: self.load.in_flight == 0)
        if number % 3 == 1:
            await self.kill_while_it_starts()
        if number % 3 == 2:
            report = await asyncio.to_thread(check, self.path)
            assert report.problems == []
        await asyncio.to_thread(self.server.restart)
        for connection in (self.connection, *(writer.connection for writer in self.writers)):
            await connection.channel.channel_ready()
        self.serves.set()

    async def kill_while_it_starts(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *servers.command(),
            f"--store=sqlite:{self.path}",
            env=servers.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        running = psutil.Process(process.pid)
        await until(lambda: any(Path(file.path) == self.path for file in running.open_files()))
        await asyncio.sleep(self.chance.uniform(0, MOMENT))
        process.kill()
        await process.wait()

    async def check(self, *, everything: bool = False) -> None:
        """Hold what there is against what was answered and seen. Nobody else writes."""
        await self.catch_up()
        for writer in self.writers:
            if writer.pending is not None and self.chance.random() < 0.5:
                await self.finish(writer, writer.pending)
        await self.catch_up()
        self.check_answers()
        before = [ledger.revision for ledger in self.ledgers.values()]
        for writer in self.writers:
            await self.repeat(writer)
        await self.catch_up()
        assert [ledger.revision for ledger in self.ledgers.values()] == before
        for ledger in self.ledgers.values():
            await self.check_namespace(ledger, everything)
        for writer in self.writers:
            await self.check_checkpoints(writer, everything)
            await self.check_forks(writer, everything)

    async def catch_up(self) -> None:
        """Wait until the watches have seen all that there is, and see that it is no more than that."""
        for name, ledger in self.ledgers.items():
            info = await self.info(name)
            newest = info.revision if info is not None else 0
            await until(lambda ledger=ledger, newest=newest: ledger.revision >= newest)  # type: ignore[misc]
            assert ledger.revision == newest

    async def finish(self, writer: Writer, asked: Asked) -> None:
        """Send a write again of which nobody knows the end. Whatever that was, now it is done, and once."""
        for _ in range(2):
            writer.hear(asked, await self.connection.call(asked.request))
        if asked.namespace in self.ledgers:
            await self.catch_up()
            assert self.ledgers[asked.namespace].made.get(asked.tag, 0) == asked.commit

    def check_answers(self) -> None:
        """Every answer since the last time was true."""
        for number, writer in enumerate(self.writers):
            for asked in writer.answered[self.checked[number] :]:
                ledger = self.ledgers.get(asked.namespace)
                if ledger is not None:
                    assert ledger.made.get(asked.tag, 0) == asked.commit, asked.tag
            self.checked[number] = len(writer.answered)

    async def repeat(self, writer: Writer) -> None:
        """Send some answered writes again. They have the answers that they had, or were forgotten as was asked for."""
        known = [asked for asked in writer.answered[-1000:] if asked.changed]
        chosen = known[-1:] + self.chance.sample(known, min(LOOKED_AT, len(known)))
        for asked in chosen:
            try:
                answer = await self.connection.call(asked.request)
            except grpc.aio.AioRpcError as error:
                reason = read_refusal(error).reason
                forgotten = reason == "REQUEST_ID_FORGOTTEN" and writer.says_awaited
                is_latest = asked is writer.answered[-1] and writer.pending is None
                deleted = reason == "NAMESPACE_NOT_FOUND" and asked.namespace in writer.deleted_forks
                assert (forgotten and not is_latest) or deleted, (asked.tag, reason)
            else:
                writer.hear(asked, answer)

    async def check_namespace(self, ledger: Ledger, everything: bool) -> None:
        info = await self.info(ledger.name)
        if info is None:
            return
        assert info.epoch == ledger.epoch
        assert info.floor >= self.compacted[ledger.name]
        state = ledger.state(ledger.revision)
        assert await self.entries(ledger.name) == state
        assert len({state[f"paired/{number}"].value for number in range(PAIRED)} if "paired/0" in state else {0}) == 1
        begin = info.floor if everything else max(info.floor, ledger.revision - KEPT)
        assert await self.history(ledger.name, begin) == ledger.after(begin)
        for _ in range(LOOKED_AT):
            revision = self.chance.randint(max(info.floor, 1), ledger.revision)
            assert await self.entries(ledger.name, revision) == ledger.state(revision)

    async def check_checkpoints(self, writer: Writer, everything: bool) -> None:
        if await self.info(writer.namespace) is None:
            return
        ledger = self.ledgers[writer.namespace]
        request = c.ListCheckpointsRequest(namespace=writer.namespace, labels={"client": writer.name}, page_size=1000)
        response = await self.connection.call(request)
        found = {checkpoint.name: checkpoint for checkpoint in response.checkpoints}
        assert found.items() >= writer.checkpoints.items()
        assert not found.keys() & writer.dropped
        assert len(found) <= len(writer.checkpoints) + 1  # one that was begun, or that is about to go
        for checkpoint in self.some(list(found.values()), everything):
            state = ledger.state(checkpoint.revision)
            assert checkpoint.key_count == len(state)
            assert await self.entries(writer.namespace, checkpoint.revision) == state

    async def check_forks(self, writer: Writer, everything: bool) -> None:
        for fork in self.some(list(writer.forks.values()), everything):
            info = await self.info(fork.name)
            if info is None:
                assert fork.name in writer.deleted_forks
                continue
            assert (info.parent, info.fork_revision) == (writer.namespace, fork.fork_revision)
            base = self.ledgers[writer.namespace].state(fork.fork_revision)
            ledger = Ledger(fork.name, self.load.asked, base, fork.fork_revision)
            for commit in await self.history(fork.name):
                ledger.see(commit)
            assert ledger.revision == info.revision
            assert await self.entries(fork.name) == ledger.state(ledger.revision)
            for asked in writer.answered:
                if asked.namespace == fork.name:
                    assert ledger.made[asked.tag] == asked.commit
        for name in self.some(sorted(writer.gone), everything):
            assert await self.info(name) is None

    async def info(self, namespace: str) -> n.Namespace | None:
        try:
            response: n.GetNamespaceResponse = await self.connection.call(n.GetNamespaceRequest(namespace=namespace))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return None
        return response.namespace

    async def entries(self, namespace: str, revision: int = 0) -> dict[str, t.Entry]:
        found: dict[str, t.Entry] = {}
        request = s.ListRequest(namespace=namespace, revision=revision)
        async for response in self.pages(request):
            for entry in response.entries:
                entry.value = shorten(entry.value)
                found[entry.key] = entry
        return found

    async def history(self, namespace: str, after: int = 0) -> Sequence[t.Commit]:
        found: list[t.Commit] = []
        request = s.HistoryRequest(
            namespace=namespace, from_revision=after + 1 if after else 0, order=s.HISTORY_ORDER_OLDEST_FIRST
        )
        parts = Parts()
        async for response in self.pages(request):
            found += parts.add(response.commits)
        return found

    async def pages(self, request: Any) -> AsyncIterator[Any]:
        while True:
            response = await self.connection.call(request)
            yield response
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    def some(self, of: Sequence[T], everything: bool) -> Sequence[T]:
        return of if everything else self.chance.sample(of, min(len(of), 1))


@pytest.mark.soak
@pytest.mark.timeout(7200 if SOAK else 180)
async def test_what_was_answered_outlives_kills(own: Server, path: Path) -> None:
    crashes = Crashes(own, path, seed=f"{KILLS} kills")
    await crashes.run(KILLS)
    assert crashes.load.answers > KILLS * ANSWERS / 4
