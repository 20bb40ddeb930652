"""Grants that are tried again, and repeated."""

import asyncio

import pytest

import comity
from comity import Client, LeaseLost
from tests.client.leases import LONG
from tests.proxy import Proxy
from tests.servers import Server


async def test_a_grant_that_is_tried_again_is_one_grant(server: Server, namespace: str) -> None:
    async with Proxy(server.address) as proxy, comity.connect(proxy.address, namespace=namespace) as state:
        await state.put("a", 1)
        proxy.stall()
        granting = asyncio.create_task(state.grant_lease(60))
        await proxy.held_back()
        await proxy.cut()
        proxy.resume()
        lease = await granting
        assert [found.id async for found in state.list_leases()] == [lease.id]
        await lease.close()
        found = await state.get_lease(lease)
        assert lease.remaining <= found.remaining


async def test_a_grant_with_a_name_of_its_own(state: Client) -> None:
    name = comity.RequestId("job", 1)
    lease = await state.grant_lease(LONG, request_id=name)
    await lease.close()
    again = await state.grant_lease(LONG, request_id=name)
    assert again.id == lease.id
    assert [found.id async for found in state.list_leases()] == [lease.id]
    await again.revoke()


async def test_a_grant_that_is_repeated_renews_the_lease(state: Client) -> None:
    """The first answer says nothing about how the lease is now."""
    name = comity.RequestId("job", 1)
    lease = await state.grant_lease(LONG, request_id=name)
    await lease.close()
    first = await state.get_lease(lease)
    again = await state.grant_lease(LONG, request_id=name)
    found = await state.get_lease(lease)
    assert found.expire_time > first.expire_time
    assert again.remaining <= found.remaining


async def test_a_grant_that_is_repeated_after_the_end(state: Client) -> None:
    name = comity.RequestId("job", 1)
    lease = await state.grant_lease(LONG, request_id=name)
    await lease.revoke()
    with pytest.raises(LeaseLost, match=f"lease {lease.id}, of 30 s, has ended") as lost:
        await state.grant_lease(LONG, request_id=name)
    assert lost.value.lease_id == lease.id
    with pytest.raises(comity.InvalidArgument):
        await state.grant_lease(2 * LONG, request_id=name)
