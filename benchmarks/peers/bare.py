"""A bare server of grpc.aio, which shows what gRPC in Python costs where nothing is behind it.

`Echo` answers a call with its request; `Watch` streams, and `Put` has every stream write its request once.
"""

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import grpc

from benchmarks.peers.process import Process, running
from comity_server.serve import new_event_loop

ECHO = "/bare.Bare/Echo"
PUT = "/bare.Bare/Put"
WATCH = "/bare.Bare/Watch"


class Bare:
    def __init__(self, process: Process, address: str) -> None:
        self.process = process
        self.address = address


@contextlib.contextmanager
def serve() -> Iterator[Bare]:
    """Serve on a free port."""
    with running([sys.executable, "-m", "benchmarks.peers.bare"]) as process:
        assert process.popen.stdout is not None
        address = process.popen.stdout.readline().decode().strip()
        if not address:
            raise RuntimeError("the bare server did not start")
        yield Bare(process, address)


class _Servicer:
    def __init__(self) -> None:
        self._written: list[bytes] = []
        self._waiting: list[asyncio.Future[None]] = []

    async def echo(self, request: bytes, _: Any) -> bytes:
        return request

    async def put(self, request: bytes, _: Any) -> bytes:
        self._written.append(request)
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)
        return b""

    async def watch(self, _: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        loop = asyncio.get_running_loop()
        place = len(self._written)
        await context.write(b"live")
        while True:
            if place == len(self._written):
                turn = loop.create_future()
                self._waiting.append(turn)
                await turn
            await context.write(self._written[place])
            place += 1


async def _serve() -> None:
    options = [
        ("grpc.max_concurrent_streams", 2**31 - 1),
        ("grpc.server.max_pending_requests", 100_000),
        ("grpc.server.max_pending_requests_hard_limit", 100_000),
    ]
    server = grpc.aio.server(options=options)
    servicer = _Servicer()
    handlers: Any = {
        "Echo": grpc.unary_unary_rpc_method_handler(servicer.echo),
        "Put": grpc.unary_unary_rpc_method_handler(servicer.put),
        "Watch": grpc.unary_stream_rpc_method_handler(servicer.watch),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare.Bare", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve())
