"""Traces: of calls by OpenTelemetry's instrumentation of gRPC, of commits by its API.

The instrumentation takes what answers a stream for an asynchronous generator, and fails every stream of which it is a
coroutine that writes to its context. Generators are no way out: gRPC keeps the last message of each until the next one,
and lets go of one whose client left while a message was written, so that it ends in another task, where the
instrumentation logs errors about its context. So it is shown streams as calls with a single answer, which it awaits.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any, Final, TypeAlias

import grpc
from opentelemetry import context, propagate, trace
from opentelemetry.instrumentation.grpc import aio_server_interceptor, filters
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

# Of what a client says only where it is in a trace: other propagators keep all there is, and log what they cannot read.
TRACE_CONTEXT: Final = TraceContextTextMapPropagator()
LINKS: Final = 100  # of a commit: the SDK keeps 128

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"  # None: there is no such method
Find = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]


class Tracing(grpc.aio.ServerInterceptor):
    """Makes spans. As an interceptor those of calls, except of what is gRPC's own: health, reflection, channelz.

    All of the process follows W3C Trace Context from then on, and nothing else.
    """

    def __init__(self, provider: TracerProvider, version: str) -> None:
        propagate.set_global_textmap(TRACE_CONTEXT)
        self._tracer = provider.get_tracer("comity", version)
        self._traced: dict[str, Handler] = {}
        untraced = filters.service_prefix("grpc.")
        self._calls: Any = aio_server_interceptor(provider, filters.negate(untraced))  # type: ignore[no-untyped-call]

    async def intercept_service(self, continuation: Find, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """The handler of a method, which is made to be traced at its first call: that takes as long as a span."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        if method not in self._traced:
            self._traced[method] = await self._trace(method, handler)
        return self._traced[method]

    async def _trace(self, method: str, handler: Any) -> Handler:
        behaviour = handler.stream_stream if handler.response_streaming else handler.stream_unary

        async def behave(requests: object, call: object) -> Any:
            try:
                return await behaviour(requests, call)
            except grpc.aio.AbortError:  # which gRPC raises again; the span has its status, and needs no traceback
                return None

        async def single(_: object) -> Handler:
            return grpc.stream_unary_rpc_method_handler(behave)

        # Nothing of the first call, whose metadata would be there else: the handler is for all of them.
        details = SimpleNamespace(method=method, invocation_metadata=())
        traced = (await self._calls.intercept_service(single, details)).stream_unary
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(traced, handler.request_deserializer, handler.response_serializer)

    def current(self) -> Span | None:
        """The span of the call that the task answers, if it is traced."""
        span = trace.get_current_span()
        return span if span.get_span_context().is_valid else None

    def end(self, span: Span, code: str, namespace: str) -> None:
        """What the instrumentation does not know of a call that ends: of one whose client left it says OK."""
        if not span.is_recording():
            return
        span.set_attribute("rpc.response.status_code", code)
        if namespace:
            span.set_attribute("comity.namespace", namespace)
        if code in ("CANCELLED", "DEADLINE_EXCEEDED"):
            span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[code].value[0])
        if code == "DEADLINE_EXCEEDED":
            span.set_status(Status(StatusCode.ERROR))

    def commit(self, namespace: str, writes: int, calls: Sequence[Span], parents: Iterable[str]) -> Span | None:
        """The span of a group of writes, a trace of its own, with links to the calls that brought them and to what
        their clients were at. None: nobody traces them."""
        linked: dict[int, SpanContext] = {}
        for call in calls:
            found = call.get_span_context()
            if found.trace_flags.sampled:
                linked[found.span_id] = found
        for parent in parents:
            if len(linked) >= LINKS:
                break
            read = trace.get_current_span(TRACE_CONTEXT.extract({"traceparent": parent})).get_span_context()
            if read.is_valid and read.trace_flags.sampled:
                linked.setdefault(read.span_id, read)
        if not linked:
            return None
        return self._tracer.start_span(
            "commit",
            context.Context(),
            SpanKind.INTERNAL,
            {"comity.namespace": namespace, "comity.writes": writes},
            [Link(one) for one in list(linked.values())[:LINKS]],
        )
