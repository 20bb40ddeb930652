"""Many agents, one number: nothing is lost, nothing counts twice, and what fails leaves no trace."""

import asyncio
from collections.abc import AsyncIterator, Awaitable

import pytest

import comity
from comity import Client, Increment, Transaction
from tests.servers import Server


@pytest.fixture
async def state(server: Server, namespace: str) -> AsyncIterator[Client]:
    async with comity.connect(server.address, namespace=namespace, timeout=60) as client:
        yield client


async def increment(tx: Transaction) -> int:
    entry = await tx.get("counter")
    value = (entry.value if entry else 0) + 1
    tx.put("counter", value)
    return int(value)


async def value_of(state: Client, key: str) -> object:
    entry = await state.get(key)
    return entry and entry.value


async def test_64_concurrent_increments_are_exactly_64(state: Client) -> None:
    returned = await asyncio.gather(*(state.transact(increment) for _ in range(64)))
    assert await value_of(state, "counter") == 64
    assert sorted(returned) == list(range(1, 65))
    assert (await state.namespace_info()).revision == 64


async def test_increments_from_several_clients_and_by_several_ways(state: Client, server: Server) -> None:
    """Through the function form, the operation, a cell and a condition, all at the same key."""

    async def by_condition(client: Client) -> None:
        while True:
            entry = await client.get("counter")
            try:
                await client.put("counter", (entry.value if entry else 0) + 1, if_version=entry.version if entry else 0)
            except comity.Conflict:
                continue
            return

    clients = [comity.connect(server.address, namespace=state.namespace, timeout=60) for _ in range(4)]
    try:
        tasks: list[Awaitable[object]] = []
        for client in clients:
            cell = client.cell("counter", int, default=0)
            for _ in range(4):
                tasks.append(client.transact(increment))
                tasks.append(cell.update(lambda number: number + 1))
                tasks.append(by_condition(client))
                tasks.append(client.transact(then=[Increment("counter", 1)]))
        await asyncio.gather(*tasks)
    finally:
        for client in clients:
            await client.close()
    assert await value_of(state, "counter") == 64


async def test_an_exception_in_the_function_leaves_no_trace(state: Client) -> None:
    await state.put("budget", 5)

    class OutOfBudget(Exception):
        pass

    async def overspend(tx: Transaction) -> None:
        entry = await tx.get("budget")
        assert entry is not None
        tx.put("budget", entry.value - 10)
        tx.put("receipt", 10)
        tx.delete(prefix="")
        raise OutOfBudget

    with pytest.raises(OutOfBudget):
        await state.transact(overspend)
    assert await value_of(state, "budget") == 5
    assert await state.get("receipt") is None
    assert (await state.namespace_info()).revision == 1


async def test_two_agents_that_read_each_others_keys_are_serialized(state: Client) -> None:
    """Write skew: each may go off call only while the other is on call."""
    for _ in range(10):
        await state.put("on-call/ann", True)
        await state.put("on-call/bob", True)

        async def leave(tx: Transaction, me: str, other: str) -> bool:
            entry = await tx.get(f"on-call/{other}")
            if entry is None or not entry.value:
                return False
            tx.put(f"on-call/{me}", False)
            return True

        async def go(me: str, other: str) -> bool:
            return bool(await state.transact(lambda tx: leave(tx, me, other)))

        assert sorted(await asyncio.gather(go("ann", "bob"), go("bob", "ann"))) == [False, True]


async def test_a_list_that_grows_meanwhile_is_seen(state: Client) -> None:
    """Phantoms: each adds a member only while there are fewer than five."""

    async def join(tx: Transaction, name: str) -> bool:
        if len(await tx.list("members/")) >= 5:
            return False
        tx.put(f"members/{name}", True)
        return True

    async def go(name: str) -> bool:
        return bool(await state.transact(lambda tx: join(tx, name)))

    joined = await asyncio.gather(*(go(f"agent-{number}") for number in range(20)))
    assert joined.count(True) == 5
    assert len(await state.list("members/").all()) == 5
