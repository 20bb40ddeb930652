"""Calls with raw stubs: every method of the contract by the type of its request, and what a refusal says."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import grpc
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from comity.v1 import (
    checkpoint_pb2_grpc,
    lease_pb2_grpc,
    namespace_pb2_grpc,
    server_pb2_grpc,
    state_pb2,
    state_pb2_grpc,
)

TIMEOUT = 20.0
Metadata = tuple[tuple[str, str | bytes], ...]


class Refusal(NamedTuple):
    """How a call failed, with what its trailer says."""

    code: grpc.StatusCode
    message: str
    domain: str
    reason: str
    metadata: Mapping[str, str]
    fields: Mapping[str, str]  # of a BadRequest: what is wrong with which
    retry_after: float | None  # of a RetryInfo, in seconds


class Wire:
    """The stubs of one channel."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.state = state_pb2_grpc.StateServiceStub(channel)
        self.namespaces = namespace_pb2_grpc.NamespaceServiceStub(channel)
        self.checkpoints = checkpoint_pb2_grpc.CheckpointServiceStub(channel)
        self.leases = lease_pb2_grpc.LeaseServiceStub(channel)
        self.server = server_pb2_grpc.ServerServiceStub(channel)

    def put(self, namespace: str, key: str, value: bytes = b"") -> int:
        """Write a key, and return the revision."""
        request = state_pb2.PutRequest(namespace=namespace, key=key, value=value)
        return self.state.Put(request, timeout=TIMEOUT).revision

    def get(self, namespace: str, key: str) -> bytes | None:
        """Read a key, and return its value, if it has one."""
        response = self.state.Get(state_pb2.GetRequest(namespace=namespace, key=key), timeout=TIMEOUT)
        return response.entry.value if response.HasField("entry") else None

    def call(self, request: Any, timeout: float = TIMEOUT, metadata: Metadata = ()) -> Any:
        """Call the method that takes this request. A stream is read up to its first message."""
        name = type(request).__name__.removesuffix("Request")
        for stub in (self.state, self.namespaces, self.checkpoints, self.leases, self.server):
            method = getattr(stub, name, None)
            if method is not None:
                break
        else:
            raise LookupError(name)
        if isinstance(method, grpc.UnaryUnaryMultiCallable):
            return method(request, timeout=timeout, metadata=metadata)
        asked = iter([request]) if isinstance(method, grpc.StreamStreamMultiCallable) else request
        stream = method(asked, timeout=timeout, metadata=metadata)
        try:
            return next(stream)
        finally:
            stream.cancel()

    def refused(self, request: Any, metadata: Metadata = ()) -> Refusal:
        """Make a call that must fail."""
        return refusal(lambda: self.call(request, metadata=metadata))


def refusal(call: Callable[[], object]) -> Refusal:
    """What a failing call says."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return read_refusal(error)
    raise AssertionError(f"the call succeeded: {answer}")


def read_refusal(error: Any) -> Refusal:
    """What a failed call says: of `grpc` and of `grpc.aio`."""
    trailer = dict(iter(error.trailing_metadata() or ()))  # the one of `grpc.aio` is taken for a mapping of its names
    status = status_pb2.Status.FromString(trailer.get("grpc-status-details-bin", b""))
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    retry_after = None
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
        if detail.Unpack(retry):
            retry_after = retry.retry_delay.ToMilliseconds() / 1000
    if status.details:
        assert status.code == error.code().value[0]
        assert status.message == error.details()
    fields = {violation.field: violation.description for violation in bad.field_violations}
    return Refusal(
        error.code(), error.details() or "", info.domain, info.reason, dict(info.metadata), fields, retry_after
    )
