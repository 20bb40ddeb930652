"""Pipelines: what each kind of operation answers, and what is said once for the stream."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import grpc
import pytest

from comity.v1 import state_pb2 as s
from comity.v1 import types_pb2 as t
from comity_server.model import ReadAll
from tests.wire.calls import Wire
from tests.wire.inprocess import run
from tests.wire.pipes import Pipe, connected, create, delete, get, increment, listing, piped, put, transact
from tests.wire.test_bad_requests import MIB, SAFE

CLIENT_BYTES = 4 * MIB  # that gRPC takes by default
TRACE_PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_get(pipe: Pipe, wire: Wire, namespace: str) -> None:
    before = datetime.now(UTC)
    absent = await pipe.one(get("k"))
    assert (absent.code, absent.revision, absent.HasField("entry")) == (0, 0, False)
    await pipe.ask(put("k", b"1", content_type="text/plain"), put("k", b"2"), put("l"))
    newest, old, gone = await pipe.ask(get("k"), get("k", 1), get("l", 2))
    assert newest.revision == 3
    entry = newest.entry
    assert (entry.key, entry.value, entry.content_type) == ("k", b"2", "")
    assert (entry.version, entry.create_revision, entry.mod_revision, entry.lease_id) == (2, 1, 2, 0)
    assert before <= entry.update_time.ToDatetime(UTC) <= datetime.now(UTC)
    assert (old.revision, old.entry.value, old.entry.content_type) == (1, b"1", "text/plain")
    assert (gone.revision, gone.HasField("entry")) == (2, False)
    assert entry == wire.call(s.GetRequest(namespace=namespace, key="k")).entry


async def test_gets_of_one_revision_go_to_the_store_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a Redis each of them would be a way there and back, before anything behind it is looked at."""
    async with run() as running, connected(running.server.addresses[0]) as channel, piped(channel, "n") as pipe:
        await pipe.ask(*(put("k", b"%d" % number) for number in range(1, 4)))
        asked: list[tuple[int, int]] = []
        get_all = running.store.get_all

        async def noted(namespace: str, keys: Sequence[str], revision: int = 0) -> ReadAll:
            asked.append((revision, len(keys)))
            return await get_all(namespace, keys, revision)

        monkeypatch.setattr(running.store, "get_all", noted)
        wanted = [2, 1, 0, 2, 9, 1, 2, 0]
        results = await pipe.ask(*(get("k", revision) for revision in wanted), put("k"), get("k", 2))
        assert [result.revision for result in results] == [2, 1, 3, 2, 0, 1, 2, 3, 4, 2]
        assert [result.entry.value for result in results[:4]] == [b"2", b"1", b"3", b"2"]
        assert results[4].error.reason == "REVISION_IN_FUTURE"
        assert sorted(asked) == [(0, 2), (1, 2), (2, 4), (9, 1)]


async def test_put_and_create(pipe: Pipe) -> None:
    made, again, over, silent = await pipe.ask(
        create("k", b"1", content_type="text/plain"),
        create("k", b"2"),
        put("k", b"3", if_version=1, if_revision=1, return_previous=True),
        put("k", b"4", if_version=2),
    )
    assert (made.code, made.revision, made.version, made.HasField("entry")) == (0, 1, 1, False)
    assert (again.code, again.error.reason) == (grpc.StatusCode.ABORTED.value[0], "CONFLICT")
    assert (again.version, again.revision) == (1, 1)
    assert (over.revision, over.version, over.entry.value) == (2, 2, b"1")
    assert (over.entry.content_type, over.entry.mod_revision) == ("text/plain", 1)
    assert (silent.revision, silent.version, silent.HasField("entry")) == (3, 3, False)
    await pipe.one(delete("k"))
    fresh = await pipe.one(create("k", return_previous=True))
    assert (fresh.revision, fresh.version, fresh.HasField("entry")) == (5, 1, False)


async def test_delete(pipe: Pipe) -> None:
    await pipe.ask(put("k", b"1"), put("l", b"1"))
    lost, gone, absent, shown = await pipe.ask(
        delete("k", if_version=2), delete("k", if_version=1), delete("k"), delete("l", return_previous=True)
    )
    assert (lost.error.reason, lost.version, lost.revision) == ("CONFLICT", 1, 1)
    assert (gone.revision, gone.version, gone.HasField("entry")) == (3, 1, False)
    assert (absent.code, absent.revision, absent.version) == (0, 3, 0)  # no error, and no revision
    assert (shown.revision, shown.version, shown.entry.value) == (4, 1, b"1")


