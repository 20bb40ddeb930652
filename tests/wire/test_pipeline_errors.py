"""An operation of a pipeline fails as the call of its own does: code, reason, message, metadata, fields and delay."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from comity.v1 import namespace_pb2 as n
from comity.v1 import state_pb2 as s
from comity.v1 import types_pb2 as t
from comity_server.errors import StateError, StoreFull, StoreUnavailable
from tests import servers
from tests.wire.calls import Refusal, Wire, read_refusal
from tests.wire.inprocess import run
from tests.wire.pipes import Pipe, connected, create, delete, get, increment, listing, piped, put, transact

NAME = "n"
SMALL = (
    "--limit-namespace-keys", "6", "--limit-commit-events", "3", "--limit-transaction-steps", "4",
    "--limit-result-bytes", "100", "--limit-request-outcomes", "2", "--limit-key-bytes", "20",
    "--limit-value-bytes", "1000", "--limit-transaction-operations", "4", "--limit-leases", "0",
)  # fmt: skip


def unary(operation: s.PipelineOperation, namespace: str, client: str = "") -> Any:
    """The request that asks for the same in a call of its own."""
    options = t.WriteOptions(message=operation.message)
    if client:
        options.request_id.client = client
        options.request_id.sequence = operation.id
    if operation.guard_lease_id:
        options.guard.lease_id = operation.guard_lease_id
        options.guard.fence = operation.guard_fence
    expected: dict[str, Any] = {
        name: getattr(operation, name) for name in ("if_version", "if_revision") if getattr(operation, name)
    }
    written: dict[str, Any] = {
        "value": operation.value,
        "content_type": operation.content_type,
        "lease_id": operation.lease_id,
    }
    if operation.ttl_ms:
        written["ttl"] = Duration(nanos=operation.ttl_ms * 1_000_000 % 10**9, seconds=operation.ttl_ms // 1000)
    common: dict[str, Any] = {"namespace": namespace, "key": operation.key}
    match operation.kind:
        case s.PIPELINE_KIND_GET:
            return s.GetRequest(**common, revision=operation.revision)
        case s.PIPELINE_KIND_PUT:
            return s.PutRequest(**common, **written, **expected, options=options)
        case s.PIPELINE_KIND_CREATE:
            return s.PutRequest(**common, **written, if_version=0, options=options)
        case s.PIPELINE_KIND_DELETE:
            return s.DeleteRequest(**common, **expected, options=options)
        case s.PIPELINE_KIND_INCREMENT:
            step = s.Operation(increment=s.IncrementOperation(key=operation.key, delta=operation.delta))
            return s.TransactRequest(namespace=namespace, then=[step], options=options)
        case s.PIPELINE_KIND_LIST:
            listed = s.ListRequest.FromString(operation.list.SerializeToString())
            listed.namespace = namespace
            return listed
        case _:
            asked = s.TransactRequest.FromString(operation.transact.SerializeToString())
            asked.namespace = namespace
            asked.options.CopyFrom(options)
            return asked


def check_same(result: s.PipelineResult, refused: Refusal, renamed: str = "") -> None:
    """`renamed` is what the call says where the pipeline says `id`; or else they have to say the same."""

    def own(text: str) -> str:
        return text.replace(renamed, "id") if renamed else text

    error = result.error
    assert result.code == refused.code.value[0], (result, refused)
    assert error.reason == refused.reason
    assert error.message == own(refused.message)
    assert dict(error.metadata) == dict(refused.metadata)
    assert dict(error.violations) == {own(field): text for field, text in refused.fields.items()}
    delay = error.retry_delay.ToMilliseconds() / 1000 if error.HasField("retry_delay") else None
    assert delay == refused.retry_after
    if error.reason == "CONFLICT":
        assert result.version == int(refused.metadata["version"])
        assert result.revision == int(refused.metadata["mod_revision"])


@pytest.fixture(scope="module")
def small() -> Iterator[servers.Server]:
    """A server with small limits, and a namespace that has most of what it may have."""
    with servers.start(*SMALL) as running, grpc.insecure_channel(running.address) as channel:
        wire = Wire(channel)
        for number in range(5):
            wire.put(NAME, f"k{number}", b"a number it is not" * 3)
        wire.call(s.DeleteRequest(namespace=NAME, key="k0"))
        wire.put(NAME, "k0")
        wire.call(n.CompactRequest(namespace=NAME, revision=3))
        yield running


@pytest.fixture
def own(small: servers.Server) -> Iterator[Wire]:
    with grpc.insecure_channel(small.address) as channel:
        yield Wire(channel)


@pytest.fixture
async def inside(small: servers.Server) -> AsyncIterator[Pipe]:
    async with connected(small.address) as channel, piped(channel, NAME) as pipe:
        yield pipe


def a_put(key: str, value: bytes = b"") -> s.Operation:
    return s.Operation(put=s.PutOperation(key=key, value=value))


def a_list(prefix: str = "") -> s.Operation:
    return s.Operation(list=s.ListOperation(prefix=prefix))


TOO_MUCH = [a_put(f"l{number}") for number in range(3)]
EVERYTHING = s.Operation(delete=s.DeleteOperation(prefix=""))
REFUSED: list[tuple[str, s.PipelineOperation]] = [
    ("CONFLICT", create("k1")),
    ("CONFLICT", put("k1", if_version=7)),
    ("CONFLICT", put("k1", if_version=1, if_revision=1)),
    ("CONFLICT", put("absent", if_revision=3)),
    ("CONFLICT", delete("k2", if_version=2)),
    ("CONFLICT", delete("absent", if_version=1)),
    ("NOT_A_NUMBER", increment("k1")),
    ("NOT_A_NUMBER", transact(then=[s.Operation(increment=s.IncrementOperation(key="k1", delta=1))])),
    ("COMPACTED", get("k1", 2)),
    ("REVISION_IN_FUTURE", get("k1", 100)),
    ("COMPACTED", listing(revision=1)),
    ("REVISION_IN_FUTURE", listing("k", revision=99)),
    ("COMPACTED", transact(conditions=[s.Condition(prefix="k", unchanged_since=1)])),
    ("REVISION_IN_FUTURE", transact(conditions=[s.Condition(key="k1", unchanged_since=99)])),
    ("QUOTA_EXCEEDED", transact(then=TOO_MUCH)),
    ("COMMIT_TOO_LARGE", transact(then=[EVERYTHING])),
    ("RESULT_TOO_LARGE", transact(then=[a_list("k1"), a_list("k2")])),
    ("TRANSACTION_TOO_COSTLY", transact(then=[a_list("x")] * 2, otherwise=[], conditions=[
        s.Condition(prefix=f"k{number}", unchanged_since=3) for number in range(1, 4)])),
    ("INVALID_REQUEST", get("é" * 11)),
    ("INVALID_REQUEST", get("k" * 21)),
    ("INVALID_REQUEST", put("k" * 21, bytes(1001), content_type="\0", lease_id=-1, if_version=-3, if_revision=-4)),
    ("INVALID_REQUEST", create("", content_type="c" * 256)),
    ("INVALID_REQUEST", delete("a\0", if_version=-1)),
    ("INVALID_REQUEST", listing("a\0", page_size=-1, revision=-1)),
    ("INVALID_REQUEST", listing(page_token="AAAA")),
    ("INVALID_REQUEST", transact(then=[a_put(""), a_put("a"), a_put("a")], otherwise=[s.Operation()])),
    ("INVALID_REQUEST", transact(then=[a_put("a")] * 5)),
    ("LEASE_NOT_FOUND", put("k", lease_id=99)),
    ("LEASE_NOT_FOUND", create("k", lease_id=99)),
    ("LEASE_NOT_FOUND", transact(then=[s.Operation(put=s.PutOperation(key="k", lease_id=99))])),
    ("LEASE_LOST", put("k", guard_lease_id=99)),
    ("LEASE_LOST", create("k", guard_lease_id=99, guard_fence=7)),
    ("LEASE_LOST", delete("k1", guard_lease_id=99)),
    ("LEASE_LOST", increment("k", guard_lease_id=99)),
    ("LEASE_LOST", s.PipelineOperation(kind=s.PIPELINE_KIND_TRANSACT, transact=s.TransactRequest(), guard_lease_id=99)),
    ("QUOTA_EXCEEDED", put("k", ttl_ms=5000)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "operation"), REFUSED, ids=[f"{place}-{reason}" for place, (reason, _) in enumerate(REFUSED)]
)
async def test_refusals(inside: Pipe, own: Wire, reason: str, operation: s.PipelineOperation) -> None:
    result = await inside.one(s.PipelineOperation.FromString(operation.SerializeToString()))
    assert result.error.reason == reason, result
    check_same(result, own.refused(unary(operation, NAME)))


async def test_long_keys_are_cut_in_what_is_said(pipe: Pipe, wire: Wire, namespace: str) -> None:
    long = "é" * 512
    await pipe.one(put(long, b"x"))
    for operation in (create(long), increment(long)):
        result = await pipe.one(operation)
        assert len(result.error.message.encode()) < 500
        check_same(result, wire.refused(unary(operation, namespace)))


async def test_a_token_of_a_history_that_is_gone(pipe: Pipe, wire: Wire, namespace: str) -> None:
    await pipe.ask(put("a"), put("b"))
    page = await pipe.one(listing(page_size=1))
    stale = listing(page_size=1, page_token=page.list.next_page_token)
    assert wire.call(unary(stale, namespace)).entries[0].key == "b"  # a token is good for a call, too
    wire.call(n.DeleteNamespaceRequest(namespace=namespace))
    result = await pipe.one(stale)
    assert result.error.reason == "COMPACTED"
    check_same(result, wire.refused(unary(stale, namespace)))


@pytest.mark.parametrize("client", ["", "a-client"])
async def test_refusals_of_request_ids(small: servers.Server, own: Wire, client: str) -> None:
    """Without a name of the client an id is just a number."""
    async with connected(small.address) as channel, piped(channel, NAME, client=client) as pipe:
        await pipe.one(put("k1", id=10), awaited=10)
        answers = await pipe.ask(put("k1", b"other", id=10), delete("k1", id=9), put("k1", id=10))
        if not client:
            assert [answer.code for answer in answers] == [0, 0, 0]
            await pipe.one(put("k1", b"a number it is not" * 3))
            return
        reused, forgotten, repeated = answers
        assert [reused.error.reason, forgotten.error.reason] == ["REQUEST_ID_REUSED", "REQUEST_ID_FORGOTTEN"]
        field = "options.request_id.sequence"
        check_same(reused, own.refused(unary(put("k1", b"other", id=10), NAME, client)), renamed=field)
        check_same(forgotten, own.refused(unary(delete("k1", id=9), NAME, client)))
        assert repeated.revision
        await pipe.one(put("k1", id=11))  # the second that is awaited, which is as many as may be
        waits = put("k1", id=12)
        full = await pipe.one(waits)
        assert full.error.reason == "OVERLOADED"
        check_same(full, own.refused(unary(waits, NAME, client)))


TROUBLES: list[StateError] = [StoreUnavailable("the disk is away"), StoreFull("the disk is full")]


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_a_store_in_trouble(trouble: StateError, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise trouble

    async with run() as running, connected(running.server.addresses[0]) as channel, piped(channel, NAME) as pipe:
        await pipe.one(put("k"))
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "get": lambda: running.state.Get(s.GetRequest(namespace=NAME, key="k")),
            "list": lambda: running.state.List(s.ListRequest(namespace=NAME)),
            "commit": lambda: running.state.Put(s.PutRequest(namespace=NAME, key="k")),
        }
        failing: list[tuple[list[str], list[str]]] = [  # methods of the store, and what then fails
            (["get", "get_all"], ["get at", "get"]),
            (["list"], ["list"]),
            (["position"], ["list"]),
            (["commit"], ["commit"]),
        ]
        for methods, failed in failing:
            with monkeypatch.context() as broken:
                for method in methods:
                    broken.setattr(running.store, method, fail)
                answers = await pipe.ask(listing(), get("k", 1), get("k"), put("k"))
                results = dict(zip(("list", "get at", "get", "commit"), answers, strict=True))
                assert (await pipe.one(put("k"))).code == (results["commit"].code)
                assert [name for name, result in results.items() if result.code] == failed
                if methods[0] in calls:
                    with pytest.raises(grpc.aio.AioRpcError) as raised:
                        await calls[methods[0]]()
                    for name in failed:
                        check_same(results[name], read_refusal(raised.value))
            assert (await pipe.one(get("k"))).code == 0


@pytest.mark.parametrize("failure", [ZeroDivisionError, asyncio.CancelledError])
async def test_an_unforeseen_failure_ends_the_stream_and_says_nothing(
    failure: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise failure("secret")

    for method, operation in (("get_all", get("k")), ("list", listing()), ("position", listing())):
        async with run() as running, connected(running.server.addresses[0]) as channel, piped(channel, NAME) as pipe:
            await pipe.one(put("k"))
            monkeypatch.setattr(running.store, method, fail)
            await pipe.send(operation, get("k", 1))
            refused = await pipe.ended()
            assert refused is not None
            assert (refused.code, refused.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
            assert "secret" not in refused.message
            async with piped(channel, NAME) as another:
                assert (await another.one(put("k"))).version == 2
