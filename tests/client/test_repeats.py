"""Checkpoints, restores, forks and merges whose answer is lost are made again, and applied once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import comity
from comity import Client
from tests.client.states import fill
from tests.proxy import Proxy
from tests.servers import Server
from tests.waiting import until


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    async with Proxy(server.address) as proxy:
        yield proxy


@pytest.fixture
async def far(proxy: Proxy, namespace: str) -> AsyncIterator[Client]:
    async with comity.connect(proxy.address, namespace=namespace, timeout=30) as client:
        await client.wait_for_ready()
        yield client


async def twice(proxy: Proxy, act: Awaitable[Any], applied: Callable[[], Awaitable[bool]]) -> Any:
    """Break the connection when the server has applied the call and its answer is under way."""
    before = proxy.connections
    proxy.stall()
    task = asyncio.ensure_future(act)
    await until(applied)
    await proxy.held_back()
    await proxy.cut()
    proxy.resume()
    result = await task
    assert proxy.connections > before
    return result


async def test_a_checkpoint_is_not_taken_by_itself(state: Client, far: Client, proxy: Proxy) -> None:
    await fill(state, a=1)

    async def names() -> list[str]:
        return [mark.name async for mark in state.checkpoints()]

    async def there() -> bool:
        return await names() == ["mark"]

    async def gone() -> bool:
        return await names() == []

    assert (await twice(proxy, far.checkpoint("mark"), there)).name == "mark"
    await twice(proxy, far.delete_checkpoint("mark"), gone)


async def test_a_restore_does_not_fail_its_own_condition(state: Client, far: Client, proxy: Proxy) -> None:
    first = await fill(state, a=1)
    newest = await fill(state, a=2)

    async def applied() -> bool:
        return (await state.namespace_info()).revision == newest + 1

    done = await twice(proxy, far.restore(first, if_revision=newest), applied)
    assert (done.revision, done.put) == (newest + 1, 1)
    assert await applied()


async def test_a_fork_is_not_taken_by_itself_and_merged_once(state: Client, far: Client, proxy: Proxy) -> None:
    revision = await fill(state, a=1)
    name = f"{state.namespace}-fork"

    async def forked() -> bool:
        return [found.name async for found in state.namespaces(name)] == [name]

    async def merged() -> bool:
        return (await state.namespace_info()).revision == revision + 1

    fork = await twice(proxy, far.fork(name), forked)
    await fork.put("a", 2)
    done = await twice(proxy, far.merge(fork), merged)
    assert (done.merged, done.revision, done.put) == (True, revision + 1, 1)
    assert await merged()
