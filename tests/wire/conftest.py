"""Raw stubs on the shared server."""

from collections.abc import Iterator

import grpc
import pytest

from tests import servers
from tests.wire.calls import Wire


@pytest.fixture(scope="module")
def wire(server: servers.Server) -> Iterator[Wire]:
    with grpc.insecure_channel(server.address) as channel:
        yield Wire(channel)
