"""Pipelines: what touches the same key takes effect in the order in which it was sent, and holds up nothing else."""

import uuid

import grpc
import pytest

from comity.v1 import state_pb2 as s
from comity_server.services import pipeline_writes
from tests import servers
from tests.waiting import until
from tests.wire.calls import TIMEOUT, Wire
from tests.wire.inprocess import run
from tests.wire.pipes import Pipe, connected, create, delete, get, increment, listing, piped, put, transact

MIB = 1024 * 1024


def keys(result: s.PipelineResult) -> list[str]:
    assert not result.code, result
    return [entry.key for entry in result.list.entries]


async def test_each_read_sees_what_was_before_it_and_nothing_after(pipe: Pipe) -> None:
    results = await pipe.ask(
        get("k"), listing(), put("k", b"1"), get("k"), listing(), put("l"), delete("k"), get("k"), listing(), put("m")
    )
    assert [result.HasField("entry") for result in results if result.id in (1, 4, 8)] == [False, True, False]
    assert results[3].entry.value == b"1"
    assert [keys(result) for result in (results[1], results[4], results[8])] == [[], ["k"], ["l"]]
    assert [results[place].revision for place in (1, 4, 8)] == [0, 1, 3]


async def test_a_list_does_not_see_what_follows_a_write_that_failed(pipe: Pipe) -> None:
    await pipe.one(put("text", b"x"))
    failed, listed, *_ = await pipe.ask(increment("text"), listing(), put("later"), put("latest"))
    assert failed.error.reason == "NOT_A_NUMBER"
    assert keys(listed) == ["text"]


async def test_a_list_after_a_repeat_sees_what_is_and_not_what_was(channel: grpc.aio.Channel, namespace: str) -> None:
    client = uuid.uuid4().hex
    async with piped(channel, namespace, client=client) as pipe:
        first = put("a", id=1)
        before = await pipe.one(first)
        await pipe.ask(put("b"), put("c"))
        repeated, listed, _ = await pipe.ask(first, listing(), put("d"))
        assert repeated == before
        assert keys(listed) == ["a", "b", "c"]
        repeated, listed = await pipe.ask(first, listing())
        assert keys(listed) == ["a", "b", "c", "d"]


async def test_what_is_read_behind_a_transaction_sees_what_it_did(pipe: Pipe) -> None:
    await pipe.ask(put("a/1"), put("a/2"), put("b"))
    results = await pipe.ask(
        transact(then=[s.Operation(delete=s.DeleteOperation(prefix="a/"))]),
        get("a/1"),
        listing(),
        create("a/1"),
        get("b"),
    )
    assert not results[1].HasField("entry")
    assert keys(results[2]) == ["b"]
    assert results[3].version == 1
    assert results[4].entry.key == "b"


async def test_a_list_of_a_namespace_that_is_not_there_yet_stays_empty(pipe: Pipe) -> None:
    for _ in range(3):
        results = await pipe.ask(*(listing(f"{prefix}") for prefix in ("", "a", "b")), put("a"), delete("a"))
        assert [keys(result) for result in results[:3]] == [[]] * 3


async def test_pages_go_on_beside_writes(pipe: Pipe) -> None:
    await pipe.ask(*(put(f"{number}") for number in range(5)))
    first, *_ = await pipe.ask(listing(page_size=2), put("9"), delete("3"))
    rest = listing(page_size=2, page_token=first.list.next_page_token)
    _, second, _ = await pipe.ask(put("8"), rest, delete("4"))
    assert [keys(first), keys(second)] == [["0", "1"], ["2", "3"]]
    assert first.revision == second.revision == 5
    again, _ = await pipe.ask(rest, put("7"))
    assert again.list == second.list


async def test_a_read_waits_for_as_long_as_any_write_before_it_may_change_its_key() -> None:
    """Also where several messages have the key; and what is changed no more is forgotten."""
    async with run() as running, connected(running.server.addresses[0]) as channel, piped(channel, "n") as pipe:
        await pipe.ask(put("k"), put("l"))
        [stream] = running.server._state._pipelines._streams
        wide = transact(then=[s.Operation(delete=s.DeleteOperation(prefix="l"))])
        for operations in ([[put("k")], [put("k"), put("m")]], [[wide], [put("k")], [wide]]):
            running.store.gate.clear()
            begun = running.store.commits_begun
            first, *rest = [(await pipe.send(*each))[0] for each in operations]
            await until(lambda begun=begun: running.store.commits_begun == begun + 1)  # type: ignore[misc]
            [read] = await pipe.send(get("k"))
            [free] = await pipe.send(get("z", 1))
            await pipe.all([free])
            assert not read.done()
            running.store.gate.set()
            written = (await pipe.all([first, *rest]))[-1]
            assert (await pipe.all([read]))[0].revision >= written.revision
            assert not stream._writes
            assert (len(stream._writes._changing), stream._writes._wide) == (0, 0)


