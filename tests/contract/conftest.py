"""The stores that are held to the contract: a new one gets a line in STORES, and every test here runs against it."""

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, Protocol

import pytest

from comity_server.limits import Limits
from comity_server.stores.url import open_store
from tests.contract.space import Space, fresh_name

HERE: Final = Path(__file__).parent

# The URL of each store. What a store needs beside it (a folder, a server) is a fixture that the line asks for by name.
STORES: dict[str, Callable[[pytest.FixtureRequest], str]] = {
    "memory": lambda request: "memory:",
    "sqlite": lambda request: f"sqlite:{request.getfixturevalue('tmp_path') / 'state.db'}",
    "redis": lambda request: f"{request.getfixturevalue('redis_server').url}?prefix=t-{uuid.uuid4().hex}",
    "redis-cluster": lambda request: f"{request.getfixturevalue('redis_cluster').url}?prefix=t-{uuid.uuid4().hex}",
}


# Of a Cluster, whose keys are found in another way and which is otherwise a Redis, these; all in the long form.
ON_A_CLUSTER = {
    "test_model",
    "test_leases",
    "test_lease_ends",
    "test_lease_guards",
    "test_lease_namespaces",
    "test_lease_requests",
    "test_lease_ttls",
    "test_forks",
    "test_merge",
    "test_namespaces",
    "test_following",
    "test_reads",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "redis-cluster" in item.nodeid and item.path.parent == HERE and item.path.stem not in ON_A_CLUSTER:
            item.add_marker(pytest.mark.long)


class OpenSpace(Protocol):
    async def __call__(self, limits: Limits = ...) -> Space: ...


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest) -> str:
    """The URL of the store under test."""
    return STORES[request.param](request)


@pytest.fixture
async def open_space(store_url: str) -> AsyncIterator[OpenSpace]:
    """Opens a store with limits of the test's own, and a namespace that nobody else uses."""
    async with AsyncExitStack() as stack:

        async def opened(limits: Limits = Limits()) -> Space:  # noqa: B008 - it cannot be changed
            store = open_store(store_url, limits)
            await store.open()
            stack.push_async_callback(store.close)
            return Space(store, fresh_name())

        yield opened


@pytest.fixture
async def space(open_space: OpenSpace) -> Space:
    """A namespace of a store with the default limits."""
    return await open_space()
