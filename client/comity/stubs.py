"""The stubs of all services on one channel, and what a method of one of them is."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import grpc

from .v1.checkpoint_pb2_grpc import CheckpointServiceStub
from .v1.lease_pb2_grpc import LeaseServiceStub
from .v1.namespace_pb2_grpc import NamespaceServiceStub
from .v1.server_pb2_grpc import ServerServiceStub
from .v1.state_pb2_grpc import StateServiceStub

__all__ = ["Metadata", "Method", "Stubs"]

Request = TypeVar("Request")
Response = TypeVar("Response")
Sent = TypeVar("Sent", contravariant=True)
Answer = TypeVar("Answer", covariant=True)
Metadata = tuple[tuple[str, str], ...]


class Stubs:
    """What can be called on a channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.state = StateServiceStub(channel)
        self.checkpoints = CheckpointServiceStub(channel)
        self.namespaces = NamespaceServiceStub(channel)
        self.leases = LeaseServiceStub(channel)
        self.server = ServerServiceStub(channel)
        self.health: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/grpc.health.v1.Health/Check"
        )


class Call(Protocol[Sent, Answer]):
    """A unary call of a stub."""

    def __call__(self, request: Sent, *, timeout: float, metadata: Metadata | None) -> Awaitable[Answer]: ...


Method = Callable[[Stubs], Call[Request, Response]]
