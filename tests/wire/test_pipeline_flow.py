"""A client that sends without reading, or faster than the server can, is held back: by itself, and nobody else is."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from types import ModuleType
from typing import Any

import grpc
import pytest

from comity.v1 import state_pb2 as s
from comity.v1 import state_pb2_grpc
from comity_server.services import pipeline_answers, pipeline_messages, pipeline_reading, pipeline_taking
from tests import servers
from tests.http2 import StingyClient
from tests.memory import MIB, memory, settled, turns
from tests.servers import Server
from tests.waiting import until
from tests.wire.calls import TIMEOUT
from tests.wire.inprocess import run
from tests.wire.pipes import Pipe, connected, create, get, increment, listing, piped, put, transact

NAME = "n"
PIPELINE = "/comity.v1.StateService/Pipeline"
PIPELINES = 16


@pytest.fixture
def own() -> Iterator[Server]:
    with servers.start() as running:
        yield running


@pytest.fixture
async def others(own: Server) -> AsyncIterator["state_pb2_grpc.StateServiceAsyncStub"]:
    """Somebody else, with two values of a page's size in the store."""
    async with connected(own.address) as channel:
        state: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)
        for key in "ab":
            await state.Put(s.PutRequest(namespace=NAME, key=key, value=bytes(MIB - 1024)), timeout=TIMEOUT)
        yield state


async def served(state: "state_pb2_grpc.StateServiceAsyncStub") -> None:
    """Others read and write."""
    await state.Put(s.PutRequest(namespace=NAME, key="other"), timeout=TIMEOUT)
    answer = await state.List(s.ListRequest(namespace=NAME, keys_only=True), timeout=TIMEOUT)
    assert {"a", "b", "other"} <= {entry.key for entry in answer.entries}


class Flood:
    """Sends a message after another, for as long as they are taken."""

    def __init__(self, pipe: Pipe, *operations: s.PipelineOperation) -> None:
        self._pipe = pipe
        self._operations = [s.PipelineOperation.FromString(operation.SerializeToString()) for operation in operations]
        self._going_on = True
        self.sent = 0
        self.task = asyncio.create_task(self._send())

    async def _send(self) -> None:
        while self._going_on:
            await self._pipe.send(*self._operations)
            self.sent += 1
            for operation in self._operations:
                operation.id = 0

    async def finish(self) -> None:
        """Send no more. To cancel a write would cancel the stream."""
        self._going_on = False
        await self.task

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


async def held_back(others: "state_pb2_grpc.StateServiceAsyncStub", *floods: Flood) -> None:
    """Return when no more messages are taken, although the server has turns."""
    before = -1
    while before != (now := sum(flood.sent for flood in floods)):
        before = now
        await turns(others)


READS = {
    "gets": [get("a")] * 500,
    "lists": [listing()] * 500,
    "transactions": [transact(then=[s.Operation(list=s.ListOperation())])] * 500,
    "puts that show what was": [put("c", bytes(MIB // 2), return_previous=True)],
    "conflicts": [create("a", bytes(MIB))],
    "wrong": [create("k" * 2000)] * 500,
}
LONG = {"conflicts": pytest.mark.long}  # which are answered as those that are wrong
SMALL = ("conflicts", "wrong")  # answers, of which it takes many to fill what may be on its way


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=LONG.get(kind, ())) for kind in READS])
async def test_a_client_that_does_not_read_is_held_back(
    own: Server, others: "state_pb2_grpc.StateServiceAsyncStub", kind: str
) -> None:
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(connected(own.address))
        pipes = [await stack.enter_async_context(piped(channel, NAME)) for _ in range(4)]
        for pipe in pipes:
            await pipe.one(get("absent"))
            pipe.reading.clear()
        before = memory(own)
        floods = [Flood(pipe, *READS[kind]) for pipe in pipes]
        if kind not in SMALL:
            await held_back(others, *floods)
        assert await settled(own, others) - before < 350 * MIB
        await served(others)
        for flood in floods:
            await flood.end()


