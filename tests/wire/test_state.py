"""Reads and writes as a client of any language sees them: what each field of an answer says."""

import time

import grpc
import pytest

from comity.v1 import namespace_pb2 as n
from comity.v1 import state_pb2 as s
from comity.v1 import types_pb2 as t
from tests.wire.calls import TIMEOUT, Metadata, Wire

MIB = 1024 * 1024
TRACE_PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def history(wire: Wire, namespace: str, **fields: object) -> s.HistoryResponse:
    return wire.state.History(s.HistoryRequest(namespace=namespace, **fields), timeout=TIMEOUT)  # type: ignore[arg-type]


def test_an_entry_has_all_that_was_said_of_it(wire: Wire, namespace: str) -> None:
    before = time.time()
    answer = wire.call(s.PutRequest(namespace=namespace, key="é/\x01", value=b"\0\xff", content_type="text/plain"))
    assert (answer.revision, answer.version, answer.HasField("previous")) == (1, 1, False)

    read = wire.call(s.GetRequest(namespace=namespace, key="é/\x01"))
    assert read.revision == 1
    entry = read.entry
    assert (entry.key, entry.value, entry.content_type) == ("é/\x01", b"\0\xff", "text/plain")
    assert (entry.version, entry.create_revision, entry.mod_revision, entry.lease_id) == (1, 1, 1, 0)
    assert before - 1 < entry.update_time.ToMicroseconds() / 1e6 < time.time() + 1


def test_absent_keys_and_namespaces_are_no_error(wire: Wire, namespace: str) -> None:
    read = wire.call(s.GetRequest(namespace=namespace, key="k"))
    assert (read.revision, read.HasField("entry")) == (0, False)
    assert not wire.call(s.ListRequest(namespace=namespace)).entries
    assert not history(wire, namespace).commits
    deleted = wire.call(s.DeleteRequest(namespace=namespace, key="k"))
    assert (deleted.revision, deleted.deleted) == (0, 0)


def test_reads_at_a_revision(wire: Wire, namespace: str) -> None:
    for number in range(3):
        wire.put(namespace, "k", b"%d" % number)
    wire.call(s.DeleteRequest(namespace=namespace, key="k"))
    values = [wire.call(s.GetRequest(namespace=namespace, key="k", revision=at)).entry.value for at in (1, 2, 3)]
    assert values == [b"0", b"1", b"2"]
    assert not wire.call(s.GetRequest(namespace=namespace, key="k", revision=4)).HasField("entry")
    listed = wire.call(s.ListRequest(namespace=namespace, revision=2))
    assert (listed.revision, [entry.value for entry in listed.entries]) == (2, [b"1"])


def test_previous_entries_on_request(wire: Wire, namespace: str) -> None:
    wire.put(namespace, "k", b"old")
    put = wire.call(s.PutRequest(namespace=namespace, key="k", value=b"new", return_previous=True))
    assert (put.version, put.previous.value, put.previous.mod_revision) == (2, b"old", 1)
    deleted = wire.call(s.DeleteRequest(namespace=namespace, prefix="", return_previous=True))
    assert (deleted.revision, deleted.deleted, [entry.value for entry in deleted.previous]) == (3, 1, [b"new"])
    assert not deleted.previous_truncated


