"""Registration of services, and the one place that every call goes through.

A handler takes a parsed message and answers with one, or raises an error of `comity_server.errors`. What else it raises
is a defect: it goes to the log under an id, and the client is told the id.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Final, NoReturn

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from comity_server.errors import Draining, InvalidRequest, NotImplementedYet, StateError, Violation
from comity_server.services import status

log = structlog.get_logger(__name__)

QUIET_SECONDS: Final = 0.1

Context = grpc.aio.ServicerContext[Any, Any]
Unary = Callable[[Any, Context], Awaitable[Message]]
Stream = Callable[[Any, Context], AsyncGenerator[bytes]]
Behaviour = Callable[[Any, Context], Awaitable[Any]]


class Calls:
    """Registers services with a gRPC server, and knows how many of their calls are in progress."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self.unary_calls = 0
        self.streams = 0
        self._draining = False
        self._refused = 0
        self._ended = asyncio.Event()

    def add(self, service: ServiceDescriptor, servicer: object = None, *, tool: bool = False) -> None:
        """Register the methods that the servicer has under their names in the contract.

        A method that it has not answers UNIMPLEMENTED. One that streams its answer is a function that returns an
        iterator of serialised messages; one to which requests are streamed gets an iterator of them. The calls of a
        tool are answered to the last, and nobody waits for their end.
        """
        handlers = {
            method.name: self._handler(method, getattr(servicer, method.name, None), tool) for method in service.methods
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))

    def refuse(self) -> None:
        """Answer every further call with Draining."""
        self._draining = True

    async def unary_calls_ended(self) -> None:
        """Return when no unary call is in progress any more. Only after `refuse`."""
        while self.unary_calls:
            self._ended.clear()
            await self._ended.wait()

    async def streams_ended(self) -> None:
        """Return when no stream is in progress any more. Only after `refuse`."""
        while self.streams:
            self._ended.clear()
            await self._ended.wait()

    async def refusals_ended(self) -> None:
        """Return when no call has come to be refused for a moment. Only after `refuse`."""
        refused = -1
        while refused != self._refused:
            refused = self._refused
            await asyncio.sleep(QUIET_SECONDS)

    def _handler(self, method: MethodDescriptor, handler: Any, tool: bool) -> Any:
        # Messages arrive as bytes: gRPC would answer INTERNAL where they cannot be parsed.
        behaviour: Behaviour
        if handler is None:
            behaviour = _unimplemented(method)
        elif method.server_streaming:
            behaviour = self._stream(method, handler, tool)
        else:
            behaviour = self._unary(method, handler, tool)
        match method.client_streaming, method.server_streaming:
            case False, False:
                return grpc.unary_unary_rpc_method_handler(behaviour)
            case False, True:
                return grpc.unary_stream_rpc_method_handler(behaviour)
            case True, False:
                return grpc.stream_unary_rpc_method_handler(behaviour)
            case _:
                return grpc.stream_stream_rpc_method_handler(behaviour)

    def _unary(self, method: MethodDescriptor, handler: Unary, tool: bool) -> Behaviour:
        parse = GetMessageClass(method.input_type).FromString
        counted = 0 if tool else 1

        async def call(data: bytes, context: Context) -> bytes:
            self.unary_calls += counted
            try:
                if self._draining and counted:
                    self._refused += 1
                    raise Draining
                return (await handler(parse(data), context)).SerializeToString()
            except grpc.aio.BaseError:  # the client went away before its answer
                raise
            except Exception as error:  # noqa: BLE001 - the one place where defects end
                await _fail(method, context, error)
            finally:
                self.unary_calls -= counted
                if self._draining:
                    self._ended.set()

        return call

    def _stream(self, method: MethodDescriptor, handler: Stream, tool: bool) -> Behaviour:
        parse = _parser(method)
        counted = 0 if tool else 1

        async def call(data: Any, context: Context) -> None:
            self.streams += counted
            try:
                if self._draining and counted:
                    self._refused += 1
                    raise Draining
                async with contextlib.aclosing(handler(parse(data), context)) as messages:
                    async for message in messages:
                        await context.write(message)
            except grpc.aio.BaseError:  # the client went away before its answer
                raise
            except Exception as error:  # noqa: BLE001 - the one place where defects end
                await _fail(method, context, error)
            finally:
                self.streams -= counted
                if self._draining:
                    self._ended.set()

        return call


async def _fail(method: MethodDescriptor, context: Context, error: Exception) -> NoReturn:
    if isinstance(error, DecodeError):
        error = InvalidRequest(Violation("request", f"is not a {method.input_type.full_name}"))
    if isinstance(error, StateError):
        answer = status.answer(error)
    else:
        error_id = uuid.uuid4().hex
        log.error("a call failed", method=method.full_name, error_id=error_id, exc_info=error)
        answer = status.internal(error_id)
    await context.abort(answer.code, answer.message, answer.trailer)


def _unimplemented(method: MethodDescriptor) -> Callable[[Any, Context], Awaitable[NoReturn]]:
    async def call(request: object, context: Context) -> NoReturn:
        await _fail(method, context, NotImplementedYet(f"this server does not offer {method.full_name}"))

    return call


def _parser(method: MethodDescriptor) -> Callable[[Any], Any]:
    """Makes messages of what gRPC hands to the method: bytes, or an iterator of them."""
    parse = GetMessageClass(method.input_type).FromString

    async def parse_each(requests: AsyncIterator[bytes]) -> AsyncGenerator[Message]:
        async for data in requests:
            yield parse(data)

    return parse_each if method.client_streaming else parse