async def test_pages_for_a_client_that_takes_nothing_are_not_made(
    own: Server, others: "state_pb2_grpc.StateServiceAsyncStub"
) -> None:
    request = s.PipelineRequest(namespace=NAME, operations=[listing() for _ in range(1000)])
    for id, operation in enumerate(request.operations, start=1):
        operation.id = id
    async with StingyClient(own.address) as stingy:
        before = memory(own)
        for _ in range(2 * PIPELINES):
            await stingy.call(PIPELINE, request.SerializeToString())
        await until(lambda: len(stingy.ended) == PIPELINES)  # those that were too many
        assert await settled(own, others) - before < 250 * MIB, "all of the pages are 32 GB"
        await served(others)


async def test_messages_that_are_not_finished_are_bounded(
    own: Server, others: "state_pb2_grpc.StateServiceAsyncStub"
) -> None:
    message = bytes(4 * MIB)
    async with StingyClient(own.address) as stingy:
        before = memory(own)
        calls = [asyncio.create_task(stingy.call(PIPELINE, message, withheld=100)) for _ in range(100)]
        assert await settled(own, others) - before < 200 * MIB, "all of them are 400 MiB"
        await served(others)
        for call in calls:
            call.cancel()


async def test_what_transactions_list_is_bounded_however_little_asks_for_it(
    own: Server, others: "state_pb2_grpc.StateServiceAsyncStub"
) -> None:
    keys_only = s.Operation(list=s.ListOperation(keys_only=True))
    async with connected(own.address) as channel, piped(channel, "many") as pipe:
        await pipe.ask(*(put(f"{number}") for number in range(1000)))
        pipe.reading.clear()
        before = memory(own)
        answers = []
        for _ in range(2):
            many = [transact(then=[keys_only] * 40) for _ in range(25)]
            answers += await pipe.send(*many, put("k"), get("k"), listing(page_size=1))
        assert await settled(own, others) - before < 120 * MIB, "all of the entries are 300 MiB"
        pipe.reading.set()
        results = await pipe.all(answers)
    assert [result.revision for result in results] == [1000] * 25 + [1001] * 28 + [1002] * 3
    assert {len(result.transact.results) for result in results} == {40, 0}


async def test_what_was_answered_is_taken_before_more_is_read() -> None:
    async with run() as running, connected(running.server.addresses[0]) as channel, piped(channel, NAME) as pipe:
        await pipe.one(put("k", bytes(100_000)))
        pipe.reading.clear()
        flood = Flood(pipe, transact(then=[s.Operation(get=s.GetOperation(key="k"))]))
        await held_back(running.state, flood)
        count = flood.sent
        assert running.store.commits_begun < 400 < count
        pipe.reading.set()
        await until(lambda: flood.sent > count)
        await flood.finish()
        await pipe.done_writing()
        assert await pipe.ended() is None
        assert len(pipe.arrived) == 1 + flood.sent


async def test_a_stream_that_is_idle_keeps_nothing_of_what_was_answered(
    own: Server, others: "state_pb2_grpc.StateServiceAsyncStub"
) -> None:
    large = [put("", bytes(MIB - 1024)) for _ in range(4)]
    before = memory(own)
    async with AsyncExitStack() as stack:
        for _ in range(2):
            channel = await stack.enter_async_context(connected(own.address))
            for _ in range(PIPELINES):
                pipe = await stack.enter_async_context(piped(channel, NAME))
                assert {result.error.reason for result in await pipe.ask(*large)} == {"INVALID_REQUEST"}
        assert await settled(own, others) - before < 80 * MIB, "all of the messages are 128 MiB"
        await served(others)


