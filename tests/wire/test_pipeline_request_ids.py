"""An operation of a pipeline that is sent again, on whatever way, is done once, and answered as it was at first."""

import asyncio
import uuid
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest

from comity.v1 import state_pb2 as s
from comity.v1 import types_pb2 as t
from tests import servers
from tests.proxy import Proxy
from tests.waiting import until
from tests.wire.calls import TIMEOUT, Wire
from tests.wire.pipes import Pipe, connected, create, delete, get, increment, listing, piped, put, transact

FORGOTTEN = (grpc.StatusCode.FAILED_PRECONDITION.value[0], "REQUEST_ID_FORGOTTEN")


def writes(first: int) -> list[s.PipelineOperation]:
    """One of each kind, with ids from the first on, which each change something."""
    asked = [
        create("made", b"1"),
        put("made", b"2", if_version=1, return_previous=True, content_type="text/plain", message="why"),
        increment("number", 5),
        increment("number", 0),
        delete("made", return_previous=True),
        transact(
            conditions=[s.Condition(key="made", exists=False)],
            then=[
                s.Operation(increment=s.IncrementOperation(key="number", delta=1)),
                s.Operation(list=s.ListOperation()),
            ],
        ),
    ]
    for id, operation in enumerate(asked, start=first):
        operation.id = id
    return asked


@pytest.fixture
def client() -> str:
    return uuid.uuid4().hex


async def test_repeats_on_the_same_stream_and_on_another(
    channel: grpc.aio.Channel, namespace: str, client: str
) -> None:
    async with piped(channel, namespace, client=client) as pipe:
        first = await pipe.ask(*writes(1))
        assert [result.code for result in first] == [0] * 6
        assert [result.revision for result in first] == list(range(1, 7))
        assert await pipe.ask(*writes(1)) == first
        assert await pipe.ask(*reversed(writes(1))) == first[::-1]
        together = await pipe.ask(*writes(7), *writes(7))
        assert together[:6] == together[6:]
    async with piped(channel, namespace, client=client) as pipe:
        assert await pipe.ask(*writes(1)) == first
        assert [entry.value for entry in (await pipe.one(listing())).list.entries] == [b"12"]
    async with piped(channel, namespace, client="another") as pipe:
        assert (await pipe.one(increment("number", 1, id=1))).value == 13
    async with piped(channel, namespace) as pipe:
        assert [(await pipe.one(increment("number", 1, id=1))).value for _ in range(2)] == [14, 15]


async def test_repeats_by_calls_and_of_calls(
    channel: grpc.aio.Channel, wire: Wire, namespace: str, client: str
) -> None:
    def options(sequence: int) -> t.WriteOptions:
        return t.WriteOptions(request_id=t.RequestId(client=client, sequence=sequence), message="why")

    putting = s.PutRequest(namespace=namespace, key="k", value=b"1", return_previous=True, options=options(1))
    deleting = s.DeleteRequest(namespace=namespace, key="k", return_previous=True, options=options(2))
    adding = s.TransactRequest(
        namespace=namespace,
        then=[s.Operation(increment=s.IncrementOperation(key="n", delta=3))],
        options=options(3),
    )
    asked = [
        put("k", b"1", return_previous=True, id=1, message="why"),
        delete("k", return_previous=True, id=2, message="why"),
        increment("n", 3, id=3, message="why"),
    ]
    async with piped(channel, namespace, client=client) as pipe:
        results = await pipe.ask(*asked)
        assert wire.call(putting).revision == 1
        assert wire.call(deleting).previous[0] == results[1].entry
        assert wire.call(adding).results[0].increment.value == 3
        putting.options.request_id.sequence = 4
        adding.options.request_id.sequence = 5
        made = wire.call(putting)
        assert wire.call(adding).results[0].increment.value == 6
        repeated, added = await pipe.ask(
            put("k", b"1", return_previous=True, id=4, message="why"), increment("n", 3, id=5, message="why")
        )
        assert (repeated.revision, repeated.version) == (made.revision, made.version)
        assert added.value == 6
        assert (await pipe.one(listing())).revision == 5
        made, over = await pipe.ask(create("new", id=6), put("new", if_version=1, if_revision=6, id=7))
        creating = s.PutRequest(namespace=namespace, key="new", if_version=0, options=options(6))
        assert wire.call(creating).revision == made.revision
        changing = s.PutRequest(namespace=namespace, key="new", if_version=1, if_revision=6, options=options(7))
        assert wire.call(changing).revision == over.revision == 7


async def test_what_changed_nothing_is_judged_again(channel: grpc.aio.Channel, namespace: str, client: str) -> None:
    async with piped(channel, namespace, client=client) as pipe:
        lost = await pipe.one(put("k", if_version=1, id=1))
        absent = await pipe.one(delete("k", id=2))
        assert (lost.error.reason, absent.version) == ("CONFLICT", 0)
        await pipe.one(put("k", id=3))
        assert (await pipe.one(put("k", if_version=1, id=1))).version == 2
        assert (await pipe.one(delete("k", id=2))).version == 1


async def test_reads_are_read_again(channel: grpc.aio.Channel, namespace: str, client: str) -> None:
    async with piped(channel, namespace, client=client) as pipe:
        for value in (b"1", b"2"):
            await pipe.one(put("k", value))
            read, listed = await pipe.ask(get("k", revision=0), listing())
            assert read.entry.value == listed.list.entries[0].value == value
            again = get("k")
            again.id = read.id
            assert (await pipe.one(again)).entry.value == value


