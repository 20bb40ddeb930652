"""Many agents at the same keys: every operation counts once, and nobody ever sees half of a transaction."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import comity
from comity import Client, Entry, Event, Put, Transaction
from tests.scenarios.places import Place

AGENTS, OPERATIONS = 15, 20


async def add(tx: Transaction, key: str, agent: str) -> None:
    """A count, and who counted: the two belong together."""
    entry = await tx.get(key)
    before: dict[str, Any] = entry.value if entry else {"count": 0, "by": {}}
    by = before["by"] | {agent: before["by"].get(agent, 0) + 1}
    tx.put(key, {"count": before["count"] + 1, "by": by})


async def test_15_agents_with_20_operations_each_half_of_them_on_the_same_keys(shared: Place, world: Client) -> None:
    async def work(agent: str) -> None:
        async with comity.connect(shared.address, namespace=world.namespace, author=agent, timeout=60) as state:
            for number in range(OPERATIONS):
                key = f"shared/{number % 2}" if number % 2 == 0 else f"own/{agent}"
                await state.transact(partial(add, key=key, agent=agent))

    await asyncio.gather(*(work(f"agent-{number}") for number in range(AGENTS)))
    entries = {entry.key: entry.value for entry in await world.list("").all()}
    assert sum(value["count"] for value in entries.values()) == AGENTS * OPERATIONS == 300
    done: Counter[str] = Counter()
    for value in entries.values():
        assert sum(value["by"].values()) == value["count"]
        done.update(value["by"])
    assert done == {f"agent-{number}": OPERATIONS for number in range(AGENTS)}
    assert (await world.namespace_info()).revision == 300
    authors = Counter([commit.author async for commit in world.history()])
    assert authors == done


async def test_20_workflows_of_5_agents_with_10_operations_at_once(shared: Place, world: Client) -> None:
    async def work(workflow: str, agent: int) -> None:
        for number in range(10):
            await world.put(f"{workflow}/{agent}/{number}", number)
            await world.transact(partial(add, key=f"{workflow}/total", agent=f"{agent}"))

    tasks = [work(f"flow-{number:02}", agent) for number in range(20) for agent in range(5)]
    await asyncio.gather(*tasks)
    for number in range(20):
        total = await world.get(f"flow-{number:02}/total")
        assert total is not None
        assert total.value == {"count": 50, "by": {f"{agent}": 10 for agent in range(5)}}
    assert len(await world.list("").all()) == 20 * (5 * 10 + 1)


async def test_money_that_moves_between_agents_is_never_seen_on_its_way(world: Client) -> None:
    """Writers move it from account to account; readers and a watcher add up all accounts at every moment."""
    accounts = [f"accounts/{number}" for number in range(6)]
    await world.transact(then=[Put(account, 100) for account in accounts])
    seen: dict[str, int] = {}
    sums: set[int] = set()

    async def move(number: int) -> None:
        source, target = accounts[number % 6], accounts[(number * 5 + 1) % 6]

        async def step(tx: Transaction) -> None:
            one, other = await tx.get(source), await tx.get(target)
            assert one is not None
            assert other is not None
            if source != target:
                tx.put(source, one.value - 1)
                tx.put(target, other.value + 1)

        for _ in range(15):
            await world.transact(step)

    async def audit() -> None:
        while not moving.done():
            entries: Sequence[Entry] = await world.list("accounts/").all()
            sums.add(sum(entry.value for entry in entries))

    async with world.watch("accounts/", from_revision=1) as watch:
        moving = asyncio.gather(*(move(number) for number in range(8)))
        auditing = asyncio.create_task(audit())
        await moving
        await auditing
        last = (await world.namespace_info()).revision
        at = 0
        async for event in watch:
            assert isinstance(event, Event)
            if event.revision != at:
                if at:
                    assert sum(seen.values()) == 600, f"half of revision {at} was seen"
                at = event.revision
            seen[event.key] = event.entry.value
            if event.revision == last and len(seen) == 6 and sum(seen.values()) == 600:
                break
    assert sums == {600}
