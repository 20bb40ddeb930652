"""A client of the shared server, in the test's own namespace."""

from collections.abc import AsyncIterator

import pytest

import comity
from tests.servers import Server


@pytest.fixture
async def state(server: Server, namespace: str) -> AsyncIterator[comity.Client]:
    async with comity.connect(server.address, namespace=namespace, author="ann") as client:
        yield client