async def test_increment(pipe: Pipe) -> None:
    first, second, least = await pipe.ask(increment("k", SAFE), increment("k", -SAFE), increment("l", -SAFE))
    assert (first.revision, first.version, first.value) == (1, 1, SAFE)
    assert (second.revision, second.version, second.value) == (2, 2, 0)
    assert least.value == -SAFE
    too_much = await pipe.one(increment("l", -1))
    assert (too_much.code, too_much.error.reason) == (grpc.StatusCode.FAILED_PRECONDITION.value[0], "NOT_A_NUMBER")
    assert (await pipe.one(get("k"))).entry.content_type == "application/json"


async def test_list(pipe: Pipe, wire: Wire, namespace: str) -> None:
    await pipe.ask(*(put(f"a/{number}", b"v", content_type="text/plain") for number in range(3)), put("b"))
    whole, bare, old, page = await pipe.ask(
        listing("a/"), listing("a/", keys_only=True), listing(revision=2), listing(page_size=2)
    )
    assert whole.list == wire.call(s.ListRequest(namespace=namespace, prefix="a/"))
    assert whole.revision == whole.list.revision == 4
    assert [(entry.key, entry.value) for entry in bare.list.entries] == [(f"a/{number}", b"") for number in range(3)]
    assert (old.revision, [entry.key for entry in old.list.entries]) == (2, ["a/0", "a/1"])
    rest = await pipe.one(listing(page_size=2, page_token=page.list.next_page_token))
    assert [entry.key for entry in rest.list.entries] == ["a/2", "b"]
    assert not rest.list.next_page_token


async def test_transact(pipe: Pipe) -> None:
    await pipe.one(put("k", b"1"))
    steps = [
        s.Operation(increment=s.IncrementOperation(key="n", delta=5)),
        s.Operation(get=s.GetOperation(key="n")),
        s.Operation(put=s.PutOperation(key="k", value=b"2", return_previous=True)),
        s.Operation(delete=s.DeleteOperation(prefix="x")),
        s.Operation(list=s.ListOperation(keys_only=True)),
    ]
    condition = s.Condition(key="k", version=1)
    done, lost, empty = await pipe.ask(
        transact(conditions=[condition], then=steps), transact(conditions=[condition], then=steps), transact()
    )
    assert (done.code, done.revision, done.transact.committed, done.transact.revision) == (0, 2, True, 2)
    added, read, written, deleted, listed = done.transact.results
    assert (added.increment.value, read.get.entry.value, written.put.previous.value) == (5, b"5", b"1")
    assert deleted.WhichOneof("result") == "delete"
    assert [entry.key for entry in listed.list.entries] == ["k", "n"]
    assert (lost.code, lost.transact.committed, lost.revision) == (0, False, 2)
    [failed] = lost.transact.failed
    assert (failed.index, failed.current.value, failed.current.version) == (0, b"2", 2)
    assert (empty.code, empty.transact.committed, empty.revision) == (0, True, 2)


async def test_who_and_why(channel: grpc.aio.Channel, wire: Wire, namespace: str) -> None:
    metadata = (("comity-message", "by metadata"), ("traceparent", TRACE_PARENT))
    other = TRACE_PARENT.replace("4b", "5b")
    async with piped(channel, namespace, author="me", metadata=metadata) as pipe:
        await pipe.ask(
            put("k"),
            create("l", message="why", trace_parent=other),
            transact(then=[s.Operation(put=s.PutOperation(key="m"))]),
            increment("n", trace_parent="nonsense"),
        )
    async with piped(channel, namespace, metadata=(("comity-author-bin", "ä".encode()),)) as pipe:
        await pipe.one(delete("k"))
    history = wire.call(s.HistoryRequest(namespace=namespace, order=s.HISTORY_ORDER_OLDEST_FIRST))
    assert [(commit.author, commit.message, commit.trace_parent) for commit in history.commits] == [
        ("me", "by metadata", TRACE_PARENT),
        ("me", "why", other),
        ("me", "by metadata", TRACE_PARENT),
        ("me", "by metadata", TRACE_PARENT),
        ("ä", "", ""),
    ]


async def test_as_much_as_is_allowed_is_taken(channel: grpc.aio.Channel, namespace: str) -> None:
    async with piped(channel, namespace, client="c" * 128, author="a" * 255) as pipe:
        largest = put("é" * 512, bytes(MIB), content_type="é " * 85, message="m" * 4096, id=2**63 - 1001)
        assert (await pipe.one(largest, awaited=2**63 - 1001)).code == 0
        results = await pipe.ask(*(put(f"{number}") for number in range(1000)))
        assert [result.revision for result in results] == list(range(2, 1002))
        assert pipe.last_id == 2**63 - 1
        assert await pipe.ask() == []


