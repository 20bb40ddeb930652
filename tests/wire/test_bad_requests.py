"""What the contract forbids: each field that can be wrong is refused by its name, and nothing happens."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from comity.v1 import checkpoint_pb2 as c
from comity.v1 import lease_pb2 as le
from comity.v1 import namespace_pb2 as n
from comity.v1 import state_pb2 as s
from comity.v1 import types_pb2 as t
from tests.wire.calls import TIMEOUT, Wire, refusal

MIB = 1024 * 1024
SAFE = 2**53 - 1  # the largest whole number that an increment takes
NS = "a-namespace-to-be-named"  # each test puts a name of its own here

NAMES = ["", "-a", ".a", "_a", "A", "a b", "a/b", "a\n", "ä", "a" * 64, "a\0"]
KEYS = ["", "k" * 1025, "é" * 513, "a\0b"]  # é takes two bytes
CONTROLS = ["\0", "\n", "\x1f", "\x7f", "\x9f"]
PREFIXES = ["p" * 1025, "é" * 513, "a\0b"]
CHECKPOINTS = ["", "1", "-a", ".a", "a b", "a/b", "a\n", "ä", "a" * 129, "a\0"]
LABELS: list[dict[str, str]] = [
    {f"k{number}": "" for number in range(65)},
    {"": "v"},
    {"k" * 64: "v"},
    {"é" * 32: "v"},
    {"k\0": "v"},
    {"k": "v" * 256},
    {"k": "v\0"},
]
TTLS = [Duration(), Duration(nanos=999_999_999), Duration(seconds=-5), Duration(seconds=5, nanos=-1),
        Duration(seconds=5, nanos=10**9), Duration(seconds=10**12), Duration(seconds=86400, nanos=1000)]  # fmt: skip
OPTIONS: list[tuple[t.WriteOptions, str]] = [
    (t.WriteOptions(author="a" * 256), "options.author"),
    (t.WriteOptions(author="é" * 128), "options.author"),
    (t.WriteOptions(author="a\0"), "options.author"),
    (t.WriteOptions(message="m" * 4097), "options.message"),
    (t.WriteOptions(message="a\0"), "options.message"),
    (t.WriteOptions(request_id=t.RequestId(sequence=1)), "options.request_id.client"),
    (t.WriteOptions(request_id=t.RequestId(client="c" * 129, sequence=1)), "options.request_id.client"),
    (t.WriteOptions(request_id=t.RequestId(client="a\0", sequence=1)), "options.request_id.client"),
    (t.WriteOptions(request_id=t.RequestId(client="c")), "options.request_id.sequence"),
    (t.WriteOptions(request_id=t.RequestId(client="c", sequence=-1)), "options.request_id.sequence"),
    (t.WriteOptions(request_id=t.RequestId(client="c", sequence=1, awaited=-1)), "options.request_id.awaited"),
    (t.WriteOptions(guard=t.LeaseGuard()), "options.guard.lease_id"),
    (t.WriteOptions(guard=t.LeaseGuard(lease_id=-1)), "options.guard.lease_id"),
    (t.WriteOptions(guard=t.LeaseGuard(lease_id=1, fence=-1)), "options.guard.fence"),
]

Case = tuple[Message, str]
OPERATORS: list[Any] = s.Operator.values()


def reads() -> Iterator[Case]:
    for name in NAMES:
        yield s.GetRequest(namespace=name, key="k"), "namespace"
        yield s.ListRequest(namespace=name), "namespace"
        yield s.HistoryRequest(namespace=name), "namespace"
        yield s.WatchRequest(namespace=name, prefix=""), "namespace"
        yield n.GetNamespaceRequest(namespace=name), "namespace"
        yield n.DeleteNamespaceRequest(namespace=name), "namespace"
        yield n.CompactRequest(namespace=name), "namespace"
        if name:
            yield n.ListNamespacesRequest(prefix=name), "prefix"
    for key in KEYS:
        yield s.GetRequest(namespace=NS, key=key), "key"
        yield s.WatchRequest(namespace=NS, key=key), "key"
    for prefix in PREFIXES:
        yield s.ListRequest(namespace=NS, prefix=prefix), "prefix"
        yield s.HistoryRequest(namespace=NS, prefix=prefix), "prefix"
        yield s.WatchRequest(namespace=NS, prefix=prefix), "prefix"
    for number in (-1, -(2**63)):
        yield s.GetRequest(namespace=NS, key="k", revision=number), "revision"
        yield s.ListRequest(namespace=NS, revision=number), "revision"
        yield s.HistoryRequest(namespace=NS, from_revision=number), "from_revision"
        yield s.HistoryRequest(namespace=NS, to_revision=number), "to_revision"
        yield s.WatchRequest(namespace=NS, prefix="", from_revision=number), "from_revision"
        yield n.DeleteNamespaceRequest(namespace=NS, if_revision=number), "if_revision"
        yield n.CompactRequest(namespace=NS, revision=number), "revision"
    for size in (-1, -(2**31)):
        yield s.ListRequest(namespace=NS, page_size=size), "page_size"
        yield s.HistoryRequest(namespace=NS, page_size=size), "page_size"
        yield n.ListNamespacesRequest(page_size=size), "page_size"
    for token in ("x", "é", "\0", "AAAA", "!" * 100, "A" * 100_000):
        yield s.ListRequest(namespace=NS, page_token=token), "page_token"
        yield s.HistoryRequest(namespace=NS, page_token=token), "page_token"
        yield n.ListNamespacesRequest(page_token=token), "page_token"
    yield s.HistoryRequest(namespace=NS, author="a" * 256), "author"
    yield s.HistoryRequest(namespace=NS, order=3), "order"  # type: ignore[arg-type]
    yield s.WatchRequest(namespace=NS), "key"
    yield s.WatchRequest(namespace=NS, prefix="", event_types=[t.EVENT_TYPE_UNSPECIFIED]), "event_types"
    yield s.WatchRequest(namespace=NS, prefix="", event_types=[t.EVENT_TYPE_PUT, 7]), "event_types"  # type: ignore[list-item]
    for interval in (Duration(), Duration(nanos=99_999_999), Duration(seconds=-1), Duration(seconds=1, nanos=-1)):
        yield s.WatchRequest(namespace=NS, prefix="", progress_interval=interval), "progress_interval"
    yield s.WatchRequest(namespace=NS, prefix="", epoch="e" * 1000), "epoch"
    yield s.WatchRequest(namespace=NS, prefix="", epoch="\0"), "epoch"


def writes() -> Iterator[Case]:
    for name in NAMES:
        yield s.PutRequest(namespace=name, key="k"), "namespace"
        yield s.DeleteRequest(namespace=name, key="k"), "namespace"
        yield s.TransactRequest(namespace=name), "namespace"
    for key in KEYS:
        yield s.PutRequest(namespace=NS, key=key), "key"
        yield s.DeleteRequest(namespace=NS, key=key), "key"
    for prefix in PREFIXES:
        yield s.DeleteRequest(namespace=NS, prefix=prefix), "prefix"
    yield s.DeleteRequest(namespace=NS), "key"
    yield s.DeleteRequest(namespace=NS, prefix="p", if_version=1), "if_version"
    yield s.PutRequest(namespace=NS, key="k", value=bytes(MIB + 1)), "value"
    yield s.PutRequest(namespace=NS, key="k", content_type="c" * 256), "content_type"
    for control in CONTROLS:
        yield s.PutRequest(namespace=NS, key="k", content_type=f"a{control}b"), "content_type"
    yield s.PutRequest(namespace=NS, key="k", if_version=-1), "if_version"
    yield s.PutRequest(namespace=NS, key="k", if_revision=-1), "if_revision"
    yield s.DeleteRequest(namespace=NS, key="k", if_version=-1), "if_version"
    yield s.DeleteRequest(namespace=NS, key="k", if_revision=-1), "if_revision"
    yield s.DeleteRequest(namespace=NS, prefix="k", if_revision=-1), "if_revision"
    yield s.PutRequest(namespace=NS, key="k", lease_id=-1), "lease_id"
    yield s.PutRequest(namespace=NS, key="k", lease_id=1, ttl=Duration(seconds=5)), "ttl"
    for ttl in TTLS:
        yield s.PutRequest(namespace=NS, key="k", ttl=ttl), "ttl"
    for options, field in OPTIONS:
        yield s.PutRequest(namespace=NS, key="k", options=options), field
        yield s.DeleteRequest(namespace=NS, key="k", options=options), field
        yield s.TransactRequest(namespace=NS, then=[put("k")], options=options), field


def actions() -> Iterator[Case]:
    one = t.Ref(revision=1)
    for name in NAMES:
        yield c.CheckpointRequest(namespace=name, name="c"), "namespace"
        yield c.GetCheckpointRequest(namespace=name, name="c"), "namespace"
        yield c.ListCheckpointsRequest(namespace=name), "namespace"
        yield c.DeleteCheckpointRequest(namespace=name, name="c"), "namespace"
        yield c.RestoreRequest(namespace=name, ref=one), "namespace"
        yield c.DiffRequest(namespace=name, base=one), "namespace"
        yield s.BlameRequest(namespace=name), "namespace"
        yield n.ForkRequest(namespace=name, fork="f"), "namespace"
        yield n.ForkRequest(namespace=NS, fork=name), "fork"
        yield n.MergeRequest(namespace=name, fork="f"), "namespace"
        yield n.MergeRequest(namespace=NS, fork=name), "fork"
    for name in CHECKPOINTS:
        yield c.CheckpointRequest(namespace=NS, name=name), "name"
        yield c.GetCheckpointRequest(namespace=NS, name=name), "name"
        yield c.DeleteCheckpointRequest(namespace=NS, name=name), "name"
        yield c.RestoreRequest(namespace=NS, ref=t.Ref(checkpoint=name)), "ref.checkpoint"
        yield c.DiffRequest(namespace=NS, base=t.Ref(checkpoint=name)), "base.checkpoint"
        yield c.DiffRequest(namespace=NS, base=one, target=t.Ref(checkpoint=name)), "target.checkpoint"
        yield n.ForkRequest(namespace=NS, fork="f", ref=t.Ref(checkpoint=name)), "ref.checkpoint"
    for labels in LABELS:
        yield c.CheckpointRequest(namespace=NS, name="c", labels=labels), "labels"
        yield c.ListCheckpointsRequest(namespace=NS, labels=labels), "labels"
    for number in (-1, -(2**63)):
        yield c.CheckpointRequest(namespace=NS, name="c", revision=number), "revision"
        yield c.RestoreRequest(namespace=NS, ref=t.Ref(revision=number)), "ref.revision"
        yield c.RestoreRequest(namespace=NS, ref=one, if_revision=number), "if_revision"
        yield c.DiffRequest(namespace=NS, base=t.Ref(revision=number)), "base.revision"
        yield c.DiffRequest(namespace=NS, base=one, target=t.Ref(revision=number)), "target.revision"
        yield n.ForkRequest(namespace=NS, fork="f", ref=t.Ref(revision=number)), "ref.revision"
        yield s.BlameRequest(namespace=NS, revision=number), "revision"
    for prefix in PREFIXES:
        yield c.RestoreRequest(namespace=NS, ref=one, prefix=prefix), "prefix"
        yield c.DiffRequest(namespace=NS, base=one, prefix=prefix), "prefix"
        yield s.BlameRequest(namespace=NS, prefix=prefix), "prefix"
    for size in (-1, -(2**31)):
        yield c.ListCheckpointsRequest(namespace=NS, page_size=size), "page_size"
        yield c.DiffRequest(namespace=NS, base=one, page_size=size), "page_size"
        yield s.BlameRequest(namespace=NS, page_size=size), "page_size"
    for token in ("x", "é", "\0", "AAAA", "A" * 100_000):
        yield c.ListCheckpointsRequest(namespace=NS, page_token=token), "page_token"
        yield c.DiffRequest(namespace=NS, base=one, page_token=token), "page_token"
        yield s.BlameRequest(namespace=NS, page_token=token), "page_token"
    yield c.RestoreRequest(namespace=NS), "ref"
    yield c.RestoreRequest(namespace=NS, ref=t.Ref()), "ref"
    yield c.DiffRequest(namespace=NS), "base"
    yield n.MergeRequest(namespace=NS, fork="f", strategy=9), "strategy"  # type: ignore[arg-type]
    for options, field in OPTIONS:
        yield c.CheckpointRequest(namespace=NS, name="c", options=options), field
        yield c.DeleteCheckpointRequest(namespace=NS, name="c", options=options), field
        yield c.RestoreRequest(namespace=NS, ref=one, options=options), field
        if not options.HasField("guard"):
            yield n.ForkRequest(namespace=NS, fork="f", options=options), field
        yield n.MergeRequest(namespace=NS, fork="f", options=options), field
    guarded = t.WriteOptions(guard=t.LeaseGuard(lease_id=1, fence=1))
    yield n.ForkRequest(namespace=NS, fork="f", options=guarded), "options.guard"


def leases() -> Iterator[Case]:
    ttl = Duration(seconds=5)
    for name in NAMES:
        yield le.GrantLeaseRequest(namespace=name, ttl=ttl), "namespace"
        yield le.KeepAliveRequest(namespace=name, lease_id=1), "namespace"
        yield le.RevokeLeaseRequest(namespace=name, lease_id=1), "namespace"
        yield le.GetLeaseRequest(namespace=name, lease_id=1), "namespace"
        yield le.ListLeasesRequest(namespace=name), "namespace"
    yield le.GrantLeaseRequest(namespace=NS), "ttl"
    for wrong in TTLS:
        yield le.GrantLeaseRequest(namespace=NS, ttl=wrong), "ttl"
    for number in (0, -1, -(2**63)):
        yield le.KeepAliveRequest(namespace=NS, lease_id=number), "lease_id"
        yield le.RevokeLeaseRequest(namespace=NS, lease_id=number), "lease_id"
        yield le.GetLeaseRequest(namespace=NS, lease_id=number), "lease_id"
    for size in (-1, -(2**31)):
        yield le.ListLeasesRequest(namespace=NS, page_size=size), "page_size"
    for token in ("x", "é", "\0", "AAAA", "A" * 100_000):
        yield le.ListLeasesRequest(namespace=NS, page_token=token), "page_token"
    for options, field in OPTIONS:
        yield le.GrantLeaseRequest(namespace=NS, ttl=ttl, options=options), field
        yield le.RevokeLeaseRequest(namespace=NS, lease_id=1, options=options), field


def put(key: str, **fields: Any) -> s.Operation:
    return s.Operation(put=s.PutOperation(key=key, **fields))


def get(key: str) -> s.Operation:
    return s.Operation(get=s.GetOperation(key=key))


def increment(key: str, delta: int = 1) -> s.Operation:
    return s.Operation(increment=s.IncrementOperation(key=key, delta=delta))


def delete(key: str) -> s.Operation:
    return s.Operation(delete=s.DeleteOperation(key=key))


def delete_prefix(prefix: str) -> s.Operation:
    return s.Operation(delete=s.DeleteOperation(prefix=prefix))


def conditions() -> Iterator[Case]:
    for condition, field in [
        (s.Condition(key="k"), "exists"),
        (s.Condition(exists=True), "key"),
        (s.Condition(prefix="p"), "exists"),
        *((s.Condition(key=key, exists=True), "key") for key in KEYS),
        *((s.Condition(prefix=prefix, unchanged_since=1), "prefix") for prefix in PREFIXES),
        (s.Condition(prefix="p", exists=True), "exists"),
        (s.Condition(prefix="p", version=1), "version"),
        (s.Condition(prefix="p", mod_revision=1), "mod_revision"),
        (s.Condition(prefix="p", create_revision=1), "create_revision"),
        (s.Condition(prefix="p", value=b"v"), "value"),
        (s.Condition(prefix="p", lease_id=0), "lease_id"),
        (s.Condition(key="k", version=-1), "version"),
        (s.Condition(key="k", mod_revision=-1), "mod_revision"),
        (s.Condition(key="k", create_revision=-1), "create_revision"),
        (s.Condition(key="k", lease_id=-1), "lease_id"),
        (s.Condition(key="k", unchanged_since=-1), "unchanged_since"),
        (s.Condition(key="k", version=1, operator=7), "operator"),  # type: ignore[arg-type]
        (s.Condition(key="k", version=1, operator=-1), "operator"),  # type: ignore[arg-type]
        *((s.Condition(key="k", exists=True, operator=operator), "operator") for operator in OPERATORS[2:]),
        *((s.Condition(key="k", lease_id=0, operator=operator), "operator") for operator in OPERATORS[3:]),
        *((s.Condition(key="k", unchanged_since=0, operator=operator), "operator") for operator in OPERATORS[2:]),
    ]:
        yield s.TransactRequest(namespace=NS, conditions=[condition], then=[put("k")]), f"conditions[0].{field}"
    good = s.Condition(key="k", version=0)
    yield s.TransactRequest(namespace=NS, conditions=[good, good, s.Condition(exists=True)]), "conditions[2].key"
    yield s.TransactRequest(namespace=NS, conditions=[good] * 1001), "conditions"


def operations() -> Iterator[Case]:
    for operation, field in [
        (s.Operation(), "get"),
        *((get(key), "get.key") for key in KEYS),
        *((put(key), "put.key") for key in KEYS),
        *((increment(key), "increment.key") for key in KEYS),
        *((delete(key), "delete.key") for key in KEYS),
        *((delete_prefix(prefix), "delete.prefix") for prefix in PREFIXES),
        *((s.Operation(list=s.ListOperation(prefix=prefix)), "list.prefix") for prefix in PREFIXES),
        (s.Operation(delete=s.DeleteOperation()), "delete.key"),
        (s.Operation(list=s.ListOperation(limit=-1)), "list.limit"),
        (s.Operation(list=s.ListOperation(limit=1001)), "list.limit"),
        (put("k", value=bytes(MIB + 1)), "put.value"),
        (put("k", content_type="c" * 256), "put.content_type"),
        *((put("k", content_type=f"a{control}b"), "put.content_type") for control in CONTROLS),
        (put("k", lease_id=-1), "put.lease_id"),
        (put("k", lease_id=1, ttl=Duration(seconds=5)), "put.ttl"),
        *((put("k", ttl=ttl), "put.ttl") for ttl in TTLS),
        *((increment("k", delta), "increment.delta") for delta in (SAFE + 1, -SAFE - 1, 2**63 - 1, -(2**63))),
    ]:
        yield s.TransactRequest(namespace=NS, then=[get("a"), operation]), f"then[1].{field}"
        yield s.TransactRequest(namespace=NS, otherwise=[operation]), f"otherwise[0].{field}"
    short, long = (put(key, ttl=Duration(seconds=seconds)) for key, seconds in (("s", 5), ("l", 6)))
    yield s.TransactRequest(namespace=NS, then=[short, get("a"), long]), "then[2].put.ttl"
    yield s.TransactRequest(namespace=NS, then=[get("k")] * 1001), "then"
    yield s.TransactRequest(namespace=NS, otherwise=[get("k")] * 1001), "otherwise"
    large = [put(f"{number}", value=bytes(MIB)) for number in range(4)]
    yield s.TransactRequest(namespace=NS, then=large), "then"  # with the keys it is more than 4 MiB
    yield s.TransactRequest(namespace=NS, then=large[:2], otherwise=large[2:]), "then"
    wide = [put(f"{number}" + "é" * 511, value=bytes(MIB - 600)) for number in range(4)]
    yield s.TransactRequest(namespace=NS, then=wide), "then"  # as characters it would be less


def twice() -> Iterator[Case]:
    for first, second, field in [
        (put("k"), put("k"), "put.key"),
        (put("k"), increment("k"), "increment.key"),
        (increment("k"), put("k"), "put.key"),
        (increment("k"), increment("k"), "increment.key"),
        (put("k"), delete("k"), "delete.key"),
        (delete("k"), put("k"), "put.key"),
        (delete("k"), increment("k"), "increment.key"),
        (put("kk"), delete_prefix("k"), "delete.prefix"),
        (delete_prefix("k"), put("kk"), "put.key"),
        (delete_prefix("k"), put("k"), "put.key"),
        (put("é"), delete_prefix("é"), "delete.prefix"),
    ]:
        yield s.TransactRequest(namespace=NS, then=[put("a/"), first, get("k"), second]), f"then[3].{field}"
        yield s.TransactRequest(namespace=NS, otherwise=[first, second, put("z")]), f"otherwise[1].{field}"
    yield s.TransactRequest(namespace=NS, then=[delete_prefix(""), increment("k")]), "then[1].increment.key"
    yield s.TransactRequest(namespace=NS, then=[increment("k"), delete_prefix("")]), "then[1].delete.prefix"


CASES = [*reads(), *writes(), *actions(), *leases(), *conditions(), *operations(), *twice()]


def named(request: Message, namespace: str) -> Message:
    """The request with the name of the test's own namespace."""
    changed = type(request).FromString(request.SerializeToString())
    if getattr(changed, "namespace", "") == NS:
        changed.namespace = namespace  # type: ignore[attr-defined]
    return changed


