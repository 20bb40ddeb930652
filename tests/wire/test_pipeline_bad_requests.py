"""What a pipeline does not take: an operation that is wrong fails alone, a message that is wrong ends the stream."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration

from comity.v1 import namespace_pb2 as n
from comity.v1 import state_pb2 as s
from comity.v1 import types_pb2 as t
from tests.wire.calls import TIMEOUT, Wire, refusal
from tests.wire.pipes import Pipe, connected, create, delete, get, increment, listing, piped, put, transact
from tests.wire.test_bad_requests import CONTROLS, KEYS, MIB, NAMES, PREFIXES, SAFE

Case = tuple[s.PipelineOperation, str]
WRITES = (put, create, delete, increment)
INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]
NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]


def operations() -> Iterator[Case]:
    for kind in (0, 8, -1, -2, 2**31 - 1, -(2**31)):
        yield s.PipelineOperation(kind=kind, key="k"), "kind"  # type: ignore[arg-type]
    for make in (get, *WRITES):
        for key in KEYS:
            yield make(key), "key"
    for make in (put, create):
        yield make("k", bytes(MIB + 1)), "value"
        yield make("k", content_type="c" * 256), "content_type"
        for control in CONTROLS:
            yield make("k", content_type=f"a{control}b"), "content_type"
        yield make("k", lease_id=-1), "lease_id"
        for ttl in (-1, 999, 86_400_001, 2**63 - 1, -(2**63)):
            yield make("k", ttl_ms=ttl), "ttl_ms"
        yield make("k", ttl_ms=5000, lease_id=1), "ttl_ms"
    for number in (-1, -(2**63)):
        yield get("k", number), "revision"
        for change in (put, delete):
            yield change("k", if_version=number), "if_version"
            yield change("k", if_revision=number), "if_revision"
    for delta in (SAFE + 1, -SAFE - 1, 2**63 - 1, -(2**63)):
        yield increment("k", delta), "delta"
    for make in WRITES:
        yield make("k", guard_lease_id=-1), "guard_lease_id"
        yield make("k", guard_lease_id=1, guard_fence=-1), "guard_fence"
        yield make("k", message="m" * 4097), "message"
        yield make("k", message="é" * 2049), "message"
        yield make("k", message="a\0"), "message"
    yield from lists()
    yield from transactions()


def lists() -> Iterator[Case]:
    for prefix in PREFIXES:
        yield listing(prefix), "prefix"
    for number in (-1, -(2**63)):
        yield listing(revision=number), "revision"
    for size in (-1, -(2**31)):
        yield listing(page_size=size), "page_size"
    for token in ("x", "é", "\0", "AAAA", "!" * 100, "A" * 10_000):
        yield listing(page_token=token), "page_token"
    yield listing(namespace="another"), "list.namespace"


def transactions() -> Iterator[Case]:
    yield transact(namespace="another"), "transact"
    yield transact(options=t.WriteOptions()), "transact"
    yield transact(options=t.WriteOptions(guard=t.LeaseGuard(lease_id=1))), "transact"
    yield transact(then=[s.Operation()]), "then[0].get"
    yield transact(otherwise=[s.Operation(put=s.PutOperation(key=""))]), "otherwise[0].put.key"
    yield transact(conditions=[s.Condition(key="k", version=-1)]), "conditions[0].version"
    yield transact(then=[s.Operation(get=s.GetOperation(key="k"))] * 1001), "then"
    made = transact()
    made.message = "m" * 4097
    yield made, "message"


CASES = list(operations())


async def test_what_is_wrong_with_an_operation_is_said_of_it_and_the_others_are_done(
    pipe: Pipe, wire: Wire, namespace: str
) -> None:
    bad = [s.PipelineOperation.FromString(operation.SerializeToString()) for operation, _ in CASES]
    asked = list(chain.from_iterable((operation, put(f"{place:03}")) for place, operation in enumerate(bad)))
    results = []
    for start in range(0, len(asked), 100):
        results += await pipe.ask(*asked[start : start + 100])
    for (_, field), result in zip(CASES, results[::2], strict=True):
        assert (result.code, result.error.reason) == (INVALID, "INVALID_REQUEST"), (field, result)
        assert list(result.error.violations) == [field], result
        assert result.error.violations[field] in result.error.message
    assert [result.revision for result in results[1::2]] == list(range(1, len(CASES) + 1))
    stored = wire.call(n.GetNamespaceRequest(namespace=namespace)).namespace
    assert (stored.revision, stored.key_count) == (len(CASES), len(CASES))


async def test_ids_that_are_none(pipe: Pipe) -> None:
    wrong = [put("a", id=number) for number in (0, -1, -(2**63))]
    answers = await pipe.send_message(s.PipelineRequest(operations=[*wrong, put("b", id=1), put("c", id=2**63 - 1)]))
    *refused, first, last = await pipe.all(answers)
    assert [result.id for result in refused] == [0, -1, -(2**63)]
    assert [list(result.error.violations) for result in refused] == [["id"]] * 3
    assert [first.revision, last.revision] == [1, 2]


async def test_all_that_is_wrong_with_an_operation_is_said_at_once(pipe: Pipe) -> None:
    wrong = put("", bytes(MIB + 1), content_type="c" * 256, lease_id=-1, if_version=-1, if_revision=-1, message="\0")
    result = await pipe.one(wrong)
    fields = {"key", "value", "content_type", "lease_id", "if_version", "if_revision", "message"}
    assert set(result.error.violations) == fields


async def test_leases_that_are_not_there(pipe: Pipe) -> None:
    leased = s.Operation(put=s.PutOperation(key="k", lease_id=1))
    results = await pipe.ask(put("k", lease_id=1), create("k", lease_id=1), transact(then=[leased]), put("k"))
    assert [(result.code, result.error.reason) for result in results[:3]] == [(NOT_FOUND, "LEASE_NOT_FOUND")] * 3
    assert results[3].revision == 1


def test_every_field_of_an_operation_has_a_case_or_cannot_be_wrong() -> None:
    wrong = {field for _, field in CASES} | {"id", "list", "transact"}
    cannot = {
        field.name
        for field in s.PipelineOperation.DESCRIPTOR.fields
        if field.type == FieldDescriptor.TYPE_BOOL or field.name == "trace_parent"
    }
    assert {field.name for field in s.PipelineOperation.DESCRIPTOR.fields} - wrong - cannot == set()


async def test_fields_that_a_kind_does_not_name_are_ignored(pipe: Pipe) -> None:
    everything: Any = {
        "value": b"v", "content_type": "\0", "if_version": -1, "if_revision": -1, "lease_id": -1, "revision": -1,
        "list": s.ListRequest(namespace="another"), "transact": s.TransactRequest(namespace="another"),
    }  # fmt: skip
    result = await pipe.one(increment("k", 5, **everything))
    assert (result.value, result.version) == (5, 1)
    everything["delta"] = 2**63 - 1
    del everything["content_type"], everything["lease_id"]
    result = await pipe.one(create("l", **everything))
    assert result.version == 1
    del everything["value"], everything["revision"]
    assert (await pipe.one(get("l"))).entry.value == b"v"
    read = s.PipelineOperation(kind=s.PIPELINE_KIND_GET, key="l", content_type="\0", message="\0", **everything)
    assert (await pipe.one(read)).entry.value == b"v"


FIRST = [
    *((s.PipelineRequest(namespace=name), "namespace") for name in NAMES),
    *((s.PipelineRequest(namespace="n", client=name), "client") for name in ("c" * 129, "é" * 65, "a\0")),
    *((s.PipelineRequest(namespace="n", author=name), "author") for name in ("a" * 256, "é" * 128, "a\0")),
]
ANY = [
    (s.PipelineRequest(awaited=-1), "awaited"),
    (s.PipelineRequest(operations=[get("k")] * 1001), "operations"),
    (s.PipelineRequest(operations=[transact(conditions=[s.Condition(key="k")] * 1000)] * 51), "operations"),
    *(
        (s.PipelineRequest(timeout=timeout), "timeout")
        for timeout in (
            Duration(),
            Duration(seconds=-1),
            Duration(nanos=-1),
            Duration(seconds=1, nanos=-1),
            Duration(seconds=1, nanos=10**9),
            Duration(seconds=10**12),
        )
    ),
]
LATER = [
    *ANY,
    (s.PipelineRequest(namespace="another"), "namespace"),
    (s.PipelineRequest(namespace="A"), "namespace"),
    (s.PipelineRequest(client="c"), "client"),
    (s.PipelineRequest(author="a"), "author"),
]


@pytest.mark.parametrize(
    ("message", "field"), FIRST + ANY, ids=[f"{place}-{field}" for place, (_, field) in enumerate(FIRST + ANY)]
)
async def test_first_messages_that_are_wrong(
    channel: grpc.aio.Channel, wire: Wire, namespace: str, message: s.PipelineRequest, field: str
) -> None:
    async with piped(channel, namespace if field in ("awaited", "operations", "timeout") else "") as pipe:
        asked = s.PipelineRequest.FromString(message.SerializeToString())
        asked.operations.insert(0, put("k", id=1))
        await pipe.send_message(asked)
        refused = await pipe.ended()
    assert refused is not None
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert list(refused.fields) == [field]
    assert wire.get(namespace, "k") is None


@pytest.mark.parametrize(("message", "field"), LATER, ids=[f"{place}-{each[1]}" for place, each in enumerate(LATER)])
async def test_later_messages_that_are_wrong(
    channel: grpc.aio.Channel, wire: Wire, namespace: str, message: s.PipelineRequest, field: str
) -> None:
    async with piped(channel, namespace, client="c", author="me") as pipe:
        before = await pipe.send(put("a"), listing())
        asked = s.PipelineRequest.FromString(message.SerializeToString())
        asked.operations.insert(0, put("b", id=3))
        await pipe.send_message(asked)
        refused = await pipe.ended()
        assert refused is not None
        assert (refused.code, list(refused.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, [field])
        written, listed = await pipe.all(before)  # what was read before has its answers
        assert (written.revision, len(listed.list.entries)) == (1, 1)
    assert wire.get(namespace, "b") is None


async def test_the_namespace_may_be_said_again(pipe: Pipe, namespace: str) -> None:
    await pipe.one(put("a"))
    assert (await pipe.one(put("a"), namespace=namespace)).version == 2
    assert await pipe.ask(namespace=namespace) == []


@pytest.mark.parametrize("garbage", [b"\xff\xff", b"\x0a\x02\xff\xfe", b"\x2a\x03\x1a\x01\xff"])
def test_what_is_no_message_ends_the_stream(wire: Wire, namespace: str, garbage: bytes) -> None:
    call: Any = wire.channel.stream_stream("/comity.v1.StateService/Pipeline")
    good = s.PipelineRequest(namespace=namespace, operations=[put("k", id=1)]).SerializeToString()
    for messages in ([garbage], [good, garbage]):
        stream = call(iter(messages), timeout=TIMEOUT)
        answered: list[bytes] = []
        refused = refusal(lambda stream=stream, answered=answered: answered.extend(stream))  # type: ignore[misc]
        assert (refused.code, list(refused.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, ["request"])
    assert wire.get(namespace, "k") == b""


async def test_a_stream_without_a_message_ends_well(channel: grpc.aio.Channel) -> None:
    async with piped(channel, "n") as pipe:
        await pipe.done_writing()
        assert await pipe.ended() is None


async def test_a_message_that_is_larger_than_any_ends_the_stream(pipe: Pipe, wire: Wire, namespace: str) -> None:
    assert (await pipe.one(put("k"))).revision == 1
    await pipe.send(*(put(f"{number}", bytes(MIB)) for number in range(6)))
    refused = await pipe.ended()
    assert refused is not None
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert wire.get(namespace, "0") is None
    assert wire.put(namespace, "k") == 2


async def test_metadata_is_checked_as_of_any_call(channel: grpc.aio.Channel, namespace: str) -> None:
    for name, value in (("comity-author", "a" * 256), ("comity-message", "m" * 4097), ("comity-author-bin", b"\xff")):
        async with piped(channel, namespace, metadata=((name, value),)) as pipe:
            await pipe.send(put("k"))
            refused = await pipe.ended()
        assert refused is not None
        assert (refused.code, list(refused.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, [name])


async def test_a_connection_has_as_many_pipelines_as_are_allowed(server: Any, namespace: str) -> None:
    async with connected(server.address) as channel, connected(server.address) as other:
        pipes = [piped(channel, namespace) for _ in range(16)]
        opened = [await one.__aenter__() for one in pipes]
        for pipe in opened:
            await pipe.one(put("k"))
        async with piped(channel, namespace) as late:  # writes nothing, since a write that fails hides the end's status
            refused = await late.ended()
        assert refused is not None
        assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_PIPELINES")
        assert dict(refused.metadata) == {"limit": "16"}
        async with piped(other, namespace) as elsewhere:
            assert (await elsewhere.one(put("k"))).version == 17
        await opened[0].done_writing()
        assert await opened[0].ended() is None
        async with piped(channel, namespace) as again:
            assert (await again.one(put("k"))).version == 18
        for one in pipes:
            await one.__aexit__(None, None, None)
