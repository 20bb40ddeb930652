"""Calls of every method and with every kind of end, each with secrets in all places that have room for one."""

import contextlib
from collections.abc import Callable
from typing import Any, Final

import grpc

from comity.v1 import checkpoint_pb2 as c
from comity.v1 import lease_pb2 as le
from comity.v1 import namespace_pb2 as n
from comity.v1 import server_pb2_grpc
from comity.v1 import state_pb2 as s
from comity.v1.server_pb2 import GetStatusRequest
from comity.v1.types_pb2 import Ref, WriteOptions
from tests.access.bearers import bearing
from tests.waiting import wait_until
from tests.wire.calls import TIMEOUT, Metadata, Wire

NAME: Final = "busy"
CANARY: Final = "canary"  # part of all that the log has no business with
KEY: Final = f"{CANARY}-key"
VALUE: Final = f"{CANARY}-value".encode()
WRONG_TOKEN: Final = f"{CANARY}-token-that-nobody-has"
TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
PARENT: Final = "b7ad6b7169203331"
TRACED: Final = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
REQUEST_ID: Final = "planner/42"


def work(channel: grpc.Channel, token: str) -> None:
    """Make them. Those that fail are meant to."""
    wire = Wire(channel)
    metadata: Metadata = (*bearing(token), ("x-secret", f"{CANARY}-metadata"), ("x-secret-bin", VALUE))
    said = WriteOptions(message=f"{CANARY}-message")
    put = s.PutRequest(namespace=NAME, key=KEY, value=VALUE, options=said)
    wire.call(put, metadata=(*metadata, *TRACED, ("x-request-id", REQUEST_ID)))
    for request in _well(said):
        wire.call(request, metadata=metadata)
    watching = wire.state.Watch(s.WatchRequest(namespace=NAME, prefix=CANARY), metadata=metadata, timeout=TIMEOUT)
    next(watching)
    pipe(wire, metadata)
    assert next(watching).revision
    watching.cancel()
    for request in _badly():
        with contextlib.suppress(grpc.RpcError):
            wire.call(request, metadata=metadata)
    for shown in ((), bearing(WRONG_TOKEN), (("authorization", f"Basic {WRONG_TOKEN}"),)):
        with contextlib.suppress(grpc.RpcError):
            wire.call(put, metadata=shown)
    garbage: Any = channel.unary_unary("/comity.v1.StateService/Get")
    with contextlib.suppress(grpc.RpcError):
        garbage(b"\xff" + VALUE, metadata=metadata, timeout=TIMEOUT)
    with contextlib.suppress(grpc.RpcError):
        wire.call(s.WatchRequest(namespace=NAME, prefix=CANARY, from_revision=10**6), metadata=metadata)
    _until(channel, token, _is_through)


def open_streams(channel: grpc.Channel, token: str, count: int) -> None:
    """Have so many streams be open at the same time, where that is one too many."""
    wire, request = Wire(channel), s.WatchRequest(namespace=NAME, prefix=CANARY)
    _until(channel, token, _is_quiet)
    watches = [wire.state.Watch(request, metadata=bearing(token), timeout=TIMEOUT) for _ in range(count)]
    ends = 0
    for watch in watches:
        try:
            next(watch)
        except grpc.RpcError:
            ends += 1
    assert ends == 1
    for watch in watches:
        watch.cancel()
    _until(channel, token, _is_quiet)


def _until(channel: grpc.Channel, token: str, condition: Callable[[Any], bool]) -> None:
    """Wait until it holds of the server's status."""
    stub = server_pb2_grpc.ServerServiceStub(channel)
    wait_until(
        lambda: condition(stub.GetStatus(GetStatusRequest(), metadata=bearing(token), timeout=TIMEOUT).status), TIMEOUT
    )


def _is_quiet(status: Any) -> bool:
    """Whether nothing is open beside the question."""
    return bool(sum(method.open for method in status.methods) == 1)


def _is_through(status: Any) -> bool:
    """Whether what happens by itself has happened: the end of a lease, and compaction."""
    return bool(status.leases.expired and status.compaction.revisions)


def _well(said: WriteOptions) -> list[Any]:
    condition = s.Condition(key=KEY, exists=True)
    lease = le.GrantLeaseRequest(namespace=NAME, options=said)
    lease.ttl.FromMilliseconds(200)
    return [
        *(s.PutRequest(namespace=NAME, key=f"{KEY}-{number}", value=VALUE, options=said) for number in range(30)),
        s.GetRequest(namespace=NAME, key=KEY),
        s.ListRequest(namespace=NAME, prefix=CANARY),
        s.TransactRequest(namespace=NAME, conditions=[condition], options=said),
        s.HistoryRequest(namespace=NAME),
        s.BlameRequest(namespace=NAME),
        s.DeleteRequest(namespace=NAME, key=f"{KEY}-1", options=said),
        c.CheckpointRequest(namespace=NAME, name=f"{CANARY}-mark", options=said),
        c.ListCheckpointsRequest(namespace=NAME),
        c.DiffRequest(namespace=NAME, base=Ref(checkpoint=f"{CANARY}-mark")),
        c.RestoreRequest(namespace=NAME, ref=Ref(checkpoint=f"{CANARY}-mark"), options=said),
        n.ForkRequest(namespace=NAME, fork=f"{NAME}-fork", options=said),
        n.MergeRequest(namespace=NAME, fork=f"{NAME}-fork", options=said),
        n.GetNamespaceRequest(namespace=NAME),
        n.ListNamespacesRequest(),
        lease,
        le.ListLeasesRequest(namespace=NAME),
        le.KeepAliveRequest(namespace=NAME, lease_id=10**6),
    ]


def _badly() -> list[Any]:
    return [
        s.GetRequest(namespace=NAME, key=""),
        s.GetRequest(namespace=f"{CANARY} is no namespace", key=KEY),
        s.GetRequest(namespace=NAME, key=KEY * 1000),
        s.GetRequest(namespace=NAME, key=KEY, revision=10**6),
        s.PutRequest(namespace=NAME, key=KEY, value=VALUE, if_version=99),
        s.PutRequest(namespace=NAME, key=KEY, value=VALUE * 200_000),
        s.PutRequest(namespace=NAME, key=KEY, value=VALUE, options=WriteOptions(author=f"{CANARY}-somebody-else")),
        s.PutRequest(namespace=NAME, key=KEY, value=VALUE, lease_id=10**6),
        s.TransactRequest(namespace=NAME, then=[s.Operation(increment=s.IncrementOperation(key=KEY, delta=1))]),
        c.RestoreRequest(namespace=NAME, ref=Ref(checkpoint=f"{CANARY}-nothing")),
        n.GetNamespaceRequest(namespace=f"{NAME}-nothing"),
        le.RevokeLeaseRequest(namespace=NAME, lease_id=10**6),
    ]


def pipe(wire: Wire, metadata: Metadata) -> None:
    """Operations of each kind, of which some fail."""
    kinds: list[Any] = [kind for kind in s.PipelineKind.values() if kind]
    operations = [
        s.PipelineOperation(id=id, kind=kind, key=KEY, value=VALUE, delta=1, trace_parent=TRACED[0][1])
        for id, kind in enumerate((*kinds, *kinds), 1)
    ]
    operations.append(s.PipelineOperation(id=100, kind=s.PIPELINE_KIND_PUT, key=KEY, if_version=99))
    request = s.PipelineRequest(namespace=NAME, operations=operations)
    answers = wire.state.Pipeline(iter([request]), metadata=metadata, timeout=TIMEOUT)
    assert sum(len(answer.results) for answer in answers) == len(operations)