async def test_a_client_goes_on_when_it_reads_again() -> None:
    async with run() as running, connected(running.server.addresses[0]) as channel, piped(channel, NAME) as pipe:
        await pipe.one(put("k", bytes(20_000)))
        pipe.reading.clear()
        flood = Flood(pipe, *[get("k")] * 20)
        [stream] = running.server._state._pipelines._streams
        await until(lambda: stream._answers._held_bytes >= pipeline_answers.ANSWERED_BYTES)
        count = flood.sent
        pipe.reading.set()
        await until(lambda: flood.sent > count + 2 * pipeline_reading.UNANSWERED // 20)
        await flood.finish()
        await pipe.done_writing()
        assert await pipe.ended() is None
    assert len(pipe.arrived) == 1 + 20 * flood.sent
    assert {(result.code, len(result.entry.value)) for result in pipe.arrived[1:]} == {(0, 20_000)}


@pytest.mark.parametrize("at", ["newest", "one", "several"])
async def test_reads_hold_no_more_than_may_be_answered(at: str) -> None:
    """What they show may be gone from the store by the time that it is taken."""
    async with run() as running, connected(running.server.addresses[0]) as channel, piped(channel, NAME) as pipe:
        revisions = [(await pipe.one(put("k", bytes(MIB)))).revision for _ in range(40)]
        pipe.reading.clear()
        asked = {"newest": [0], "one": revisions[:1], "several": revisions}[at]
        answers = await pipe.send(*(get("k", asked[number % len(asked)]) for number in range(80)), get("absent"))
        [stream] = running.server._state._pipelines._streams
        await until(lambda: stream._answers._held_bytes >= pipeline_answers.ANSWERED_BYTES)
        await turns(running.state)
        assert stream._answers._held_bytes < pipeline_answers.ANSWERED_BYTES + 2 * MIB
        written = await running.state.Put(s.PutRequest(namespace=NAME, key="k"), timeout=TIMEOUT)
        pipe.reading.set()
        read = await pipe.all(answers)
    shown = [(result.entry.mod_revision, len(result.entry.value)) for result in read[:-1]]
    if at == "newest":
        assert set(shown) == {(revisions[-1], MIB), (written.revision, 0)}
        assert shown == sorted(shown)
    else:
        assert shown == [(asked[number % len(asked)], MIB) for number in range(80)]
    assert not read[-1].HasField("entry")


async def test_unread_streams_do_not_hold_up_the_others_of_their_connection(
    channel: grpc.aio.Channel, namespace: str
) -> None:
    async with piped(channel, namespace) as stuck, piped(channel, namespace) as free:
        await stuck.one(put("k", bytes(MIB)))
        stuck.reading.clear()
        flood = Flood(stuck, *[get("k")] * 100)
        for number in range(100):
            written, read = await free.ask(put("l", b"%d" % number), get("l"))
            assert (written.code, read.entry.value) == (0, b"%d" % number)
        await flood.end()


async def test_streams_that_never_pause_leave_room_for_calls() -> None:
    """The queue of the committer is short, and its store slow to begin with."""
    async with run(max_pending=2000) as running, AsyncExitStack() as stack:
        channel = await stack.enter_async_context(connected(running.server.addresses[0]))
        pipes = [await stack.enter_async_context(piped(channel, f"n{number}")) for number in range(8)]
        running.store.gate.clear()
        floods = [Flood(pipe, *[increment("k")] * 500) for pipe in pipes]
        committer = running.server._committer
        await until(lambda: len(committer._hopeful) == len(pipes))  # each waits for room
        assert 1000 <= committer._pending <= 1500
        call = asyncio.ensure_future(running.state.Put(s.PutRequest(namespace="other", key="k"), timeout=TIMEOUT))
        await until(lambda: running.server.calls.unary_calls == 1)
        running.store.gate.set()
        assert (await call).revision == 1
        for flood in floods:
            await flood.end()


async def test_what_one_stream_has_unanswered_is_bounded() -> None:
    async with run() as running, connected(running.server.addresses[0]) as channel, piped(channel, NAME) as pipe:
        running.store.gate.clear()
        flood = Flood(pipe, *[increment("k")] * 100)
        await until(lambda: sum(each._answers.unanswered for each in running.server._state._pipelines._streams) == 4000)
        await turns(running.state)
        [stream] = running.server._state._pipelines._streams
        assert stream._answers.unanswered == 4000
        assert 3900 <= running.server._committer._pending <= 4000  # and those that the store has
        running.store.gate.set()
        await until(lambda: len(pipe.arrived) > 10_000)
        await flood.finish()
        await pipe.done_writing()
        assert await pipe.ended() is None
        assert [result.value for result in pipe.arrived] == list(range(1, 100 * flood.sent + 1))


@pytest.mark.parametrize(("module", "step"), [(pipeline_taking, "write"), (pipeline_answers, "fill_outcome")])
async def test_a_message_with_much_inside_of_it_lets_others_in_between(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, step: str
) -> None:
    """What it asks for is read, and answered, in portions: counted in turns of the loop, not in time."""
    inside = 100
    turns = 0
    at: Counter[int] = Counter()  # how many of the transactions each turn went through
    original = getattr(module, step)

    def turn() -> None:
        nonlocal turns
        turns += 1
        loop.call_soon(turn)

    def counted(*arguments: Any) -> Any:
        at[turns] += 1
        return original(*arguments)

    loop = asyncio.get_running_loop()
    async with run() as running, connected(running.server.addresses[0]) as channel, piped(channel, NAME) as pipe:
        await pipe.one(get("absent"))
        monkeypatch.setattr(module, step, counted)
        many = transact(then=[s.Operation(get=s.GetOperation(key="absent"))] * inside)
        operations = [s.PipelineOperation.FromString(many.SerializeToString()) for _ in range(200)]
        turn()
        results = await pipe.ask(*operations, get("absent"))
    assert [len(result.transact.results) for result in results] == [inside] * 200 + [0]
    assert [result.id for result in pipe.arrived[1:-1]] == [result.id for result in results[:-1]]
    assert at.total() >= 200
    assert max(at.values()) <= 1000 // inside


async def test_what_is_inside_of_transactions_counts_as_waiting() -> None:
    async with run() as running, connected(running.server.addresses[0]) as channel, piped(channel, NAME) as pipe:
        running.store.gate.clear()
        await pipe.send(put("k"))
        await until(lambda: running.store.commits_begun == 1)
        await pipe.send(transact(then=[s.Operation(get=s.GetOperation(key="k"))] * 1000))
        await until(lambda: running.server._committer._pending == 1)
        assert running.server._committer._pending_bytes > 100_000
        [connection] = running.server.calls._admission._connections.values()
        assert connection.bytes > 100_000
        running.store.gate.set()
        await until(lambda: len(pipe.arrived) == 2)
        await until(lambda: not running.server.calls._admission._connections)


async def test_a_drain_comes_while_a_message_is_gone_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it is answered, since some of it is under way."""
    async with run() as running, connected(running.server.addresses[0]) as channel, piped(channel, NAME) as pipe:
        await pipe.one(put("k"))
        original = pipeline_messages.write
        begun = 0

        def stopping(*arguments: Any) -> Any:
            nonlocal begun
            begun += 1
            if begun == 1:
                running.server._state._pipelines.close()
            return original(*arguments)

        monkeypatch.setattr(pipeline_taking, "write", stopping)
        operations = [transact(then=[s.Operation(increment=s.IncrementOperation(key="k", delta=1))]) for _ in range(5)]
        for operation in operations:
            operation.transact.otherwise.extend([s.Operation(get=s.GetOperation(key="k"))] * 999)
        results = await pipe.ask(*operations, listing())
        refused = await pipe.ended()
        assert refused is not None
        assert refused.reason == "DRAINING"
        assert begun == 5
        assert {result.error.reason for result in results[:5]} == {"NOT_A_NUMBER"}
        assert [entry.key for entry in results[5].list.entries] == ["k"]
