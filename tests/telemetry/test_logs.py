"""What the log says of calls, and what it does not."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from structlog.testing import capture_logs

import comity
from comity.v1 import state_pb2 as s
from comity.v1 import state_pb2_grpc
from comity_server.access.tokens import new_token
from comity_server.telemetry.trail import merge
from tests import servers
from tests.access.bearers import bearing, write_tokens
from tests.telemetry.busy import CANARY, KEY, NAME, REQUEST_ID, TRACE, TRACED, VALUE
from tests.telemetry.conftest import Busy
from tests.waiting import until
from tests.wire.calls import TIMEOUT, Metadata
from tests.wire.inprocess import run
from tests.wire.pipes import connected, create, delete, get, increment, listing, piped, put, transact

Line = dict[str, Any]

PARENT_SAID = f"00-{'a' * 32}-{'b' * 16}-01"


def lines(server: servers.Server) -> list[Line]:
    return [json.loads(line) for line in server.log().splitlines()]


def calls(server: servers.Server) -> list[Line]:
    return [line for line in lines(server) if line["event"] == "call"]


def test_there_is_nothing_in_it_that_is_secret(busy_server: Busy) -> None:
    log = busy_server.server.log().replace("authorization is not `Bearer TOKEN`", "")  # the server's own words
    assert CANARY not in log
    assert busy_server.token not in log
    assert "Bearer" not in log
    assert "authorization" not in log


@pytest.mark.parametrize("name", ["tracestate", "baggage"])
async def test_what_anybody_says_of_a_trace_is_not_in_it(busy_server: Busy, name: str) -> None:
    said = [("traceparent", PARENT_SAID), (name, ",".join([f"!no name {CANARY}", "=", f"a={CANARY} b"] * 30))]
    async with grpc.aio.insecure_channel(busy_server.server.address) as channel:
        call: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.Get(s.GetRequest(), metadata=said, timeout=TIMEOUT)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    _, request = details(refused.value)
    await until(lambda: request.request_id in busy_server.server.log())
    log = busy_server.server.log()
    assert CANARY not in log
    assert "Loaded running loop" not in log, "nor what a library says of each call"


def test_each_call_has_a_line(busy_server: Busy) -> None:
    (first, *_) = [line for line in calls(busy_server.server) if line["code"] == "OK"]
    assert first["method"] == "comity.v1.StateService/Put"
    assert first["request_id"] == REQUEST_ID
    assert (first["principal"], first["namespace"], first["trace_id"]) == ("planner", NAME, TRACE)
    assert len(first["span_id"]) == 16
    assert first["peer"].startswith("ipv4:127.0.0.1:")
    assert first["received"] > first["sent"] > 0
    assert 0 < first["seconds"] < TIMEOUT
    codes = {line["code"] for line in calls(busy_server.server)}
    assert codes >= {
        *("OK", "CANCELLED", "INVALID_ARGUMENT", "NOT_FOUND", "ABORTED", "OUT_OF_RANGE"),
        *("UNAUTHENTICATED", "PERMISSION_DENIED"),
    }
    reasons = {(line["code"], line["reason"]) for line in calls(busy_server.server) if "reason" in line}
    assert reasons >= {("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS"), ("PERMISSION_DENIED", "AUTHOR_NOT_PRINCIPAL")}
    assert "OK" not in dict(reasons)
    whys = {(line["reason"], line["why"]) for line in calls(busy_server.server) if "why" in line}
    assert ("UNAUTHENTICATED", "the token is not known") in whys
    assert {reason for reason, _ in whys} == {"UNAUTHENTICATED"}
    names = {line.get("namespace") for line in calls(busy_server.server)}
    assert names >= {NAME, None}


def details(error: Any) -> tuple[Any, Any]:
    """The ErrorInfo and the RequestInfo of a failed call."""
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(request)
    assert info.reason
    assert request.request_id
    return info, request


@pytest.mark.parametrize(
    ("metadata", "kept"),
    [
        ((("x-request-id", "a1/b:c=2"),), True),
        ((), False),
        ((("x-request-id", ""),), False),
        ((("x-request-id", "two words"),), False),
        ((("x-request-id", '"},{"event":"forged'),), False),
        ((("x-request-id", "x" * 129),), False),
        ((("x-request-id", "-rf"),), False),
    ],
)
async def test_an_error_says_by_which_id_the_log_has_the_call(
    busy_server: Busy, metadata: Metadata, kept: bool
) -> None:
    async with grpc.aio.insecure_channel(busy_server.server.address) as channel:
        stub: state_pb2_grpc.StateServiceAsyncStub = state_pb2_grpc.StateServiceStub(channel)
        said = (*bearing(busy_server.token), *metadata)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Get(s.GetRequest(namespace=NAME), metadata=said, timeout=TIMEOUT)
    _, request = details(refused.value)
    await until(lambda: request.request_id in busy_server.server.log())
    assert (request.request_id == dict(metadata).get("x-request-id")) == kept
    (line,) = [line for line in calls(busy_server.server) if line["request_id"] == request.request_id]
    assert line["code"] == "INVALID_ARGUMENT"
    if not kept:
        assert len(request.request_id) == 32


async def test_an_error_of_the_client_has_it_too(busy_server: Busy) -> None:
    """What is told on a stream that calls share has the id of the stream."""
    address, token = busy_server.server.address, busy_server.token
    async with comity.connect(address, namespace=NAME, token=token, timeout=TIMEOUT) as state:
        with pytest.raises(comity.Conflict) as shared:
            await state.put(KEY, 1, if_version=99)
        with pytest.raises(comity.NotFound) as alone:
            await state.with_options(namespace=f"{NAME}-nothing").namespace_info()
        with pytest.raises(comity.OutOfRange) as streamed:
            await state.watch(KEY, from_revision=10**6).ready()
    ids = [raised.value.request_id for raised in (shared, alone, streamed)]
    await until(lambda: {*ids} <= {line["request_id"] for line in calls(busy_server.server)})
    methods = {line["request_id"]: line["method"].rpartition("/")[2] for line in calls(busy_server.server)}
    assert [methods[id] for id in ids] == ["Pipeline", "GetNamespace", "Watch"]


async def test_a_defect_is_in_the_log_under_the_id_of_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    async with run() as running:
        monkeypatch.setattr(running.store, "get", fail)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await running.state.Get(s.GetRequest(namespace="n", key="k"), metadata=(("x-request-id", "mine"),))
    info, request = details(refused.value)
    assert info.metadata["error_id"] == request.request_id == "mine"


async def test_a_watch_that_nobody_wants_any_more_is_no_failure() -> None:
    with capture_logs() as log:
        async with run(log_calls="failed") as running:
            await running.state.Get(s.GetRequest(namespace=NAME, key="k"))
            watch = running.state.Watch(s.WatchRequest(namespace=NAME, key="k"))
            await watch.read()
            watch.cancel()
            with pytest.raises(grpc.aio.AioRpcError):
                await running.state.Get(s.GetRequest(namespace=NAME))
            await until(lambda: not running.server.calls.streams)
    assert [line["code"] for line in log if line["event"] == "call"] == ["INVALID_ARGUMENT"]


FAILING = [
    ("PUT", "ABORTED", "CONFLICT", put(KEY, VALUE, if_version=99)),
    ("CREATE", "ABORTED", "CONFLICT", create(KEY, VALUE)),
    ("DELETE", "FAILED_PRECONDITION", "LEASE_LOST", delete(KEY, guard_lease_id=99)),
    ("INCREMENT", "FAILED_PRECONDITION", "NOT_A_NUMBER", increment(KEY)),
    ("GET", "OUT_OF_RANGE", "REVISION_IN_FUTURE", get(KEY, 10**6)),
    ("LIST", "OUT_OF_RANGE", "REVISION_IN_FUTURE", listing(KEY, revision=10**6)),
    ("TRANSACT", "INVALID_ARGUMENT", "INVALID_REQUEST", transact(namespace=KEY)),
    ("PUT", "INVALID_ARGUMENT", "INVALID_REQUEST", put(f"{KEY}\0", VALUE)),
    ("UNSPECIFIED", "INVALID_ARGUMENT", "INVALID_REQUEST", s.PipelineOperation(kind=99, key=KEY)),  # type: ignore[arg-type]
    ("UNSPECIFIED", "INVALID_ARGUMENT", "INVALID_REQUEST", s.PipelineOperation(kind=-1, key=KEY)),  # type: ignore[arg-type]
]
ANSWERS = 10  # more than the messages of which the answers to one are
WELL = [get(KEY), get("absent"), listing(), transact(conditions=[s.Condition(key="absent", exists=True)])]


@pytest.mark.parametrize("log_calls", ["none", "failed", "all"])
async def test_each_operation_of_a_pipeline_that_fails_has_a_line(log_calls: str) -> None:
    with capture_logs(processors=[merge]) as log:
        async with run(log_calls=log_calls) as running, connected(running.server.addresses[0]) as channel:
            async with piped(channel, NAME, metadata=(("x-request-id", "mine"),)) as pipe:
                await pipe.one(put(KEY, VALUE))
                for _, code, reason, operation in FAILING:
                    result = await pipe.one(copied(operation))
                    assert (result.code, result.error.reason) == (getattr(grpc.StatusCode, code).value[0], reason)
                assert not any(result.code for result in await pipe.ask(*map(copied, WELL)))
            await until(lambda: not running.server.calls.streams)
    found = [line for line in log if line["event"] == "operation"]
    failing = [(operation, code, reason) for operation, code, reason, _ in FAILING]
    assert [(line["operation"], line["code"], line["reason"]) for line in found] == failing * (log_calls != "none")
    for line in found:
        assert (line["count"], line["request_id"], line["namespace"]) == (1, "mine", NAME)
        assert line["method"] == "comity.v1.StateService/Pipeline"
    assert CANARY not in str(log)


async def test_those_of_a_message_that_fail_alike_have_one() -> None:
    """However many they are, and of whatever kinds that are none."""
    many = [put(KEY, VALUE, if_version=99), get(KEY, 10**6), get(KEY, 10**6)] * 100
    unknown = [s.PipelineOperation(kind=kind, key=KEY) for kind in range(50, 100)]  # type: ignore[arg-type]
    with capture_logs() as log:
        async with run(log_calls="failed") as running, connected(running.server.addresses[0]) as channel:
            async with piped(channel, NAME) as pipe:
                assert all(result.code for result in await pipe.ask(*map(copied, many), *unknown))
            await until(lambda: not running.server.calls.streams)
    found = [line for line in log if line["event"] == "operation"]
    counts: Counter[str] = Counter()
    for line in found:
        counts[line["operation"]] += line["count"]
    assert counts == {"PUT": 100, "GET": 200, "UNSPECIFIED": 50}
    assert len(found) <= 3 * ANSWERS


def copied(operation: s.PipelineOperation) -> s.PipelineOperation:
    """Without the id that it is given when it is sent."""
    return s.PipelineOperation.FromString(operation.SerializeToString())


async def test_what_a_client_is_denied_is_in_the_log_with_who_it_is(tmp_path: Path) -> None:
    token = new_token()
    write_tokens(tmp_path / "tokens", planner=token)
    policy = tmp_path / "policy.toml"
    policy.write_text(f'[[rules]]\nprincipals = ["planner"]\nnamespaces = ["{NAME}"]\nallow = ["read"]\n')
    with capture_logs(processors=[merge]) as log:
        async with run(log_calls="failed", tokens=tmp_path / "tokens", policy=policy) as running:
            async with comity.connect(running.server.addresses[0], namespace=NAME, token=token) as state:
                assert await state.get(KEY) is None
                with pytest.raises(comity.PermissionDenied) as refused:
                    await state.put(KEY, 1)
            await until(lambda: not running.server.calls.streams)  # which the end of the server would have fail
    (line,) = [line for line in log if line["event"] in ("call", "operation")]
    assert line.pop("peer").startswith("ipv4:127.0.0.1:")
    assert line == {
        "event": "operation",
        "log_level": "info",
        "operation": "PUT",
        "code": "PERMISSION_DENIED",
        "reason": "PERMISSION_DENIED",
        "count": 1,
        "principal": "planner",
        "namespace": NAME,
        "request_id": refused.value.request_id,
        "method": "comity.v1.StateService/Pipeline",
    }


async def test_a_trace_of_the_client_is_named_where_the_server_makes_none() -> None:
    with capture_logs(processors=[merge]) as log:
        async with run(log_calls="all") as running:
            for metadata in (TRACED, (("traceparent", f"00-{CANARY}"),)):
                await running.state.Get(s.GetRequest(namespace=NAME, key="k"), metadata=metadata)
    traced, untraced = [line for line in log if line["event"] == "call"]
    assert traced["trace_id"] == TRACE
    assert "trace_id" not in untraced
