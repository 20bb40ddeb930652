"""Each write keeps the trace of the task that made it, also where many share a stream; and what OpenTelemetry's
instrumentation of gRPC says of calls."""

import subprocess
import sys

import pytest

from tests.servers import Server

# A process of its own, since instrumentation changes gRPC for good.
PROGRAM = """
import asyncio, gc, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import comity

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("test")
if sys.argv[3] == "instrumented":
    from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorClient
    GrpcAioInstrumentorClient().instrument()

async def write(state, number, size=32, request_id=None):
    with tracer.start_as_current_span("write") as span:
        value = f"{span.get_span_context().trace_id:032x}".ljust(size)
        await state.put(f"k{number}", value, request_id=request_id)

async def main():
    async with comity.connect(sys.argv[1], namespace=sys.argv[2]) as state:
        await asyncio.gather(*(write(state, number) for number in range(20)))
        await write(state, 20, size=300_000)  # these two go by themselves
        await write(state, 21, request_id=comity.RequestId("test", 1))
        await state.put("untraced", "")
        async for commit in state.history():
            assert commit.trace_parent[3:35] == commit.events[0].entry.value[:32], commit
        exporter.clear()
        with tracer.start_as_current_span("work"):
            await state.put("large", " " * 300_000)
            async with state.lease(1), state.watch("large", from_revision=1) as watch:
                assert (await anext(aiter(watch))).key == "large"
            try:
                await state.get("large", revision=10**9)
            except comity.OutOfRange:
                print("refused")
    while len(exporter.get_finished_spans()) < int(sys.argv[4]):
        gc.collect()  # the instrumentation ends that of a watch with the iterator that it reads, which is in a cycle
        await asyncio.sleep(0.01)
    *calls, work = sorted(exporter.get_finished_spans(), key=lambda span: span.name)
    assert all(call.parent.span_id == work.context.span_id for call in calls)
    print(*(call.name.rpartition("/")[2] for call in calls))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("gRPC", "calls"), [("instrumented", ["GrantLease", "RevokeLease", "Put", "Watch"]), ("plain", [])]
)
def test_the_current_span_is_said_with_each_write_and_a_call_has_one_span(
    server: Server,
    namespace: str,
    gRPC: str,  # noqa: N803
    calls: list[str],
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, server.address, namespace, gRPC, str(len(calls) + 1)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.stdout, ended.returncode) == (f"refused\n{' '.join(calls)}\n", 0), ended.stderr
