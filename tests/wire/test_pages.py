"""Lists, histories and namespaces in pages: together they show everything once, as of one moment."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from comity.v1 import namespace_pb2 as n
from comity.v1 import state_pb2 as s
from comity.v1 import types_pb2 as t
from tests import servers
from tests.wire.calls import Wire

MIB = 1024 * 1024


def pages(wire: Wire, request: Any, between: Callable[[], object] = lambda: None) -> Iterator[Any]:
    """All pages from a request on; something may happen between them."""
    while True:
        page = wire.call(request)
        yield page
        if not page.next_page_token:
            return
        between()
        request.page_token = page.next_page_token


def fill(wire: Wire, namespace: str, count: int) -> None:
    for number in range(count):
        wire.put(namespace, f"k{number:03}", b"v")


@pytest.mark.parametrize("size", [1, 3, 7, 0, 2**31 - 1])
def test_a_list_shows_one_revision(wire: Wire, namespace: str, size: int) -> None:
    fill(wire, namespace, 7)

    def write() -> None:
        wire.put(namespace, "k006", b"later")
        wire.put(namespace, "k0065", b"later")
        wire.call(s.DeleteRequest(namespace=namespace, key="k005"))

    read = list(pages(wire, s.ListRequest(namespace=namespace, prefix="k", page_size=size), write))
    assert all(len(page.entries) <= (size or 7) for page in read)
    assert {page.revision for page in read} == {7}
    entries = [entry for page in read for entry in page.entries]
    assert [entry.key for entry in entries] == [f"k{number:03}" for number in range(7)]
    assert {entry.value for entry in entries} == {b"v"}


def test_a_list_page_is_bounded_in_bytes(wire: Wire, namespace: str) -> None:
    for number in range(5):
        wire.put(namespace, f"k{number}", bytes(MIB))
    read = list(pages(wire, s.ListRequest(namespace=namespace)))
    assert all(page.ByteSize() < 4 * MIB for page in read)
    assert [entry.key for page in read for entry in page.entries] == [f"k{number}" for number in range(5)]
    (keys,) = pages(wire, s.ListRequest(namespace=namespace, keys_only=True))
    assert [(entry.value, entry.version) for entry in keys.entries] == [(b"", 1)] * 5


def test_a_token_belongs_to_its_request(wire: Wire, namespace: str) -> None:
    fill(wire, namespace, 4)
    listing = s.ListRequest(namespace=namespace, prefix="k", page_size=2)
    listing.page_token = wire.call(listing).next_page_token
    history = s.HistoryRequest(namespace=namespace, prefix="k", page_size=2)
    history.page_token = wire.call(history).next_page_token
    wrong: list[tuple[Any, list[dict[str, Any]]]] = [
        (listing, [{"prefix": "k0"}, {"page_size": 3}, {"keys_only": True}, {"revision": 3}, {"namespace": "other"}]),
        (history, [{"prefix": "k0"}, {"author": "a"}, {"order": 2}, {"to_revision": 4}, {"previous": True}]),
    ]
    for right, changes in wrong:
        for change in changes:
            other = type(right)()
            other.CopyFrom(right)
            for field, value in change.items():
                setattr(other, field, value)
            refused = wire.refused(other)
            assert (refused.code, list(refused.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, ["page_token"])
        wire.call(right)
        token = right.page_token
        for garbled in (token[:-1], token + "A", token[4:], token.swapcase(), token[::-1]):
            right.page_token = garbled
            assert list(wire.refused(right).fields) == ["page_token"]
    listing.page_token, history.page_token = history.page_token, listing.page_token
    assert list(wire.refused(listing).fields) == ["page_token"]


def test_a_token_of_another_history_is_out_of_range() -> None:
    with servers.start() as server:
        with grpc.insecure_channel(server.address) as channel:
            fill(Wire(channel), "n", 4)
            listing = s.ListRequest(namespace="n", page_size=2)
            listing.page_token = Wire(channel).call(listing).next_page_token
            history = s.HistoryRequest(namespace="n", page_size=2)
            history.page_token = Wire(channel).call(history).next_page_token
        server.restart()
        with grpc.insecure_channel(server.address) as channel:
            fill(Wire(channel), "n", 4)
            for request in (listing, history):
                refused = Wire(channel).refused(request)
                assert (refused.code, refused.reason) == (grpc.StatusCode.OUT_OF_RANGE, "EPOCH_CHANGED")


@pytest.mark.parametrize("order", s.HistoryOrder.values())
@pytest.mark.parametrize("size", [1, 3, 0])
def test_a_history_shows_every_commit_once(wire: Wire, namespace: str, size: int, order: s.HistoryOrder) -> None:
    fill(wire, namespace, 7)
    request = s.HistoryRequest(namespace=namespace, page_size=size, order=order)
    read = list(pages(wire, request, lambda: wire.put(namespace, "later")))
    revisions = [commit.revision for page in read for commit in page.commits]
    assert revisions == (list(range(1, 8)) if order == s.HISTORY_ORDER_OLDEST_FIRST else list(range(7, 0, -1)))
    assert {(page.revision, page.floor) for page in read} == {(7, 0)}


def test_history_between_revisions_of_a_prefix_and_an_author(wire: Wire, namespace: str) -> None:
    for number in range(10):
        then = [s.Operation(put=s.PutOperation(key=f"{prefix}/{number}", value=b"v")) for prefix in "ab"]
        options = t.WriteOptions(author=f"author-{number % 2}")
        wire.call(s.TransactRequest(namespace=namespace, then=then, options=options))
    wire.call(s.DeleteRequest(namespace=namespace, key="a/3"))

    def shown(**fields: Any) -> list[tuple[int, list[str]]]:
        read = pages(wire, s.HistoryRequest(namespace=namespace, **fields))
        return [(one.revision, [event.entry.key for event in one.events]) for page in read for one in page.commits]

    assert shown(from_revision=2, to_revision=3) == [(3, ["a/2", "b/2"]), (2, ["a/1", "b/1"])]
    assert shown(prefix="a/3", order=2) == [(4, ["a/3"]), (11, ["a/3"])]
    assert shown(prefix="b/", author="author-1", to_revision=4) == [(4, ["b/3"]), (2, ["b/1"])]
    assert shown(from_revision=5, to_revision=4) == []
    assert shown(author="nobody") == []

    (page,) = pages(wire, s.HistoryRequest(namespace=namespace, prefix="a/3", previous=True, keys_only=True))
    delete, put = [commit.events[0] for commit in page.commits]
    assert (delete.type, delete.entry.mod_revision, delete.entry.version) == (t.EVENT_TYPE_DELETE, 11, 0)
    assert (delete.previous.mod_revision, delete.previous.value) == (4, b"")
    assert (put.type, put.cause, put.entry.value) == (t.EVENT_TYPE_PUT, t.EVENT_CAUSE_CLIENT, b"")
    assert not put.HasField("previous")


def test_a_large_commit_is_shown_in_parts(wire: Wire, namespace: str) -> None:
    wire.put(namespace, "first")
    values = [s.Operation(put=s.PutOperation(key=f"k{number}", value=bytes(MIB - 1000))) for number in range(4)]
    wire.call(s.TransactRequest(namespace=namespace, then=values))
    wire.put(namespace, "last")
    read = list(pages(wire, s.HistoryRequest(namespace=namespace, previous=True)))
    assert all(page.ByteSize() < 4 * MIB for page in read)
    commits = [commit for page in read for commit in page.commits]
    assert [(one.revision, one.partial) for one in commits] == [(3, False), (2, True), (2, False), (1, False)]
    keys = [event.entry.key for one in commits if one.revision == 2 for event in one.events]
    assert keys == [f"k{number}" for number in range(4)]


def test_a_filter_that_lets_little_through_ends_a_page_early(wire: Wire, namespace: str) -> None:
    wire.put(namespace, "wanted")
    chaff = [s.Operation(put=s.PutOperation(key=f"{number}")) for number in range(1000)]
    for _ in range(12):
        wire.call(s.TransactRequest(namespace=namespace, then=chaff))
    read = list(pages(wire, s.HistoryRequest(namespace=namespace, prefix="wanted")))
    assert len(read) > 1
    assert not read[0].commits
    assert [commit.revision for page in read for commit in page.commits] == [1]


def test_history_goes_on_from_the_floor_when_it_is_compacted_meanwhile(wire: Wire, namespace: str) -> None:
    fill(wire, namespace, 6)
    request = s.HistoryRequest(namespace=namespace, page_size=2)
    read = pages(wire, request, lambda: wire.call(n.CompactRequest(namespace=namespace, revision=3)))
    assert [commit.revision for page in read for commit in page.commits] == [6, 5, 4]


@pytest.mark.parametrize("order", [s.HISTORY_ORDER_OLDEST_FIRST, s.HISTORY_ORDER_NEWEST_FIRST])
@pytest.mark.parametrize("to_revision", [2, 4])
def test_a_history_that_ends_in_what_was_compacted_is_out_of_range(
    wire: Wire, namespace: str, order: s.HistoryOrder, to_revision: int
) -> None:
    fill(wire, namespace, 6)
    wire.call(n.CompactRequest(namespace=namespace, revision=4))
    refused = wire.refused(s.HistoryRequest(namespace=namespace, to_revision=to_revision, order=order))
    assert (refused.code, refused.reason) == (grpc.StatusCode.OUT_OF_RANGE, "COMPACTED")
    assert refused.metadata == {"floor": "4", "revision": "6"}
    assert [one.revision for one in wire.call(s.HistoryRequest(namespace=namespace, to_revision=5)).commits] == [5]


@pytest.mark.parametrize(("order", "begin"), [(s.HISTORY_ORDER_OLDEST_FIRST, 3), (s.HISTORY_ORDER_NEWEST_FIRST, 4)])
@pytest.mark.parametrize("past", [0, 1])
def test_a_page_that_was_compacted_is_out_of_range(
    wire: Wire, namespace: str, order: s.HistoryOrder, begin: int, past: int
) -> None:
    fill(wire, namespace, 6)
    request = s.HistoryRequest(namespace=namespace, page_size=2, order=order)
    request.page_token = wire.call(request).next_page_token
    wire.put(namespace, "later")
    wire.call(n.CompactRequest(namespace=namespace, revision=begin - 1))
    assert wire.call(request).commits[0].revision == begin
    wire.call(n.CompactRequest(namespace=namespace, revision=begin + past))
    refused = wire.refused(request)
    assert (refused.code, refused.reason) == (grpc.StatusCode.OUT_OF_RANGE, "COMPACTED")
    assert refused.metadata == {"floor": str(begin + past), "revision": "7"}


@pytest.mark.parametrize("order", [s.HISTORY_ORDER_OLDEST_FIRST, s.HISTORY_ORDER_NEWEST_FIRST])
def test_the_rest_of_a_commit_that_was_compacted_is_out_of_range(
    wire: Wire, namespace: str, order: s.HistoryOrder
) -> None:
    values = [s.Operation(put=s.PutOperation(key=f"k{number}", value=bytes(MIB - 1000))) for number in range(4)]
    wire.call(s.TransactRequest(namespace=namespace, then=values))
    request = s.HistoryRequest(namespace=namespace, order=order)
    page = wire.call(request)
    assert [commit.partial for commit in page.commits] == [True]
    request.page_token = page.next_page_token
    wire.call(n.CompactRequest(namespace=namespace))
    assert wire.refused(request).reason == "COMPACTED"


def test_namespaces(wire: Wire, namespace: str) -> None:
    names = [f"{namespace}-{letter}" for letter in "abcde"]
    for name in reversed(names):
        wire.put(name, "key", b"value")
    request = n.ListNamespacesRequest(prefix=f"{namespace}-", page_size=2)
    read = list(pages(wire, request))
    assert [[info.name for info in page.namespaces] for page in read] == [names[:2], names[2:4], names[4:]]

    info = wire.call(n.GetNamespaceRequest(namespace=names[0])).namespace
    assert info == read[0].namespaces[0]
    assert (info.revision, info.floor, info.key_count, info.size_bytes, info.commit_count) == (1, 0, 1, 8, 1)
    assert info.epoch
    assert info.create_time.ToMicroseconds() == info.update_time.ToMicroseconds() > 0


def test_deleting_a_namespace(wire: Wire, namespace: str) -> None:
    wire.put(namespace, "k")
    wire.put(namespace, "k")
    lost = wire.refused(n.DeleteNamespaceRequest(namespace=namespace, if_revision=1))
    assert (lost.code, lost.reason) == (grpc.StatusCode.ABORTED, "CONFLICT")
    assert lost.metadata == {"namespace": namespace, "revision": "2"}
    wire.call(n.DeleteNamespaceRequest(namespace=namespace, if_revision=2))
    for request in (
        n.GetNamespaceRequest(namespace=namespace),
        n.DeleteNamespaceRequest(namespace=namespace),
        n.CompactRequest(namespace=namespace),
    ):
        gone = wire.refused(request)
        assert (gone.code, gone.reason) == (grpc.StatusCode.NOT_FOUND, "NAMESPACE_NOT_FOUND")
        assert gone.metadata == {"namespace": namespace}
    assert wire.put(namespace, "k") > 2
