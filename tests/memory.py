"""How much memory a server takes up once it has come to rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psutil

from comity.v1 import state_pb2
from tests.servers import Server
from tests.wire.calls import TIMEOUT

if TYPE_CHECKING:
    from comity.v1 import state_pb2_grpc

MIB: Final = 1024 * 1024


def memory(server: Server) -> int:
    """In bytes."""
    return psutil.Process(server.process.pid).memory_info().rss


async def turns(state: state_pb2_grpc.StateServiceAsyncStub) -> None:
    """The server has so many turns that it goes on with whatever it can go on with."""
    for _ in range(500):
        await state.Get(state_pb2.GetRequest(namespace="n", key="absent"), timeout=TIMEOUT)


async def settled(server: Server, state: state_pb2_grpc.StateServiceAsyncStub) -> int:
    """What the server takes up when it does not take up more any more, although it has turns."""
    before = 0
    while (now := memory(server)) > before + MIB:
        before = now
        await turns(state)
    return now