async def test_many_messages_at_once(pipe: Pipe) -> None:
    """More than the server takes in before it has answered some."""
    answers = []
    for _ in range(30):
        answers += await pipe.send(*(increment("k") for _ in range(500)))
    assert [result.value for result in await pipe.all(answers)] == list(range(1, 15_001))


async def test_answers_fit_into_what_a_client_takes(pipe: Pipe) -> None:
    for number in range(4):
        assert (await pipe.one(put(f"{number}", bytes(MIB)))).code == 0
    large = transact(then=[s.Operation(get=s.GetOperation(key=f"{number}")) for number in range(2)])
    small = [get("absent") for _ in range(500)]
    results = await pipe.ask(
        *(get(f"{number % 4}") for number in range(50)), large, large, *small, listing(), listing()
    )
    assert {result.code for result in results} == {0}
    assert {len(result.entry.value) for result in results[:50]} == {MIB}
    assert [sum(len(step.get.entry.value) for step in result.transact.results) for result in results[50:52]] == [
        2 * MIB
    ] * 2
    assert max(pipe.message_bytes) < CLIENT_BYTES
    assert max(pipe.message_bytes) > 2 * MIB


async def test_the_largest_answer_fits_beside_others(pipe: Pipe) -> None:
    """A transaction that reads as much as it may, and whose conditions all failed, behind nearly a message's worth."""
    names = [f"{number:04}" + "k" * 1000 for number in range(1000)]
    for start in range(0, 1000, 100):
        await pipe.ask(*(put(name, bytes(1200), content_type="c" * 255) for name in names[start : start + 100]))
    everything = s.Operation(list=s.ListOperation())
    conditions = [s.Condition(key=name, version=99) for name in names]
    largest = transact(conditions=conditions, otherwise=[everything])
    pipe.message_bytes.clear()
    results = await pipe.ask(*(get(name) for name in names[:400]), largest, *(get(name) for name in names[:400]))
    answer = results[400].transact
    assert (len(answer.results[0].list.entries), len(answer.failed)) == (1000, 1000)
    assert answer.ByteSize() > 3_700_000
    assert max(pipe.message_bytes) < CLIENT_BYTES
    assert all(len(result.entry.value) == 1200 for result in (*results[:400], *results[401:]))


async def test_many_small_answers_share_messages(pipe: Pipe) -> None:
    await pipe.ask(*(put(f"{number}") for number in range(1000)))
    assert len(pipe.message_bytes) < 50


@pytest.mark.parametrize("waiting", [True, False])
async def test_a_stream_ends_well_when_what_was_sent_is_answered(pipe: Pipe, waiting: bool) -> None:
    answers = await pipe.send(*(put(f"{number}") for number in range(500)), listing(), get("0"))
    if waiting:
        await pipe.all(answers)
    await pipe.done_writing()
    assert await pipe.ended() is None
    assert len(pipe.arrived) == 502
    assert all(answer.done() for answer in answers)


async def test_streams_of_one_namespace_see_each_other(channel: grpc.aio.Channel, namespace: str) -> None:
    async with piped(channel, namespace) as one, piped(channel, namespace) as two:
        for number in range(20):
            await one.one(put("k", b"%d" % number))
            read, listed = await two.ask(get("k"), listing())
            assert read.entry.value == listed.list.entries[0].value == b"%d" % number


async def test_creates_of_many_streams_are_won_by_one(channel: grpc.aio.Channel, namespace: str) -> None:
    async with piped(channel, namespace) as one, piped(channel, namespace) as two, piped(channel, namespace) as three:
        sent = [await pipe.send(*(create(f"{number}") for number in range(300))) for pipe in (one, two, three)]
        results = await asyncio.gather(
            *(pipe.all(answers) for pipe, answers in zip((one, two, three), sent, strict=True))
        )
    for contenders in zip(*results, strict=True):
        assert sorted(result.code for result in contenders) == [0, 10, 10]


async def test_a_watch_sees_what_a_pipeline_writes(pipe: Pipe, wire: Wire, namespace: str) -> None:
    watch = wire.state.Watch(s.WatchRequest(namespace=namespace, prefix=""), timeout=60)
    assert next(watch).created
    await pipe.ask(put("a"), put("a"), delete("a"))
    seen: list[tuple[int, int]] = []
    while len(seen) < 3:
        seen += [(commit.revision, commit.events[0].type) for commit in next(watch).commits]
    watch.cancel()
    assert seen == [(1, t.EVENT_TYPE_PUT), (2, t.EVENT_TYPE_PUT), (3, t.EVENT_TYPE_DELETE)]
