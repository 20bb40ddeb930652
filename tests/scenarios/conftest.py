"""A server over each store, that scenarios share."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest

import comity
from comity import Client
from tests.redis_servers import RedisServer
from tests.scenarios.places import KINDS, Place, place

LEAST_TTL = ("--limit-lease-ttl-least", "0.1")


@pytest.fixture(scope="session")
def place_of(redis_server: RedisServer) -> Iterator[Callable[[str], Place]]:
    """The server over a kind of store that all scenarios share: started for the first that wants it."""
    places: dict[str, Place] = {}
    with ExitStack() as stack:

        def find(kind: str) -> Place:
            if kind not in places:
                places[kind] = stack.enter_context(place(kind, redis_server, *LEAST_TTL))
            return places[kind]

        yield find


@pytest.fixture(params=KINDS)
def shared(request: pytest.FixtureRequest, place_of: Callable[[str], Place]) -> Place:
    """A server that goes on after each scenario."""
    return place_of(request.param)


@pytest.fixture
async def world(shared: Place, namespace: str) -> AsyncIterator[Client]:
    """A client of it, in the scenario's own namespace."""
    async with comity.connect(shared.address, namespace=namespace, author="scenario", timeout=60) as client:
        yield client