async def test_a_list_at_a_revision_has_no_place_among_the_writes() -> None:
    async with run() as running, connected(running.server.addresses[0]) as channel, piped(channel, "n") as pipe:
        first, *_ = (await pipe.ask(put("a"), put("b"), listing(page_size=1)))[::-1]
        rest = listing(page_size=1, page_token=first.list.next_page_token)
        running.store.gate.clear()
        [held] = await pipe.send(put("c"))
        await until(lambda: running.store.commits_begun == 2)
        assert [keys(result) for result in await pipe.ask(listing(revision=1), rest)] == [["a"], ["b"]]
        failed = await pipe.one(listing(revision=9))
        assert failed.error.reason == "REVISION_IN_FUTURE"
        late, at, newest = await pipe.send(put("d"), listing(revision=2), listing())
        [seen] = await pipe.all([at])
        assert keys(seen) == ["a", "b"]
        assert not any(answer.done() for answer in (held, late, newest))
        running.store.gate.set()
        assert keys((await pipe.all([held, late, newest]))[-1]) == ["a", "b", "c", "d"]


async def test_a_list_whose_place_is_of_a_history_that_is_gone_shows_what_there_is() -> None:
    async with run() as running, connected(running.server.addresses[0]) as channel, piped(channel, "n") as pipe:
        await running.state.Put(s.PutRequest(namespace="shorter", key="new"), timeout=TIMEOUT)
        await pipe.ask(put("old", bytes(MIB - 1024)), put("old", bytes(MIB - 1024)))
        pipe.reading.clear()
        lists = await pipe.send(*(listing() for _ in range(40)))
        [stream] = running.server._state._pipelines._streams
        await until(lambda: stream._lists._page_bytes > MIB)  # the others wait for these to be taken off
        named = running.store.namespaces_by_name
        named["n"] = named.pop("shorter")
        pipe.reading.set()
        results = await pipe.all(lists)
        assert {result.code for result in results} == {0}
        assert (keys(results[0]), keys(results[-1]), results[-1].revision) == (["old"], ["new"], 1)
        assert (await pipe.one(listing(revision=2))).error.reason == "REVISION_IN_FUTURE"


@pytest.mark.parametrize("together", [True, False])
async def test_slow_lists_do_not_hold_up_a_put(pipe: Pipe, wire: Wire, namespace: str, together: bool) -> None:
    await pipe.ask(*(put(f"{number:04}", bytes(200)) for number in range(1000)))
    pipe.reading.clear()
    lists = await pipe.send(*(listing() for _ in range(300)), *([put("k")] if together else []))
    written = lists.pop() if together else (await pipe.send(put("k")))[0]
    await until(lambda: wire.get(namespace, "k") is not None)
    pipe.reading.set()
    [result] = await pipe.all([written])
    assert not all(answer.done() for answer in lists)  # not even on their way: they are 60 MB
    seen = await pipe.all(lists)
    assert [len(page.list.entries) for page in seen] == [1000] * 300
    order = [answer.id for answer in pipe.arrived]
    assert order.index(result.id) < len(order) - 200


async def test_lists_that_nobody_takes_off_are_not_made(pipe: Pipe, wire: Wire, namespace: str) -> None:
    """A page is read when there is room for it: what it shows is of its place all the same."""
    await pipe.ask(*(put(f"{number}", bytes(1000)) for number in range(1000)))
    pipe.reading.clear()
    lists = [answer for _ in range(50) for answer in await pipe.send(listing(), put("0", bytes(999)))]
    await until(lambda: wire.state.Get(s.GetRequest(namespace=namespace, key="0"), timeout=TIMEOUT).entry.version == 51)
    pipe.reading.set()
    results = (await pipe.all(lists))[::2]
    assert [result.list.entries[0].version for result in results] == list(range(1, 51))
    assert [result.revision for result in results] == list(range(1000, 1050))


async def test_servers_that_share_a_redis_see_what_another_has_answered(redis_url: str) -> None:
    with servers.start("--store", redis_url) as one, servers.start("--store", redis_url) as two:
        async with (
            connected(one.address) as here,
            connected(two.address) as there,
            piped(here, "n") as writer,
            piped(there, "n") as reader,
        ):
            for number in range(1, 31):
                written = await writer.one(put("k", b"%d" % number))
                read, listed, _, behind = await reader.ask(get("k"), listing("k"), put("other"), listing())
                assert read.entry.mod_revision == listed.list.entries[0].mod_revision == written.revision
                assert keys(behind) == ["k", "other"]
                assert (await writer.one(get("other"))).entry.version == number


async def test_a_message_that_asks_for_much_keeps_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its writes are several batches, of which each waits until the one before it is through."""
    monkeypatch.setattr(pipeline_writes, "LISTED", 1000)
    everything = s.Operation(list=s.ListOperation())
    async with run() as running, connected(running.server.addresses[0]) as channel, piped(channel, "n") as pipe:
        writes = [transact(then=[s.Operation(put=s.PutOperation(key=f"k{number}")), everything]) for number in range(5)]
        reads = [(get("k0"), listing(), get(f"k{number}"), get("k9"), increment("n")) for number in range(5)]
        results = await pipe.ask(
            *(each for write, read in zip(writes, reads, strict=True) for each in (write, *read)), get("k9")
        )
        assert running.store.commits_begun == 5
    for number in range(5):
        written, first, listed, last, absent, added = results[6 * number : 6 * number + 6]
        assert written.revision == listed.revision == last.revision == last.entry.mod_revision == 2 * number + 1
        assert first.entry.mod_revision == 1
        expected = [f"k{each}" for each in range(number + 1)] + ["n"] * (number > 0)
        assert keys(listed) == [entry.key for entry in written.transact.results[1].list.entries] == expected
        assert not absent.HasField("entry")
        assert added.value == number + 1
