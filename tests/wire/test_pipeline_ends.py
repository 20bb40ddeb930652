"""How a pipeline ends: with the server, with its client, or not at all while it has nothing to do."""

import asyncio
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc

from comity.v1 import state_pb2 as s
from comity_server.services import receiving
from tests import servers
from tests.waiting import until
from tests.wire.calls import TIMEOUT, Refusal
from tests.wire.inprocess import Running, run
from tests.wire.pipes import connected, get, increment, listing, piped, put

NAME = "n"
ROOT = Path(__file__).parents[2]
# Opens pipelines, keeps sending without reading, and says so.
CLIENT = """
import asyncio, sys
from tests.wire.pipes import connected, get, listing, piped, put

async def main():
    async with connected(sys.argv[1]) as channel:
        async def flood(number):
            async with piped(channel, "n", client=str(number)) as pipe:
                await pipe.one(get("k"))
                pipe.reading.clear()
                print("open", flush=True)
                while True:
                    await pipe.send(*(put(f"k{number}") for _ in range(100)), listing(), get("k"))
        await asyncio.gather(*map(flood, range(4)))

asyncio.run(main())
"""


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with run() as running:
        yield running


def draining(refused: Refusal | None) -> bool:
    assert refused is not None
    assert refused.retry_after is not None
    return (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")


async def test_a_drain_answers_what_was_read_and_reads_no_more(running: Running) -> None:
    async with connected(running.server.addresses[0]) as channel, piped(channel, NAME) as pipe:
        await pipe.one(put("k"))
        running.store.gate.clear()
        begun = await pipe.send(put("k"), get("k"), listing())
        await until(lambda: running.store.commits_begun == 2)
        waiting = await pipe.send(increment("n"), get("n"))
        [read] = await pipe.ask(get("other"))  # which was sent behind all of them
        assert read.code == 0
        stopping = asyncio.create_task(running.server.stop())
        async with piped(channel, NAME) as late:
            await late.send(put("late"))
            assert draining(await late.ended())
        await pipe.send(put("late"))
        assert not any(answer.done() for answer in (*begun, *waiting))
        running.store.gate.set()
        assert [result.code for result in await pipe.all([*begun, *waiting])] == [0] * 5
        assert draining(await pipe.ended())
        async with asyncio.timeout(30):
            await stopping
        assert len(pipe.arrived) == 7
        assert (await running.store.get(NAME, "late")).entry is None


async def test_a_drain_ends_idle_streams_at_once(running: Running) -> None:
    address = running.server.addresses[0]
    async with connected(address) as channel, piped(channel, NAME) as idle, piped(channel, NAME) as silent:
        await idle.one(put("k"))
        await until(lambda: running.server.calls.streams == 2)  # the other one said nothing yet
        stopping = asyncio.create_task(running.server.stop())
        assert draining(await idle.ended())
        assert draining(await silent.ended())
        async with asyncio.timeout(30):
            await stopping


async def test_a_drain_does_not_wait_for_ever_for_a_client_that_does_not_read(running: Running) -> None:
    async with connected(running.server.addresses[0]) as channel, piped(channel, NAME) as pipe:
        await pipe.one(put("k", bytes(1_000_000)))
        pipe.reading.clear()
        await pipe.send(*(get("k") for _ in range(1000)))
        await until(lambda: _places(running) == 1)
        async with asyncio.timeout(60):
            await running.server.stop()
        pipe.reading.set()
        refused = await pipe.ended()
        assert refused is not None
        assert len(pipe.arrived) < 1000


async def test_nothing_that_was_answered_is_lost_and_the_rest_is_repeated(tmp_path: Path) -> None:
    """A server is stopped again and again under load: each operation is done once, whatever it was answered when."""
    client = uuid.uuid4().hex
    pending = {number: increment("number", 1, id=number) for number in range(1, 10_001)}
    totals: list[int] = []
    with servers.start("--store", f"sqlite:{tmp_path / 'state.db'}") as server:
        for stop in (True, True, False):
            async with connected(server.address) as channel, piped(channel, NAME, client=client) as pipe:
                asked = list(pending.values())[: 4000 if stop else None]
                for start in range(0, len(asked), 50):
                    await pipe.send(*asked[start : start + 50], awaited=asked[0].id)
                if stop:
                    assert await asyncio.to_thread(server.stop) == 0
                    assert draining(await pipe.ended())
                else:
                    await pipe.done_writing()
                    assert await pipe.ended() is None
                for result in pipe.arrived:
                    assert result.code == 0
                    totals.append(result.value)
                    del pending[result.id]
            if stop:
                server.restart()
        assert not pending
        assert sorted(totals) == list(range(1, 10_001))
        assert "Traceback" not in server.log()


async def test_a_client_that_vanishes_leaves_nothing(running: Running) -> None:
    address = running.server.addresses[0]
    async with connected(address) as channel, piped(channel, NAME) as mine:
        await mine.one(put("k"))
        before = len(asyncio.all_tasks())
        streams = running.server.calls.streams
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, address, stdout=subprocess.PIPE, cwd=ROOT
        )
        assert process.stdout is not None
        for _ in range(4):
            assert await process.stdout.readline() == b"open\n"
        await until(lambda: running.store.commits_begun > 50)
        running.store.gate.clear()
        begun = running.store.commits_begun
        await until(lambda: running.store.commits_begun == begun + 1)
        process.kill()
        await process.wait()
        await until(lambda: running.server.calls.streams == streams)
        await until(lambda: len(asyncio.all_tasks()) <= before + 1)  # and the one that commits
        assert _places(running) <= 1
        running.store.gate.set()
        await mine.one(put("k"))
        assert running.store.commits_begun <= begun + 2  # what was waiting is not begun any more
        await until(lambda: _connections(running) <= 2)
        assert running.server._committer._pending == 0
        assert not running.server._committer._lanes