@pytest.mark.parametrize(("request_", "field"), CASES, ids=[f"{type(case).__name__}-{field}" for case, field in CASES])
def test_refused(wire: Wire, namespace: str, request_: Message, field: str) -> None:
    refused = wire.refused(named(request_, namespace))

    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT, refused
    assert (refused.domain, refused.reason) == ("comity", "INVALID_REQUEST")
    assert list(refused.fields) == [field]
    assert refused.fields[field]
    gone = wire.refused(n.GetNamespaceRequest(namespace=namespace))
    assert gone.code is grpc.StatusCode.NOT_FOUND  # nothing was stored, the server goes on


def test_every_field_has_a_case_or_cannot_be_wrong() -> None:
    requests = {type(request).DESCRIPTOR for request, _ in CASES}
    paths = {path for request in requests for path in leaves(request, request.name)}
    wrong = {
        f"{type(request).DESCRIPTOR.name}.{plain}"
        for request, field in CASES
        for plain in [field.replace("[0]", "").replace("[1]", "").replace("[2]", "").replace("[3]", "")]
    }
    guards = {path for path in paths if path.startswith("ForkRequest.options.guard.")}  # a fork takes none
    assert paths - wrong - guards == set()


def leaves(message: Any, path: str) -> Iterator[str]:
    """The fields of a message and of those in it that can be wrong: a bool cannot."""
    for field in message.fields:
        name = f"{path}.{field.name}"
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            yield name
        elif field.message_type is not None and field.message_type.file.package == "comity.v1":
            yield from leaves(field.message_type, name)
        elif field.type != FieldDescriptor.TYPE_BOOL:
            yield name


