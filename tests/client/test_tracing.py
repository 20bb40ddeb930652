"""Each write keeps the trace of the task that made it, also where many share a stream."""

import subprocess
import sys

import pytest

from tests.servers import Server

# A process of its own, since instrumentation changes gRPC for good.
PROGRAM = """
import asyncio, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
import comity

trace.set_tracer_provider(TracerProvider())
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
        print("well")

asyncio.run(main())
"""


@pytest.mark.parametrize("gRPC", ["instrumented", "plain"])
def test_the_current_span_is_said_with_each_write(server: Server, namespace: str, gRPC: str) -> None:  # noqa: N803
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, server.address, namespace, gRPC],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.stdout, ended.returncode) == ("well\n", 0), ended.stderr
