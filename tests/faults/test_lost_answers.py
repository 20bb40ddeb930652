"""A write whose answer is lost is made again, and applied once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

import pytest

import comity
from comity import Client, Increment
from tests.proxy import Proxy
from tests.servers import Server
from tests.waiting import until


@pytest.fixture
async def near(server: Server, namespace: str) -> AsyncIterator[Client]:
    async with comity.connect(server.address, namespace=namespace) as client:
        yield client


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    async with Proxy(server.address) as proxy:
        yield proxy


@pytest.fixture
async def far(proxy: Proxy, namespace: str) -> AsyncIterator[Client]:
    async with comity.connect(proxy.address, namespace=namespace, timeout=30) as client:
        await client.wait_for_ready()
        yield client


async def reached(state: Client, revision: int) -> bool:
    try:
        return (await state.namespace_info()).revision >= revision
    except comity.NotFound:  # before its first write
        return False


def further(tasks: Sequence[asyncio.Task[None]], before: int) -> bool:
    done = sum(task.done() for task in tasks)
    return done > before or done == len(tasks)


async def test_a_write_whose_answer_is_lost_is_applied_once(near: Client, far: Client, proxy: Proxy) -> None:
    await near.put("counter", 0)
    for number in range(1, 11):
        proxy.stall()
        writing = asyncio.create_task(far.transact(then=[Increment("counter", 1)]))
        await until(partial(reached, near, number + 1))
        await proxy.held_back()  # applied, and the answer is under way
        await proxy.cut()
        proxy.resume()
        result = await writing
        assert result.revision == number + 1
    entry = await near.get("counter")
    assert entry is not None
    assert entry.value == 10


async def test_a_conditional_put_whose_answer_is_lost_is_no_conflict(near: Client, far: Client, proxy: Proxy) -> None:
    """Made again without a name it would lose against itself."""
    proxy.stall()
    writing = asyncio.create_task(far.put("k", 1, if_version=0))
    await until(lambda: reached(near, 1))
    await proxy.held_back()
    await proxy.cut()
    proxy.resume()
    assert (await writing).version == 1


async def test_many_writes_over_a_connection_that_breaks_all_the_time(near: Client, far: Client, proxy: Proxy) -> None:
    async def add(amount: int) -> None:
        await far.transact(then=[Increment("sum", amount)])

    writing = [asyncio.create_task(add(number)) for number in range(200)]
    while not all(task.done() for task in writing):
        done = sum(task.done() for task in writing)
        await proxy.cut()
        await until(partial(further, writing, done))
    await asyncio.gather(*writing)
    entry = await near.get("sum")
    assert entry is not None
    assert entry.value == sum(range(200))
    assert entry.version == 200


async def test_a_server_that_cannot_be_reached_is_unavailable_when_the_time_is_up(far: Client, proxy: Proxy) -> None:
    proxy.refuse()
    await proxy.cut()
    with pytest.raises(comity.Unavailable):
        await far.put("k", 1, timeout=0.5)
    with pytest.raises(comity.Unavailable):
        await far.get("k", timeout=0.5)


async def test_a_server_that_does_not_answer_is_deadline_exceeded(far: Client, proxy: Proxy) -> None:
    proxy.stall()
    with pytest.raises(comity.DeadlineExceeded):
        await far.get("k", timeout=0.5)
    proxy.resume()
    assert await far.get("k") is None
