"""A server over each store, that the scenarios of a module share."""

from collections.abc import AsyncIterator, Iterator

import pytest

import comity
from comity import Client
from tests.redis_servers import RedisServer
from tests.scenarios.places import KINDS, Place, place


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[Place]:
    """A server that goes on after each scenario."""
    with place(request.param, redis_server, "--limit-lease-ttl-least", "0.1") as made:
        yield made


@pytest.fixture
async def world(shared: Place, namespace: str) -> AsyncIterator[Client]:
    """A client of it, in the scenario's own namespace."""
    async with comity.connect(shared.address, namespace=namespace, author="scenario", timeout=60) as client:
        yield client
