"""Traces of calls and of commits, by the API of OpenTelemetry.

The interceptor of opentelemetry-instrumentation-grpc cannot be had here: it takes what answers a stream for an
asynchronous generator, while here it is a coroutine that writes to its context (grpcio has both), so that every stream
would fail. What it does of a span is done here, where every call passes anyway, with the names of the conventions.
"""

from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import unquote

from opentelemetry import context, trace
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

# Of what a client says only where it is in a trace: other propagators keep all there is, and log what they cannot read.
TRACE_CONTEXT: Final = TraceContextTextMapPropagator()
LINKS: Final = 100  # of a commit: the SDK keeps 128
# Of a server these are its own errors; the others are its clients'.
SERVER_ERRORS: Final = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")

Metadata = Iterable[tuple[str, str | bytes]]


class Tracing:
    """Makes spans."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def begin(self, method: str, metadata: Metadata, peer: str) -> Span:
        """The span of a call, which goes on with the trace that the client names. It is the current one of the task
        from now on, which has to be the call's own."""
        parent = TRACE_CONTEXT.extract({name: said for name, said in metadata if isinstance(said, str)})
        attributes: dict[str, str | int] = {"rpc.system.name": "grpc", "rpc.method": method}
        address, _, port = unquote(peer).partition(":")[2].rpartition(":")
        if port.isdecimal():
            attributes |= {"network.peer.address": address.strip("[]"), "network.peer.port": int(port)}
        span = self._tracer.start_span(method, parent, SpanKind.SERVER, attributes)
        context.attach(trace.set_span_in_context(span, parent))
        return span

    def end(self, span: Span, code: str, namespace: str) -> None:
        """The call has ended with a status."""
        if span.is_recording():
            span.set_attribute("rpc.response.status_code", code)
            if namespace:
                span.set_attribute("comity.namespace", namespace)
            if code != "OK":
                span.set_attribute("error.type", code)
            if code in SERVER_ERRORS:
                span.set_status(Status(StatusCode.ERROR))
        span.end()

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