def test_previous_entries_of_a_large_delete_are_cut_short(wire: Wire, namespace: str) -> None:
    for key in "abc":
        wire.put(namespace, key, bytes(MIB // 2))
    deleted = wire.call(s.DeleteRequest(namespace=namespace, prefix="", return_previous=True))
    assert (deleted.deleted, deleted.previous_truncated) == (3, True)
    assert 0 < len(deleted.previous) < 3


@pytest.mark.parametrize(
    ("present", "absent"),
    [
        ({"if_version": 2}, {"if_version": 1}),
        ({"if_revision": 2}, {"if_revision": 1}),
        ({"if_version": 2, "if_revision": 2}, {"if_version": 2, "if_revision": 1}),
        ({}, {"if_version": 0}),
        ({}, {"if_revision": 0}),
    ],
)
def test_conditions_of_plain_writes(
    wire: Wire, namespace: str, present: dict[str, int], absent: dict[str, int]
) -> None:
    wire.put(namespace, "k")
    wire.put(namespace, "k")
    for request in (
        s.PutRequest(namespace=namespace, key="k", **absent),  # type: ignore[arg-type]
        s.DeleteRequest(namespace=namespace, key="k", **absent),  # type: ignore[arg-type]
    ):
        lost = wire.refused(request)
        assert (lost.code, lost.reason) == (grpc.StatusCode.ABORTED, "CONFLICT")
        assert lost.metadata == {"key": "k", "version": "2", "mod_revision": "2", "revision": "2"}
    answer = wire.call(s.PutRequest(namespace=namespace, key="k", **present))  # type: ignore[arg-type]
    assert answer.revision == 3


@pytest.mark.parametrize("condition", [{"if_version": 0}, {"if_revision": 0}])
@pytest.mark.parametrize("deleted", [False, True])
def test_zero_means_that_the_key_must_not_exist(
    wire: Wire, namespace: str, condition: dict[str, int], deleted: bool
) -> None:
    if deleted:
        wire.put(namespace, "k")
        wire.call(s.DeleteRequest(namespace=namespace, key="k"))
    answer = wire.call(s.PutRequest(namespace=namespace, key="k", **condition))  # type: ignore[arg-type]
    assert answer.version == 1
    lost = wire.refused(s.PutRequest(namespace=namespace, key="absent", if_version=1))
    assert (lost.metadata["version"], lost.metadata["mod_revision"]) == ("0", "0")


def test_a_prefix_is_deleted_only_if_nothing_under_it_changed(wire: Wire, namespace: str) -> None:
    for key in ("a/1", "a/2", "b"):
        wire.put(namespace, key)
    lost = wire.refused(s.DeleteRequest(namespace=namespace, prefix="a/", if_revision=1))
    assert (lost.code, lost.reason) == (grpc.StatusCode.ABORTED, "CONFLICT")
    assert lost.metadata == {"prefix": "a/", "changed_revision": "2", "revision": "3"}
    assert wire.call(s.DeleteRequest(namespace=namespace, prefix="a/", if_revision=2)).deleted == 2
    assert [entry.key for entry in wire.call(s.ListRequest(namespace=namespace)).entries] == ["b"]


def test_a_transaction_answers_each_operation_in_its_place(wire: Wire, namespace: str) -> None:
    wire.put(namespace, "a/1", b"one")
    wire.put(namespace, "n", b"41")
    request = s.TransactRequest(
        namespace=namespace,
        conditions=[s.Condition(key="a/1", exists=True), s.Condition(prefix="b/", unchanged_since=0)],
        then=[
            s.Operation(get=s.GetOperation(key="a/1")),
            s.Operation(get=s.GetOperation(key="absent")),
            s.Operation(put=s.PutOperation(key="a/2", value=b"two", return_previous=True)),
            s.Operation(list=s.ListOperation(prefix="a/", limit=1, keys_only=True)),
            s.Operation(increment=s.IncrementOperation(key="n", delta=1)),
            s.Operation(delete=s.DeleteOperation(key="a/1", return_previous=True)),
        ],
    )
    answer = wire.call(request)
    assert (answer.committed, answer.revision, len(answer.failed)) == (True, 3, 0)
    got, absent, put, listed, increment, delete = answer.results
    assert got.get.entry.value == b"one"
    assert (absent.WhichOneof("result"), absent.get.HasField("entry")) == ("get", False)
    assert (put.put.version, put.put.HasField("previous")) == (1, False)
    assert ([entry.key for entry in listed.list.entries], listed.list.more) == (["a/1"], True)
    assert listed.list.entries[0].value == b""
    assert (increment.increment.value, increment.increment.version) == (42, 2)
    assert (delete.delete.deleted, delete.delete.previous[0].value) == (1, b"one")
    assert wire.get(namespace, "n") == b"42"


def test_failed_conditions_come_with_what_was_found(wire: Wire, namespace: str) -> None:
    wire.put(namespace, "a", b"value")
    wire.put(namespace, "p/1")
    answer = wire.call(
        s.TransactRequest(
            namespace=namespace,
            conditions=[
                s.Condition(key="a", version=1),
                s.Condition(key="a", value=b"other"),
                s.Condition(key="absent", exists=True),
                s.Condition(prefix="p/", unchanged_since=1),
            ],
            then=[s.Operation(put=s.PutOperation(key="b"))],
            otherwise=[s.Operation(get=s.GetOperation(key="a"))],
        )
    )
    assert (answer.committed, answer.revision) == (False, 2)
    value, absent, prefix = answer.failed
    assert (value.index, value.current.value, value.current.version) == (1, b"value", 1)
    assert (absent.index, absent.HasField("current")) == (2, False)
    assert (prefix.index, prefix.HasField("current"), prefix.changed_revision) == (3, False, 2)
    assert answer.results[0].get.entry.value == b"value"
    assert wire.get(namespace, "b") is None


def test_values_of_failed_conditions_are_left_out_past_a_mebibyte(wire: Wire, namespace: str) -> None:
    for key in "abc":
        wire.put(namespace, key, bytes(MIB // 2))
    wire.put(namespace, "d", b"d")
    conditions = [s.Condition(key=key, exists=False) for key in "abcd"]
    failed = wire.call(s.TransactRequest(namespace=namespace, conditions=conditions)).failed
    assert [one.value_omitted for one in failed] == [False, False, True, True]
    assert [len(one.current.value) for one in failed] == [MIB // 2, MIB // 2, 0, 0]
    assert [one.current.version for one in failed] == [1, 1, 1, 1]


def test_an_answer_to_failed_conditions_is_one_that_clients_read(wire: Wire, namespace: str) -> None:
    """A thousand of them, of the largest keys and content types, beside as much as a transaction may read."""
    keys = [f"{number:04}" + "k" * 1020 for number in range(1000)]
    for first in range(0, 1000, 500):
        puts = [s.PutOperation(key=key, value=b"v" * 1040, content_type="c" * 255) for key in keys[first : first + 500]]
        wire.call(s.TransactRequest(namespace=namespace, then=[s.Operation(put=put) for put in puts]))
    listed = s.Operation(list=s.ListOperation(prefix="", keys_only=True, limit=970))
    answer = wire.call(
        s.TransactRequest(
            namespace=namespace,
            conditions=[s.Condition(key=key, exists=False) for key in keys],
            otherwise=[s.Operation(increment=s.IncrementOperation(key="n", delta=1)), listed, listed],
        )
    )
    assert wire.get(namespace, "n") == b"1"
    assert len(answer.failed) == 1000
    assert [one.index for one in answer.failed] == list(range(1000))
    assert {one.current.version for one in answer.failed} == {1}
    whole = [one for one in answer.failed if not one.value_omitted]
    assert whole
    assert all(one.current.value and one.current.key and one.current.content_type for one in whole)
    assert answer.failed[-1].value_omitted
    assert answer.failed[-1].current.key == ""


@pytest.mark.parametrize("operator", s.Operator.values())
def test_operators(wire: Wire, namespace: str, operator: s.Operator) -> None:
    wire.put(namespace, "k")
    wire.put(namespace, "k")
    holds = {0: (2,), 1: (2,), 2: (1, 3), 3: (3,), 4: (2, 3), 5: (1,), 6: (1, 2)}[operator]
    for version in (1, 2, 3):
        condition = s.Condition(key="k", version=version, operator=operator)
        assert wire.call(s.TransactRequest(namespace=namespace, conditions=[condition])).committed == (version in holds)


def test_lease_conditions_compare_with_none(wire: Wire, namespace: str) -> None:
    wire.put(namespace, "k")
    none = s.Condition(key="k", lease_id=0)
    one = s.Condition(key="k", lease_id=7, operator=s.OPERATOR_NOT_EQUAL)
    assert wire.call(s.TransactRequest(namespace=namespace, conditions=[none, one])).committed


def test_a_write_may_be_repeated_under_its_request_id(wire: Wire, namespace: str) -> None:
    options = t.WriteOptions(request_id=t.RequestId(client="c", sequence=1))
    request = s.PutRequest(namespace=namespace, key="k", value=b"1", options=options)
    assert wire.call(request) == wire.call(request)
    request.value = b"2"
    reused = wire.refused(request)
    assert (reused.code, reused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
    assert list(reused.fields) == ["options.request_id.sequence"]

    options.request_id.sequence, options.request_id.awaited = 6, 5
    wire.call(s.PutRequest(namespace=namespace, key="k", options=options))
    forgotten = wire.refused(request)
    assert (forgotten.code, forgotten.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "REQUEST_ID_FORGOTTEN")
    assert forgotten.metadata == {"sequence": "1", "awaited": "5"}


def test_not_a_number(wire: Wire, namespace: str) -> None:
    wire.put(namespace, "k", b"x")
    increment = s.Operation(increment=s.IncrementOperation(key="k", delta=1))
    refused = wire.refused(s.TransactRequest(namespace=namespace, then=[increment]))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_A_NUMBER")
    assert refused.metadata == {"key": "k"}


@pytest.mark.parametrize(
    ("metadata", "options", "said"),
    [
        ((), t.WriteOptions(), ("", "", "")),
        (
            (
                ("comity-author", "m"),
                ("comity-message", "w"),
            ),
            t.WriteOptions(),
            ("m", "w", ""),
        ),
        (
            (
                ("comity-author-bin", "é".encode()),
                ("comity-message-bin", b"w"),
            ),
            t.WriteOptions(),
            ("é", "w", ""),
        ),
        (
            (
                ("comity-author", "m"),
                ("comity-message", "w"),
            ),
            t.WriteOptions(author="o"),
            ("o", "w", ""),
        ),
        ((("comity-author", "m"),), t.WriteOptions(author="o", message="p"), ("o", "p", "")),
        ((("traceparent", TRACE_PARENT),), t.WriteOptions(), ("", "", TRACE_PARENT)),
        ((("traceparent", TRACE_PARENT.upper()),), t.WriteOptions(), ("", "", "")),
        ((("traceparent", TRACE_PARENT.replace("00-", "ff-")),), t.WriteOptions(), ("", "", "")),
        ((("traceparent", "00-" + "0" * 32 + "-b7ad6b7169203331-01"),), t.WriteOptions(), ("", "", "")),
    ],
)
def test_who_and_why(
    wire: Wire, namespace: str, metadata: Metadata, options: t.WriteOptions, said: tuple[str, str, str]
) -> None:
    wire.call(s.PutRequest(namespace=namespace, key="k", options=options), metadata=metadata)
    wire.call(s.DeleteRequest(namespace=namespace, key="k", options=options), metadata=metadata)
    then = [s.Operation(put=s.PutOperation(key="k"))]
    wire.call(s.TransactRequest(namespace=namespace, then=then, options=options), metadata=metadata)
    commits = history(wire, namespace).commits
    assert [(one.author, one.message, one.trace_parent) for one in commits] == [said] * 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("comity-author", "a" * 256),
        ("comity-message", "m" * 4097),
        ("comity-author-bin", b"\xff"),
        ("comity-message-bin", b"a\0"),
    ],
)
def test_metadata_that_is_wrong_is_named(wire: Wire, namespace: str, name: str, value: str | bytes) -> None:
    refused = wire.refused(s.PutRequest(namespace=namespace, key="k"), metadata=((name, value),))
    assert (refused.code, list(refused.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, [name])
    assert wire.get(namespace, "k") is None


def test_revisions_outside_of_history(wire: Wire, namespace: str) -> None:
    for _ in range(5):
        wire.put(namespace, "k")
    assert wire.call(n.CompactRequest(namespace=namespace, revision=3)).floor == 3
    assert wire.call(n.CompactRequest(namespace=namespace, revision=2)).floor == 3
    compacted = [
        s.GetRequest(namespace=namespace, key="k", revision=2),
        s.ListRequest(namespace=namespace, revision=2),
        s.HistoryRequest(namespace=namespace, from_revision=3),
        s.WatchRequest(namespace=namespace, key="k", from_revision=3),
    ]
    future = [
        s.GetRequest(namespace=namespace, key="k", revision=6),
        s.ListRequest(namespace=namespace, revision=6),
        s.HistoryRequest(namespace=namespace, to_revision=6),
        s.WatchRequest(namespace=namespace, key="k", from_revision=7),
        n.CompactRequest(namespace=namespace, revision=6),
    ]
    for requests, reason in ((compacted, "COMPACTED"), (future, "REVISION_IN_FUTURE")):
        for request in requests:
            refused = wire.refused(request)
            assert (refused.code, refused.reason) == (grpc.StatusCode.OUT_OF_RANGE, reason)
            assert refused.metadata == {"floor": "3", "revision": "5"}
    assert wire.call(s.GetRequest(namespace=namespace, key="k", revision=3)).entry.mod_revision == 3
    assert wire.call(s.WatchRequest(namespace=namespace, key="k", from_revision=6)).created
