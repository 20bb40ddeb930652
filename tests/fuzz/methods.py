"""Every method that a server has, found through descriptors: one that is new is fuzzed from its first day."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import comity.v1
from tests.wire.calls import TIMEOUT

TOOLS = (health_pb2, channelz_pb2, reflection_pb2)


def contract() -> Iterator[MethodDescriptor]:
    """The methods of `comity.v1`, and of what grpcio brings."""
    names = [name for _, name, _ in pkgutil.iter_modules(comity.v1.__path__) if name.endswith("_pb2")]
    modules: list[Any] = [importlib.import_module(f"comity.v1.{name}") for name in names]
    for module in (*modules, *TOOLS):
        for service in module.DESCRIPTOR.services_by_name.values():
            yield from service.methods


METHODS = {method.full_name: method for method in contract()}


def path(method: MethodDescriptor) -> str:
    """As HTTP/2 says it."""
    return f"/{method.containing_service.full_name}/{method.name}"


def offered(channel: grpc.Channel) -> set[str]:
    """The full names of the methods that a server says it has."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([asked]), timeout=TIMEOUT)
    pool = descriptor_pool.Default()
    services = [pool.FindServiceByName(service.name) for service in answer.list_services_response.service]
    return {method.full_name for service in services for method in service.methods}
