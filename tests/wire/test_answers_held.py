"""What streams answer takes up room until it is taken off: who does not read holds up neither small answers, nor calls,
nor for ever those that read."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest

from comity.v1 import state_pb2 as s
from comity.v1 import state_pb2_grpc
from comity_server.errors import PermissionDenied
from comity_server.services.admission import Admission
from comity_server.services.outbox import ANSWER_BYTES, SHARE
from tests.memory import MIB
from tests.waiting import until
from tests.wire.calls import TIMEOUT, read_refusal
from tests.wire.inprocess import Running, run
from tests.wire.pipes import get, listing, piped

VALUES = 4
ONE_ANSWER = SHARE * ANSWER_BYTES


class Held:
    """A server, large commits, and one connection to it that has room for one large answer."""

    def __init__(self, running: Running, channel: grpc.aio.Channel) -> None:
        self.running = running
        self.channel = channel
        self.state: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)

    async def watch(self, **fields: Any) -> Any:
        """A watch whose first message is read, and nothing else."""
        stream: Any = self.state.Watch(s.WatchRequest(namespace="n", from_revision=1, **fields), timeout=TIMEOUT)
        assert (await stream.read()).created
        return stream


@pytest.fixture
async def held() -> AsyncIterator[Held]:
    async with run(max_connection_bytes=ONE_ANSWER) as running, AsyncExitStack() as stack:
        for number in range(VALUES):
            await running.state.Put(s.PutRequest(namespace="n", key=f"large/{number}", value=bytes(MIB - 1024)))
        options = [  # a client of its own, which takes off little that it is not asked for
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", 65_536),
        ]
        channel = await stack.enter_async_context(
            grpc.aio.insecure_channel(running.server.addresses[0], options=options)
        )
        yield Held(running, channel)


async def are_waiting(room: Admission, count: int) -> None:
    """Until so many streams wait, and another one holds what it has made."""

    def wait() -> bool:
        waiting = sum(len(connection.waiting) for connection in room._connections.values())
        return waiting == count and room._bytes > 0

    await until(wait)


async def revisions(stream: Any, last: int) -> list[int]:
    found: list[int] = []
    while not found or found[-1] < last:
        message = await stream.read()
        assert message is not grpc.aio.EOF
        found += [commit.revision for commit in message.commits]
    return found


async def test_watches_that_are_not_read_wait_for_each_other(held: Held) -> None:
    streams = [await held.watch(prefix="large/") for _ in range(4)]
    room = held.running.server._state._watches._room
    await are_waiting(room, 3)
    small = await held.watch(prefix="small/")
    for number in range(20):
        written = await held.state.Put(s.PutRequest(namespace="n", key="small/k", value=bytes(1000)), timeout=TIMEOUT)
        assert await revisions(small, written.revision) == [VALUES + 1 + number]
    read = await asyncio.gather(*(revisions(stream, VALUES) for stream in streams))
    assert read == [list(range(1, VALUES + 1))] * 4
    assert not room._connections


async def test_a_watch_that_is_not_allowed_any_more_does_not_wait_for_room(held: Held) -> None:
    streams = [await held.watch(prefix="large/") for _ in range(2)]
    room = held.running.server._state._watches._room
    await are_waiting(room, 1)
    reading = [asyncio.ensure_future(stream.code()) for stream in streams]
    for standing in held.running.server._access.gate._standings:
        standing._end(PermissionDenied("somebody", "READ", "n"))
    ended, _ = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
    assert [each.result() for each in ended] == [grpc.StatusCode.PERMISSION_DENIED]


async def test_a_watch_that_waits_for_room_is_told_of_the_end(held: Held) -> None:
    streams = [await held.watch(prefix="large/") for _ in range(3)]
    await are_waiting(held.running.server._state._watches._room, 2)
    held.running.server._state.close()
    codes = [asyncio.ensure_future(stream.code()) for stream in streams]
    await until(lambda: sum(code.done() for code in codes) == 2)
    [(last, unread)] = [each for each in zip(codes, streams, strict=True) if not each[0].done()]
    with pytest.raises(grpc.aio.AioRpcError) as error:  # which had what it holds
        await revisions(unread, VALUES)
    assert read_refusal(error.value).reason == "DRAINING"
    assert {code.result() for code in codes if code is not last} == {grpc.StatusCode.UNAVAILABLE}
    await last


async def test_pipelines_that_are_not_read_wait_for_each_other(held: Held) -> None:
    asked = [get(f"large/{number}") for number in range(VALUES)]
    async with AsyncExitStack() as stack:
        pipes = [await stack.enter_async_context(piped(held.channel, "n")) for _ in range(4)]
        for pipe in pipes:
            await pipe.one(get("absent"))
            pipe.reading.clear()
        await turns(held)  # each has begun to read once more
        answers = [await pipe.send(*asked, listing("large/"), listing("large/", page_size=1)) for pipe in pipes]
        streams = held.running.server._state._pipelines._streams
        await until(lambda: sum(stream._outbox.waits for stream in streams) == 3)
        room = held.running.server._state._pipelines._outboxes._room
        [connection] = room._connections.values()
        assert connection.bytes < 16 * MIB
        await held.state.Put(s.PutRequest(namespace="n", key="other"), timeout=TIMEOUT)
        for pipe in pipes:
            pipe.reading.set()
        for each in answers:
            results = await pipe.all(each)
            assert [len(result.entry.value) for result in results[:VALUES]] == [MIB - 1024] * VALUES
            assert [len(result.list.entries) for result in results[VALUES:]] == [2, 1]
        await until(lambda: not room._connections)


@pytest.mark.parametrize("asked", [get("large/0"), listing("large/")], ids=["get", "list"])
@pytest.mark.parametrize("half_closed", [False, True])
async def test_a_pipeline_that_is_not_allowed_any_more_does_not_wait_for_room(
    held: Held, asked: s.PipelineOperation, half_closed: bool
) -> None:
    async with AsyncExitStack() as stack:
        pipes = [await stack.enter_async_context(piped(held.channel, "n")) for _ in range(3)]
        for pipe in pipes:
            await pipe.one(get("absent"))
            pipe.reading.clear()
        await turns(held)  # each has begun to read once more
        for pipe in pipes:
            await pipe.send(*(s.PipelineOperation.FromString(asked.SerializeToString()) for _ in range(VALUES)))
            if half_closed:
                await pipe.done_writing()
        streams = held.running.server._state._pipelines._streams
        await until(lambda: sum(stream._outbox.waits for stream in streams) == 2)
        for standing in held.running.server._access.gate._standings:
            standing._end(PermissionDenied("somebody", "READ", "n"))
        await until(lambda: len(streams) == 1)  # that has room, and whose client does not take what it has made
        for pipe in pipes:
            pipe.reading.set()
        ends = await asyncio.gather(*(pipe.ended() for pipe in pipes))
        assert [end.reason for end in ends if end is not None].count("PERMISSION_DENIED") >= 2
        room = held.running.server._state._pipelines._outboxes._room
        await until(lambda: not room._connections)


async def turns(held: Held) -> None:
    for _ in range(20):
        await held.state.Get(s.GetRequest(namespace="n", key="absent"), timeout=TIMEOUT)
