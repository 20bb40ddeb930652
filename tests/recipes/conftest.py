"""A client of the shared server in the test's own namespace, two servers over one Redis, and agents in processes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest

import comity
from comity import Client
from tests import servers
from tests.recipes.processes import Agent
from tests.redis_servers import program
from tests.servers import Server


@pytest.fixture
async def state(server: Server, namespace: str) -> AsyncIterator[Client]:
    async with comity.connect(server.address, namespace=namespace, author="ann") as client:
        yield client


@pytest.fixture
async def pair(redis_url: str, namespace: str) -> AsyncIterator[tuple[Client, Client]]:
    """A client of each of two servers over one Redis."""
    if program() is None:
        pytest.skip("there is no redis-server")
    with ExitStack() as stack:
        starts = [asyncio.to_thread(servers.start, "--store", redis_url) for _ in range(2)]
        both = [stack.enter_context(started) for started in await asyncio.gather(*starts)]
        async with (
            comity.connect(both[0].address, namespace=namespace, author="ann") as one,
            comity.connect(both[1].address, namespace=namespace, author="bob") as other,
        ):
            yield one, other


@pytest.fixture
def agent(server: Server, namespace: str) -> Iterator[Callable[..., Agent]]:
    """Starts agents in processes of their own, which are killed at the end of the test."""
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(Agent(server.address, namespace, *arguments))
