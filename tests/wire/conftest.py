"""Raw stubs on the shared server."""

from collections.abc import AsyncIterator, Iterator

import grpc
import pytest

from tests import servers
from tests.wire.calls import Wire
from tests.wire.pipes import Pipe, connected, piped


@pytest.fixture(scope="module")
def wire(server: servers.Server) -> Iterator[Wire]:
    with grpc.insecure_channel(server.address) as channel:
        yield Wire(channel)


@pytest.fixture
async def channel(server: servers.Server) -> AsyncIterator[grpc.aio.Channel]:
    """A connection of the test's own."""
    async with connected(server.address) as channel:
        yield channel


@pytest.fixture
async def pipe(channel: grpc.aio.Channel, namespace: str) -> AsyncIterator[Pipe]:
    """A pipeline on the shared server, in the test's own namespace. Its writes have no request ids."""
    async with piped(channel, namespace) as pipe:
        yield pipe
