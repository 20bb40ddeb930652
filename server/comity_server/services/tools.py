"""Reflection and channelz: what grpcio answers, and how the server's other services fail."""

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import Any

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from comity_server.errors import NotFound
from comity_server.services.call import Call, Context


class Reflection:
    """Handlers of `grpc.reflection.v1alpha.ServerReflection`.

    Args:
        services: the full names of all that the server has.
    """

    def __init__(self, services: list[str]) -> None:
        self._servicer: Any = reflection.aio.ReflectionServicer(services)

    async def ServerReflectionInfo(
        self, requests: AsyncIterable[reflection_pb2.ServerReflectionRequest], call: Call
    ) -> AsyncGenerator[bytes]:
        async for answer in self._servicer.ServerReflectionInfo(requests, call.context):
            yield answer.SerializeToString()


class Channelz:
    """Handlers of `grpc.channelz.v1.Channelz`, for those who may administer the server."""

    def __init__(self) -> None:
        servicer = channelz.aio.ChannelzServicer
        for method in channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].methods:
            setattr(self, method.name, _answering(getattr(servicer, method.name)))


def _answering(method: Callable[[Any, Context], Awaitable[Any]]) -> Callable[[Any, Call], Awaitable[Any]]:
    """The method, raising where it would tell the client what a library says."""

    async def call(request: Any, call: Call) -> Any:
        call.caller.administer()
        answer = await method(request, call.context)
        if answer is not None:
            return answer
        if call.context.code() is grpc.StatusCode.NOT_FOUND:
            raise NotFound("there is nothing of that id")
        raise RuntimeError(call.context.details())

    return call