def test_all_that_is_wrong_is_said_at_once(wire: Wire) -> None:
    refused = wire.refused(
        s.PutRequest(namespace="A", key="", lease_id=-1, if_version=-2, options=t.WriteOptions(author="a" * 300))
    )
    assert list(refused.fields) == ["namespace", "key", "lease_id", "if_version", "options.author"]


def test_an_empty_operation_moves_no_other_to_its_place(wire: Wire, namespace: str) -> None:
    empty = s.Operation()
    refused = wire.refused(s.TransactRequest(namespace=namespace, then=[empty, delete_prefix(""), put("a")]))
    assert list(refused.fields) == ["then[0].get", "then[2].put.key"]
    refused = wire.refused(
        s.TransactRequest(namespace=namespace, otherwise=[empty, empty, delete_prefix(""), put("k"), increment("a")])
    )
    assert list(refused.fields) == ["otherwise[0].get", "otherwise[1].get", "otherwise[4].increment.key"]


def test_a_refusal_fits_into_a_trailer_however_much_is_wrong(wire: Wire, namespace: str) -> None:
    keys = [f"{number}" + "\U0001f600" * 1024 for number in range(1000)]
    refused = wire.refused(s.TransactRequest(namespace=namespace, then=[put(key) for key in keys]))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert next(iter(refused.fields)) == "then[0].put.key"
    assert len(refused.fields) == 16


