"""A collector of OpenTelemetry: what servers send to it by OTLP, for tests to look at."""

from collections.abc import Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as m
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as m_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as t
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as t_grpc


class Span(NamedTuple):
    """A span, with ids in hexadecimal."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: Mapping[str, Any]
    links: list[str]  # the ids of the spans that it links to
    events: list[str]
    is_error: bool
    text: str  # all of it but what clients hand on from trace to trace


class Collector(t_grpc.TraceServiceServicer, m_grpc.MetricsServiceServicer):
    """What has come. `address` is where."""

    def __init__(self) -> None:
        self.address = ""
        self.spans: list[Span] = []
        self.metrics: set[str] = set()
        self.resource: Mapping[str, Any] = {}

    def Export(self, request: Any, context: object) -> Any:
        if isinstance(request, m.ExportMetricsServiceRequest):
            for of_resource in request.resource_metrics:
                self.resource = _attributes(of_resource.resource.attributes)
                for scope in of_resource.scope_metrics:
                    self.metrics |= {metric.name for metric in scope.metrics}
            return m.ExportMetricsServiceResponse()
        for spans in request.resource_spans:
            for scoped in spans.scope_spans:
                self.spans += map(_span, scoped.spans)
        return t.ExportTraceServiceResponse()


@contextmanager
def collecting() -> Iterator[Collector]:
    """Collect on a free port until the end of the block."""
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    for add in (t_grpc.add_TraceServiceServicer_to_server, m_grpc.add_MetricsServiceServicer_to_server):
        add(collector, server)  # type: ignore[no-untyped-call]
    collector.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()


def _span(span: Any) -> Span:
    span.ClearField("trace_state")
    return Span(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        _attributes(span.attributes),
        [link.span_id.hex() for link in span.links],
        [event.name for event in span.events],
        span.status.code == 2,
        str(span),
    )


def _attributes(attributes: Any) -> Mapping[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
