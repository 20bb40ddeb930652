"""Watch streams as a client of any language sees them."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from comity.v1 import namespace_pb2 as n
from comity.v1 import state_pb2 as s
from comity.v1 import types_pb2 as t
from tests.wire.calls import TIMEOUT, Refusal, Wire, read_refusal

MIB = 1024 * 1024


@contextmanager
def watching(wire: Wire, namespace: str, **fields: Any) -> Iterator[Iterator[s.WatchResponse]]:
    """A stream, behind its first message."""
    stream = wire.state.Watch(s.WatchRequest(namespace=namespace, **fields), timeout=TIMEOUT)
    try:
        first = next(stream)
        assert (first.created, len(first.commits)) == (True, 0)
        yield stream
    finally:
        stream.cancel()


def commits(stream: Iterator[s.WatchResponse], last: int) -> list[t.Commit]:
    """What the stream shows up to a revision."""
    found: list[t.Commit] = []
    for message in stream:
        found += message.commits
        if message.revision >= last:
            return found
    raise AssertionError("the stream ended")


def end_of(stream: Iterator[s.WatchResponse]) -> Refusal:
    try:
        for _ in stream:
            pass
    except grpc.RpcError as error:
        return read_refusal(error)
    raise AssertionError("the stream ended without an error")


def keys(found: Sequence[t.Commit]) -> list[tuple[int, list[str]]]:
    return [(commit.revision, [event.entry.key for event in commit.events]) for commit in found]


def test_the_first_message_says_where_the_stream_begins(wire: Wire, namespace: str) -> None:
    empty = wire.call(s.WatchRequest(namespace=namespace, prefix=""))
    assert (empty.created, empty.revision) == (True, 0)
    for _ in range(3):
        wire.put(namespace, "k")
    epoch = wire.call(n.GetNamespaceRequest(namespace=namespace)).namespace.epoch
    now = wire.call(s.WatchRequest(namespace=namespace, key="k"))
    assert (now.created, now.revision, now.epoch) == (True, 3, epoch)
    then = wire.call(s.WatchRequest(namespace=namespace, key="k", from_revision=2, epoch=epoch))
    assert (then.created, then.revision) == (True, 1)
    for answer in (
        wire.call(s.GetRequest(namespace=namespace, key="k")),
        wire.call(s.GetRequest(namespace=namespace, key="absent")),
        wire.call(s.ListRequest(namespace=namespace, page_size=1)),
        wire.call(s.TransactRequest(namespace=namespace)),
    ):
        assert (answer.revision, answer.epoch) == (3, epoch)
    other = wire.refused(s.WatchRequest(namespace=namespace, key="k", epoch="other"))
    assert (other.code, other.reason) == (grpc.StatusCode.OUT_OF_RANGE, "EPOCH_CHANGED")
    assert other.metadata == {"epoch": epoch, "floor": "0", "revision": "3"}


def test_commits_in_order_from_a_revision_on(wire: Wire, namespace: str) -> None:
    wire.put(namespace, "a/1")
    wire.put(namespace, "b/1")
    with watching(wire, namespace, prefix="a/", from_revision=1) as stream:
        wire.put(namespace, "a/2")
        assert keys(commits(stream, 3)) == [(1, ["a/1"]), (3, ["a/2"])]
        wire.put(namespace, "a/")
        assert keys(commits(stream, 4)) == [(4, ["a/"])]


def test_a_key_is_not_a_prefix(wire: Wire, namespace: str) -> None:
    with watching(wire, namespace, key="a") as stream:
        wire.put(namespace, "ab")
        wire.put(namespace, "a")
        assert keys(commits(stream, 2)) == [(2, ["a"])]


def test_what_a_commit_says(wire: Wire, namespace: str) -> None:
    wire.put(namespace, "k", b"old")
    with watching(wire, namespace, prefix="", previous=True) as stream:
        options = t.WriteOptions(author="who", message="why")
        wire.call(s.PutRequest(namespace=namespace, key="k", value=b"new", content_type="c", options=options))
        wire.call(s.DeleteRequest(namespace=namespace, key="k"))
        put, delete = commits(stream, 3)
    assert (put.revision, put.author, put.message, put.partial) == (2, "who", "why", False)
    event = put.events[0]
    assert (event.type, event.cause) == (t.EVENT_TYPE_PUT, t.EVENT_CAUSE_CLIENT)
    assert (event.entry.value, event.entry.content_type, event.entry.version) == (b"new", "c", 2)
    assert event.entry.update_time == put.commit_time
    assert event.previous.value == b"old"
    event = delete.events[0]
    assert event.type == t.EVENT_TYPE_DELETE
    expected = t.Entry(key="k", mod_revision=3, update_time=delete.commit_time)
    assert event.entry == expected
    assert event.previous.value == b"new"


@pytest.mark.parametrize(
    ("types", "shown"),
    [
        ([], [1, 2, 3]),
        ([t.EVENT_TYPE_PUT], [1, 3]),
        ([t.EVENT_TYPE_DELETE], [2]),
        ([t.EVENT_TYPE_DELETE, t.EVENT_TYPE_PUT, t.EVENT_TYPE_PUT], [1, 2, 3]),
    ],
)
def test_event_types(wire: Wire, namespace: str, types: list[t.EventType], shown: list[int]) -> None:
    wire.put(namespace, "k")
    wire.call(s.DeleteRequest(namespace=namespace, key="k"))
    wire.put(namespace, "k")
    with watching(wire, namespace, prefix="", event_types=types, from_revision=1) as stream:
        interval = [commit.revision for commit in commits(stream, shown[-1])]
    assert interval == shown


def test_a_quiet_stream_says_how_far_it_is(wire: Wire, namespace: str) -> None:
    with watching(wire, namespace, key="k", progress_interval=Duration(nanos=100_000_000)) as stream:
        wire.put(namespace, "other")
        message = next(message for message in stream if message.revision == 1)
        assert not message.commits
        assert not message.created


def test_a_large_commit_comes_in_parts_that_say_so(wire: Wire, namespace: str) -> None:
    operations = [s.Operation(put=s.PutOperation(key=f"{number}", value=bytes(MIB - 1000))) for number in range(4)]
    wire.put(namespace, "first")
    with watching(wire, namespace, prefix="", from_revision=1) as stream:
        wire.call(s.TransactRequest(namespace=namespace, then=operations))
        seen: list[t.Commit] = []
        for message in stream:
            assert message.ByteSize() < 2 * MIB
            seen += message.commits
            complete = [commit.revision for commit in seen if not commit.partial]
            assert message.revision <= (complete[-1] if complete else 0)
            if message.revision == 2:
                break
    assert [commit.partial for commit in seen] == [False, True, True, True, False]
    assert keys(seen[1:]) == [(2, [f"{number}"]) for number in range(4)]


def test_a_stream_ends_when_its_namespace_is_deleted(wire: Wire, namespace: str) -> None:
    wire.put(namespace, "k")
    with watching(wire, namespace, prefix="") as stream:
        wire.call(n.DeleteNamespaceRequest(namespace=namespace))
        ended = end_of(stream)
    assert ended.code is grpc.StatusCode.OUT_OF_RANGE


def test_a_stream_ends_with_its_deadline_and_the_server_goes_on(wire: Wire, namespace: str) -> None:
    stream = wire.state.Watch(s.WatchRequest(namespace=namespace, prefix=""), timeout=0.3)
    assert end_of(stream).code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert wire.put(namespace, "k") == 1


def test_many_streams_see_the_same(wire: Wire, namespace: str) -> None:
    count, writes = 30, 20
    found: list[list[tuple[int, list[str]]]] = []

    def watch(ready: Callable[[], object]) -> None:
        with watching(wire, namespace, prefix="") as stream:
            ready()
            found.append(keys(commits(stream, writes)))

    begun = threading.Barrier(count + 1)
    threads = [threading.Thread(target=watch, args=(begun.wait,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    begun.wait(TIMEOUT)
    for number in range(writes):
        wire.put(namespace, f"{number}")
    for thread in threads:
        thread.join(TIMEOUT)
    assert found == [[(number + 1, [f"{number}"]) for number in range(writes)]] * count