def test_as_much_as_is_allowed_is_taken(wire: Wire, namespace: str) -> None:
    """The other side of every bound."""
    options = t.WriteOptions(
        author="a" * 255, message="m" * 4096, request_id=t.RequestId(client="c" * 128, sequence=2**63 - 1)
    )
    wire.call(
        s.PutRequest(
            namespace=namespace,
            key="é" * 512,
            value=bytes(MIB),
            content_type="é\u202e " * 42,
            if_version=0,
            options=options,
        )
    )
    wire.call(s.GetRequest(namespace=namespace, key="\x01" * 1024))
    wire.call(s.DeleteRequest(namespace=namespace, prefix="é" * 512, if_revision=1))
    full = [put(f"{number:04}") for number in range(1000)]
    met = [s.Condition(key="0", version=0)] * 1000
    answer = wire.call(s.TransactRequest(namespace=namespace, conditions=met, then=full, otherwise=full))
    assert (answer.committed, len(answer.results)) == (True, 1000)
    half = MIB // 2 - 1
    large = [put(f"{number}", value=bytes(half)) for number in range(8)]
    assert wire.call(s.TransactRequest(namespace=namespace, then=large)).committed
    both = [increment("i", SAFE), delete_prefix("a"), delete_prefix("a/"), delete("a/b"), delete("a/b"), put("ä")]
    assert wire.call(s.TransactRequest(namespace=namespace, then=both)).committed
    longest = wire.call(n.ListNamespacesRequest(prefix="a" * 63, page_size=2**31 - 1))
    assert not longest.namespaces


def test_a_request_that_opens_a_stream_is_small(wire: Wire, namespace: str) -> None:
    many = s.WatchRequest(namespace=namespace, prefix="", event_types=[t.EVENT_TYPE_PUT] * 70_000)
    refused = wire.refused(many)
    assert (refused.code, list(refused.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, ["request"])
    assert wire.call(s.WatchRequest(namespace=namespace, prefix="", event_types=[t.EVENT_TYPE_PUT] * 1000)).created


@pytest.mark.parametrize("method", ["Get", "Watch"])
def test_a_call_without_a_request(wire: Wire, method: str) -> None:
    call: Any = wire.channel.stream_stream(f"/comity.v1.StateService/{method}")
    refused = refusal(lambda: list(call(iter(()), timeout=TIMEOUT)))
    assert (refused.code, list(refused.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, ["request"])
