"""A message may say how long its operations may take: what was not begun by then is answered, and never done."""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from comity.v1 import state_pb2 as s
from tests import servers
from tests.redis_servers import RedisServer, program
from tests.waiting import until
from tests.wire.calls import Wire
from tests.wire.inprocess import Running, run
from tests.wire.pipes import Pipe, connected, delete, get, increment, listing, piped, put, transact

NAME = "n"
SHORT = Duration(nanos=50_000_000)
LONG = Duration(seconds=600)
NONE = Duration(nanos=1)
PASSED = (grpc.StatusCode.DEADLINE_EXCEEDED.value[0], "DEADLINE_PASSED")


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    """A server whose store may be held up by its gate."""
    async with run() as running:
        yield running


@pytest.fixture
async def held(running: Running) -> AsyncIterator[Pipe]:
    """A stream on a server whose store is busy with a first write, and stays so until the gate is opened."""
    async with connected(running.server.addresses[0]) as channel, piped(channel, NAME, client="c") as pipe:
        running.store.gate.clear()
        await pipe.send(put("first"), timeout=SHORT)
        await until(lambda: running.store.commits_begun == 1)
        yield pipe


def passed(results: Sequence[s.PipelineResult]) -> bool:
    return [(result.code, result.error.reason) for result in results] == [PASSED] * len(results)


async def keys(pipe: Pipe) -> list[str]:
    return [entry.key for entry in (await pipe.one(listing())).list.entries]


async def test_what_waits_for_others_is_not_begun(running: Running, held: Pipe) -> None:
    late = await held.ask(put("late"), get("late"), listing(), increment("late"), transact(), timeout=SHORT)
    assert passed(late)
    assert [result.error.message for result in late] == [late[0].error.message] * 5
    assert passed(await held.ask(listing(), get("first"), timeout=SHORT))
    patient = await held.send(put("patient"), get("first"), listing(), timeout=LONG)
    running.store.gate.set()
    written, read, listed = await held.all(patient)
    assert (written.revision, read.entry.mod_revision) == (2, 1)
    assert [entry.key for entry in listed.list.entries] == ["first", "patient"]
    assert held.arrived[-1].id == listed.id
    assert (next(result for result in held.arrived if result.id == 1)).revision == 1  # begun, and so finished
    assert running.store.commits_begun == 2


async def test_lists_whose_place_is_under_way_run_out_of_time(running: Running, held: Pipe) -> None:
    """Their message is answered before the group that says which revision they were to show."""
    held_up = await held.send(put("second"))
    late = await held.send(listing(), timeout=Duration(nanos=500_000_000))
    await until(lambda: running.server._committer._pending == 2)
    running.store.gate.set()
    running.store.gate.clear()  # for the next group
    await until(lambda: running.store.commits_begun == 2)
    assert passed(await held.all(late))
    running.store.gate.set()
    assert (await held.all(held_up))[0].revision == 2
    assert await keys(held) == ["first", "second"]


async def test_what_waits_for_nothing_is_answered_meanwhile(held: Pipe) -> None:
    [read, absent] = await held.ask(get("other"), get("another"), timeout=SHORT)
    assert (read.code, absent.code, read.HasField("entry")) == (0, 0, False)


async def test_what_was_not_done_may_be_sent_again_under_its_id(running: Running, held: Pipe) -> None:
    assert passed(await held.ask(increment("k", 5, id=7), timeout=SHORT))
    running.store.gate.set()
    assert [(await held.one(increment("k", 5, id=7))).value for _ in range(2)] == [5, 5]


async def test_each_message_has_its_own(running: Running, held: Pipe) -> None:
    sent = [
        await held.send(put(f"{number}"), timeout=timeout)
        for number, timeout in enumerate((SHORT, LONG, None, SHORT, None))
    ]
    assert passed(await held.all([*sent[0], *sent[3]]))
    running.store.gate.set()
    assert [(await held.all(answers))[0].revision for answers in (sent[1], sent[2], sent[4])] == [2, 3, 4]
    assert await keys(held) == ["1", "2", "4", "first"]


async def test_a_time_that_is_up_at_once(pipe: Pipe) -> None:
    await pipe.one(put("k"))
    every = [put("l"), get("l"), delete("k"), increment("n"), listing(), transact()]
    assert passed(await pipe.ask(*every, timeout=NONE))
    for _ in range(20):
        assert passed(await pipe.ask(put("l"), timeout=NONE))
    assert await keys(pipe) == ["k"]
    wrong, late = await pipe.ask(put(""), put("k"), timeout=NONE)
    assert wrong.error.reason == "INVALID_REQUEST"
    assert passed([late])


async def test_a_long_time_is_none(pipe: Pipe) -> None:
    assert [
        result.code for result in await pipe.ask(put("k"), get("k"), timeout=Duration(seconds=315_576_000_000))
    ] == [
        0,
        0,
    ]


async def test_lists_that_nobody_takes_off_run_out_of_time(pipe: Pipe, wire: Wire, namespace: str) -> None:
    """The pages before them fill what may be on its way, and they are not begun."""
    await pipe.ask(*(put(f"{number}", bytes(1000)) for number in range(1000)))
    pipe.reading.clear()
    lists = await pipe.send(*(listing() for _ in range(200)), timeout=SHORT)
    await pipe.send(put("behind"))
    await until(lambda: wire.get(namespace, "behind") is not None)  # so they were read, and their time is running
    loop = asyncio.get_running_loop()
    up = loop.time() + SHORT.nanos / 1e9
    await until(lambda: loop.time() > up)
    pipe.reading.set()
    codes = [result.code for result in await pipe.all(lists)]
    assert codes == sorted(codes)
    assert codes[-1] == PASSED[0]


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    if program() is None:
        pytest.skip("there is no redis-server")
    with RedisServer() as running:
        yield running


async def test_a_redis_that_hangs(redis: RedisServer) -> None:
    with servers.start("--store", f"{redis.url}?prefix=t-{uuid.uuid4().hex}") as server:
        async with connected(server.address) as channel, piped(channel, NAME, client="c") as pipe:
            await pipe.ask(put("a"), put("b"))
            os.kill(redis.process.pid, signal.SIGSTOP)
            try:
                [begun] = await pipe.send(increment("begun"))
                for operation in (get("a"), get("a", 1), get("begun"), listing(), put("late"), transact()):
                    assert passed(await pipe.ask(operation, timeout=SHORT)), operation
                assert passed(await pipe.ask(get("a"), put("late"), listing(), timeout=SHORT))
            finally:
                os.kill(redis.process.pid, signal.SIGCONT)
            [result] = await pipe.all([begun])
            if result.code:
                assert (result.code, result.error.reason) == (14, "STORE_UNAVAILABLE")
                assert result.error.HasField("retry_delay")

            async def well() -> bool:
                return (await pipe.one(get("a"))).code == 0

            await until(well)
            again = await pipe.one(increment("begun", id=begun.result().id))
            assert again.value == 1
            assert await keys(pipe) == ["a", "b", "begun"]