def _places(running: Running) -> int:
    return sum(each.places for each in running.server.calls._admission._connections.values())


def _connections(running: Running) -> int:
    return len(running.server._state._pipelines._by_peer) + len(running.server.calls._admission._connections)


async def test_channelz_sees_streams_come_and_go() -> None:
    with servers.start() as server:

        async def open_sockets(stub: Any) -> int:
            [listed] = (await stub.GetServers(channelz_pb2.GetServersRequest(), timeout=TIMEOUT)).server
            request = channelz_pb2.GetServerSocketsRequest(server_id=listed.ref.server_id)
            return len((await stub.GetServerSockets(request, timeout=TIMEOUT)).socket_ref)

        async def ended(stub: Any) -> bool:
            [listed] = (await stub.GetServers(channelz_pb2.GetServersRequest(), timeout=TIMEOUT)).server
            data = listed.data
            return bool(data.calls_started - data.calls_succeeded - data.calls_failed == 1)  # the one that asks

        async with connected(server.address) as mine:
            make: Any = channelz_pb2_grpc.ChannelzStub
            stub = make(mine)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", CLIENT, server.address, stdout=subprocess.PIPE, cwd=ROOT
            )
            assert process.stdout is not None
            for _ in range(4):
                assert await process.stdout.readline() == b"open\n"
            assert await open_sockets(stub) == 2
            assert not await ended(stub)
            process.kill()
            await process.wait()

            async def alone() -> bool:
                return await open_sockets(stub) == 1 and await ended(stub)

            await until(alone)
        assert "Traceback" not in server.log()


@pytest.mark.parametrize("reading", [True, False])
async def test_a_stream_that_is_cancelled_lets_go_of_what_it_had(running: Running, reading: bool) -> None:
    running.store.gate.clear()
    async with connected(running.server.addresses[0]) as channel:
        async with piped(channel, NAME) as pipe:
            await pipe.send(put("begun"))
            await until(lambda: running.store.commits_begun == 1)
            if not reading:
                pipe.reading.clear()
            await pipe.send(*(put(f"{number}") for number in range(100)), listing(), get("begun"))
            await pipe.ask(get("other")) if reading else None
        await until(lambda: running.server.calls.streams == 0)
        assert _places(running) == 0
        running.store.gate.set()
        async with piped(channel, NAME) as again:
            assert [entry.key for entry in (await again.one(listing())).list.entries] == ["begun"]


@pytest.mark.parametrize(("method", "operation"), [("get_all", get("k")), ("list", listing())], ids=["get", "list"])
async def test_a_cancellation_that_the_store_loses_is_no_end_to_wait_for(
    running: Running, monkeypatch: pytest.MonkeyPatch, method: str, operation: s.PipelineOperation
) -> None:
    """A library that connects may take the first one for its own."""
    reading = lost = False

    async def lose(*_: object, **__: object) -> None:
        nonlocal reading, lost
        reading = True
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            lost = True
        await asyncio.Event().wait()

    async with connected(running.server.addresses[0]) as channel:
        async with piped(channel, NAME) as pipe:
            await pipe.one(put("k"))
            monkeypatch.setattr(running.store, method, lose)
            await pipe.send(operation)
            await until(lambda: reading)
        await until(lambda: lost and running.server.calls.streams == 0)
        assert _places(running) == 0


async def test_a_stream_may_be_idle_for_longer_than_a_request_may_take(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "REQUEST_SECONDS", 0.1)
    async with connected(running.server.addresses[0]) as channel, piped(channel, NAME) as idle:
        await idle.one(put("k"))
        async with piped(channel, NAME) as silent:
            refused = await silent.ended()
            assert refused is not None
            assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "REQUEST_TIMEOUT")
        assert (await idle.one(put("k"))).version == 2  # it said nothing for as long
        await idle.done_writing()
        assert await idle.ended() is None


async def test_what_was_sent_before_the_end_is_read_to_the_end(running: Running) -> None:
    """The client closes its side while much is unanswered."""
    running.store.gate.clear()
    async with connected(running.server.addresses[0]) as channel, piped(channel, NAME) as pipe:
        answers = []
        for _ in range(3):
            answers += await pipe.send(*(put(f"{number}") for number in range(100)), listing())
        await pipe.done_writing()
        await until(lambda: running.store.commits_begun == 1)
        running.store.gate.set()
        results = await pipe.all(answers)
        assert await pipe.ended() is None
    assert {result.code for result in results} == {0}
    assert [len(result.list.entries) for result in results if result.HasField("list")] == [100, 100, 100]


async def test_an_error_of_the_stream_comes_after_the_answers(running: Running) -> None:
    running.store.gate.clear()
    async with connected(running.server.addresses[0]) as channel, piped(channel, NAME) as pipe:
        answers = await pipe.send(put("a"), listing(), get("a"))
        await pipe.send_message(s.PipelineRequest(awaited=-1))
        await until(lambda: running.store.commits_begun == 1)
        running.store.gate.set()
        assert [result.code for result in await pipe.all(answers)] == [0, 0, 0]
        refused = await pipe.ended()
        assert refused is not None
        assert list(refused.fields) == ["awaited"]
