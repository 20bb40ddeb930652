"""Leases of several event loops, and of programs that end."""

import asyncio
import gc
import warnings

import pytest

import comity
from comity import Lease, LeaseLost
from tests.client.leases import KEPT, LONG, gone, value_of
from tests.client.test_contexts import run_script
from tests.servers import Server
from tests.waiting import until


def test_a_lease_of_an_event_loop_that_has_ended(server: Server, namespace: str) -> None:
    client = comity.connect(server.address, namespace=namespace)
    told: list[Lease] = []

    async def grant() -> Lease:
        lease = await client.grant_lease(KEPT)
        lease.on_lost(told.append)
        await client.put("a", 1, lease=lease)
        return lease

    async def use(lease: Lease) -> None:
        assert await value_of(client, "a") == 1
        await lease.lost()
        assert not lease.alive
        with pytest.raises(LeaseLost, match="no renewal was answered"):
            await client.put("b", 1, guard=lease)
        lease.on_lost(told.append)
        assert told == [lease, lease]
        await lease.close()
        await lease.revoke()

    async def end(lease: Lease) -> None:
        await lease.revoke()
        await client.close()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lease = asyncio.run(grant())
        other = asyncio.run(grant())
        asyncio.run(use(lease))
        asyncio.run(end(other))
        gc.collect()


def test_a_lease_in_another_event_loop(server: Server, namespace: str) -> None:
    """It is revoked there, and kept alive no longer by its own."""

    async def revoke(lease: Lease) -> None:
        lease.check()
        await client.put("a", 1, guard=lease)
        await lease.revoke()

    async def main() -> None:
        async with client:
            lease = await client.grant_lease(LONG)
            await asyncio.to_thread(lambda: asyncio.run(revoke(lease)))
            assert not lease.alive
            await until(lambda: gone(client, lease))
            other = await client.grant_lease(3600)
            waiting = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(other.lost())))
            await client.revoke_lease(other)
            await waiting

    client = comity.connect(server.address, namespace=namespace)
    asyncio.run(main(), debug=True)


def test_programs_end_without_a_word(server: Server, namespace: str) -> None:
    """With leases that are renewed, whatever becomes of the client and its event loop."""
    script = """
        import asyncio, sys
        import comity

        def connect():
            return comity.connect(sys.argv[1], namespace=sys.argv[2])

        async def hold(client):
            lease = await client.grant_lease(30.0)
            first = (await client.get_lease(lease)).expire_time
            while (await client.get_lease(lease)).expire_time == first:
                await asyncio.sleep(0.01)
            return lease

        async def left_open():
            await hold(connect())

        async def closed():
            async with connect() as client:
                await hold(client)

        async def interrupted():
            async with connect() as client, client.lease(30.0):
                await hold(client)
                asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
                await asyncio.sleep(60)

        for main in (left_open, closed, interrupted):
            try:
                asyncio.run(main())
            except asyncio.CancelledError:
                print("cancelled")
        loop = asyncio.new_event_loop()
        client = connect()
        loop.run_until_complete(hold(client))
        loop.run_until_complete(client.close())
        loop.close()
    """
    assert run_script(script, server.address, namespace) == "cancelled\n"
