"""What a client says on its pipelines, seen from inside of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

import grpc

from comity import Client
from comity.coalesce import Lanes
from comity.v1 import state_pb2

__all__ = ["Watched", "alone", "lanes"]


class Watched:
    """Notes the messages that a client writes to its pipelines, and can hold them back before gRPC has them."""

    def __init__(self, client: Client) -> None:
        self.streams = 0
        self.messages: list[state_pb2.PipelineRequest] = []
        self.operations = 0
        self._open = asyncio.Event()
        self._open.set()
        self._client_opens = lanes(client).open
        lanes(client).open = self._begin

    def hold(self) -> None:
        """Let no message through, as where the network takes no more."""
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    def _begin(self, **options: Any) -> Any:
        self.streams += 1
        return _Call(self._client_opens(**options), self._wrote)

    async def _wrote(self, message: state_pb2.PipelineRequest) -> None:
        copy = state_pb2.PipelineRequest()
        copy.CopyFrom(message)
        self.messages.append(copy)
        self.operations += len(message.operations)
        await self._open.wait()


class _Call:
    def __init__(self, call: Any, wrote: Callable[[state_pb2.PipelineRequest], Any]) -> None:
        self._call = call
        self._wrote = wrote

    async def write(self, message: state_pb2.PipelineRequest) -> None:
        await self._wrote(message)
        await self._call.write(message)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


def lanes(client: Client) -> Lanes:
    """The lanes of the running event loop."""
    return client._calls.channels.connection().lanes


def alone(client: Client) -> Client:
    """The same client, every call of which goes by itself in the running event loop."""
    lanes(client).end()
    return client


class Layer7:
    """A proxy that speaks gRPC, and passes on calls, but not streams.

    break_off: what becomes of a stream. An async context manager.
    """

    address: str

    def __init__(self, target: str, break_off: Callable[[grpc.aio.ServicerContext[Any, Any]], Any]) -> None:
        self._target = target
        self._break_off = break_off
        self.calls = 0  # to the service of states
        self.streams = 0

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self._target)
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((_Handler(self),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._server.stop(0)
        await self._channel.close()

    def handler(self, method: str) -> grpc.RpcMethodHandler[Any, Any]:
        async def forward(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            self.calls += "StateService" in method
            try:
                call: Any = self._channel.unary_unary(method)
                answer: bytes = await call(request, timeout=context.time_remaining(), metadata=_metadata(context))
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))
            return answer

        async def stream(requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            self.streams += 1
            await self._break_off(context)

        if method.endswith(("/Pipeline", "/Watch")):
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(forward)


def _metadata(context: grpc.aio.ServicerContext[Any, Any]) -> Any:
    return [pair for pair in context.invocation_metadata() or () if not pair[0].startswith(("user-agent", "grpc-"))]


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, proxy: Layer7) -> None:
        self._proxy = proxy

    def service(self, call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        return self._proxy.handler(call_details.method)