async def test_another_request_under_the_same_id(channel: grpc.aio.Channel, namespace: str, client: str) -> None:
    async with piped(channel, namespace, client=client) as pipe:
        await pipe.one(put("k", b"1", id=1))
        others = [
            put("k", b"2", id=1),
            put("l", b"1", id=1),
            delete("k", id=1),
            increment("n", id=1),
            create("k", id=1),
        ]
        for result in await pipe.ask(*others):
            assert (result.error.reason, list(result.error.violations)) == ("REQUEST_ID_REUSED", ["id"])
        read = get("k")
        read.id = 1  # of a read the id is but a name
        assert (await pipe.one(read)).entry.value == b"1"


async def test_what_is_awaited_no_longer_is_forgotten(channel: grpc.aio.Channel, namespace: str, client: str) -> None:
    async with piped(channel, namespace, client=client) as pipe:
        for id in range(1, 11):
            await pipe.one(put("k", id=id))
        assert (await pipe.one(put("k", id=3))).revision == 3  # nothing was said yet
        await pipe.one(put("k", id=11), awaited=8)
        results = await pipe.ask(*(put("k", id=id) for id in range(5, 12)), awaited=8)
        assert [(result.code, result.error.reason) for result in results[:3]] == [FORGOTTEN] * 3
        assert [result.revision for result in results[3:]] == [8, 9, 10, 11]
        assert dict(results[0].error.metadata) == {"sequence": "5", "awaited": "8"}
        below = await pipe.one(put("k", id=12), awaited=13)
        assert (below.code, below.error.reason) == FORGOTTEN
        assert (await pipe.one(put("k", id=20), awaited=2)).revision == 12  # it never goes back
        assert (await pipe.one(put("k", id=7))).error.reason == "REQUEST_ID_FORGOTTEN"
    async with piped(channel, namespace, client=client) as pipe:
        assert (await pipe.one(put("k", id=7))).error.reason == "REQUEST_ID_FORGOTTEN"


@pytest.mark.parametrize("killed", [True, False])
async def test_repeats_after_a_restart(tmp_path: Path, client: str, killed: bool) -> None:
    with servers.start("--store", f"sqlite:{tmp_path / 'state.db'}") as server:
        async with connected(server.address) as channel, piped(channel, "n", client=client) as pipe:
            first = await pipe.ask(*writes(1))
            await pipe.one(put("k", id=7), awaited=2)
        if killed:
            server.kill()
        server.restart()
        async with connected(server.address) as channel, piped(channel, "n", client=client) as pipe:
            assert await pipe.ask(*writes(1)[1:], awaited=2) == first[1:]
            assert (await pipe.one(writes(1)[0])).error.reason == "REQUEST_ID_FORGOTTEN"
            assert [entry.key for entry in (await pipe.one(listing())).list.entries] == ["k", "number"]
            assert (await pipe.one(put("k", id=8))).version == 2


async def send_all(pipe: Pipe, operations: Sequence[s.PipelineOperation], size: int = 20) -> None:
    for start in range(0, len(operations), size):
        await pipe.send(*operations[start : start + size])


async def test_what_was_cut_off_is_sent_again_and_done_once(
    server: servers.Server, namespace: str, client: str
) -> None:
    """The connection breaks again and again: what has no answer by then is sent once more, under the ids it had."""
    async with Proxy(server.address) as proxy:
        waiting = {id: increment("number", 1, id=id) for id in range(1, 401)}
        totals: dict[int, int] = {}
        for cut in (True, True, True, False):
            async with connected(proxy.address) as channel, piped(channel, namespace, client=client) as pipe:
                if cut:
                    asked = list(waiting.values())[:200]
                    await pipe.all(await pipe.send(*asked[:50]))
                    proxy.stall()
                    await send_all(pipe, asked[50:])
                    await proxy.held_back()  # something was done, whose answer is on its way
                    await proxy.cut()
                    proxy.resume()
                else:
                    await pipe.all(await pipe.send(*waiting.values()))
                    await pipe.done_writing()
                await pipe.ended()
            for result in pipe.arrived:
                assert result.code == 0
                assert result.id not in totals
                totals[result.id] = result.value
                del waiting[result.id]
        assert not waiting
        assert sorted(totals.values()) == list(range(1, 401))


async def test_servers_that_share_a_redis_know_each_others_ids(redis_url: str, client: str) -> None:
    with servers.start("--store", redis_url) as one, servers.start("--store", redis_url) as two:
        async with connected(one.address) as channel, piped(channel, "n", client=client) as pipe:
            first = await pipe.ask(*writes(1))
        async with connected(two.address) as channel, piped(channel, "n", client=client) as pipe:
            assert await pipe.ask(*writes(1)) == first
            assert (await pipe.one(listing())).revision == 6


async def test_repeats_while_the_first_is_under_way(channel: grpc.aio.Channel, namespace: str, client: str) -> None:
    async with piped(channel, namespace, client=client) as one, piped(channel, namespace, client=client) as two:
        asked = [increment("number", 1, id=id) for id in range(1, 501)]
        sent = await one.send(*asked)
        again = await two.send(*asked)
        results, repeated = await asyncio.gather(one.all(sent), two.all(again))
    assert results == repeated
    assert [result.value for result in results] == list(range(1, 501))


async def test_a_stream_that_is_cancelled_may_be_repeated(
    channel: grpc.aio.Channel, wire: Wire, namespace: str, client: str
) -> None:
    asked = [increment("number", 1, id=id) for id in range(1, 501)]
    async with piped(channel, namespace, client=client) as pipe:
        await send_all(pipe, asked)
        await until(lambda: wire.get(namespace, "number") is not None)
    async with piped(channel, namespace, client=client) as pipe:
        results = await pipe.ask(*asked)
    assert [result.value for result in results] == list(range(1, 501))
    assert wire.state.Get(s.GetRequest(namespace=namespace, key="number"), timeout=TIMEOUT).revision == 500
