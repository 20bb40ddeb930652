"""A holder that is cut off knows that it holds no longer before another one can hold."""

import asyncio
from collections.abc import AsyncIterator

import pytest

import comity
from comity import Client, LeaseLost
from comity.recipes import Lock, Queue
from tests.proxy import Proxy
from tests.servers import Server
from tests.waiting import until


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    async with Proxy(server.address) as running:
        yield running


@pytest.fixture
async def far(proxy: Proxy, namespace: str) -> AsyncIterator[Client]:
    """A client that can be cut off."""
    async with comity.connect(proxy.address, namespace=namespace, timeout=5) as client:
        yield client


async def cut_off(proxy: Proxy, how: str) -> None:
    if how == "refused":
        proxy.refuse()
        await proxy.cut()
    else:
        proxy.stall()


@pytest.mark.parametrize("how", ["refused", "silent"])
async def test_a_lock_has_one_holder(state: Client, far: Client, proxy: Proxy, how: str) -> None:
    holder, other = Lock(far, "a", ttl=2), Lock(state, "a", ttl=2)
    entered = asyncio.Event()

    async def hold() -> None:
        async with holder:
            entered.set()
            await asyncio.Event().wait()

    holding = asyncio.create_task(hold())
    await entered.wait()
    fence = holder.fence
    waiting = asyncio.create_task(other.acquire())
    await cut_off(proxy, how)
    assert await waiting > fence
    assert not holder.held
    with pytest.raises(LeaseLost):
        await holding
    assert other.held
    await other.release()
    proxy.refuse(False)
    proxy.resume()


async def test_whoever_waits_while_cut_off_comes_again(state: Client, far: Client, proxy: Proxy) -> None:
    async with Lock(state, "a", ttl=2):
        other = Lock(far, "a", ttl=2)
        waiting = asyncio.create_task(other.acquire())

        async def are_in_line(count: int) -> bool:
            return len(await state.list("locks/").all()) == count

        await until(lambda: are_in_line(2))
        (_, before) = sorted(await state.list("locks/").all(), key=lambda entry: entry.create_revision)
        await cut_off(proxy, "refused")
        await until(lambda: are_in_line(1))
        proxy.refuse(False)
        await until(lambda: are_in_line(2))
        assert not waiting.done()
    assert await waiting > before.lease_id
    await other.release()


async def test_an_item_is_done_once(state: Client, far: Client, proxy: Proxy) -> None:
    await Queue(state, "a").put("x")
    entered = asyncio.Event()

    async def consume() -> None:
        async with Queue(far, "a", ttl=2).claim() as item:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                assert not item.lease.alive

    consuming = asyncio.create_task(consume())
    await entered.wait()
    await cut_off(proxy, "refused")
    async with Queue(state, "a").claim() as item:
        assert item.tries == 2
        proxy.refuse(False)
        with pytest.raises(LeaseLost):
            await consuming
    assert sum(await Queue(state, "a").size()) == 0
