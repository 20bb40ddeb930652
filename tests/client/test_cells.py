"""Cells: one key, one value, one type."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest

import comity
from comity import Client
from tests.servers import Server


@dataclass(frozen=True)
class Budget:
    left: int
    spent_by: list[str] = field(default_factory=list)

    def spend(self, amount: int, who: str) -> "Budget":
        return replace(self, left=self.left - amount, spent_by=[*self.spent_by, who])


@pytest.fixture
async def state(server: Server, namespace: str) -> AsyncIterator[Client]:
    async with comity.connect(server.address, namespace=namespace) as client:
        yield client


async def test_a_value_of_a_type(state: Client) -> None:
    cell = state.cell("budget", Budget)
    with pytest.raises(comity.NotFound, match="'budget'"):
        await cell.get()
    with pytest.raises(comity.NotFound):
        await cell.update(lambda budget: budget)
    assert (await cell.create(Budget(10))).version == 1
    with pytest.raises(comity.Conflict):
        await cell.create(Budget(20))
    assert await cell.get() == Budget(10)
    assert await cell.update(lambda budget: budget.spend(3, "a")) == Budget(7, ["a"])
    assert (await cell.set(Budget(1))).version == 3
    assert await cell.get() == Budget(1)
    assert (await cell.delete()).deleted == 1


async def test_updates_at_the_same_time_are_all_kept(state: Client) -> None:
    cell = state.cell("budget", Budget, default=Budget(100))

    async def spend(who: str) -> None:
        async def slowly(budget: Budget) -> Budget:
            await asyncio.sleep(0)
            return budget.spend(1, who)

        await cell.update(slowly)

    await asyncio.gather(*(spend(f"agent-{number}") for number in range(10)))
    budget = await cell.get()
    assert budget.left == 90
    assert len(set(budget.spent_by)) == 10


async def test_a_default_stays_as_it_is(state: Client) -> None:
    cell = state.cell("list", list[int], default=[])
    (await cell.get()).append(1)
    assert await cell.get() == []


async def test_a_value_that_does_not_fit(state: Client) -> None:
    await state.put("budget", {"left": "much"})
    with pytest.raises(comity.DecodeError, match="'budget'"):
        await state.cell("budget", Budget).get()
    count = state.cell("count", int, default=0)
    with pytest.raises(TypeError, match="does not fit"):
        await count.set("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="does not fit"):
        await count.update(lambda value: None)  # type: ignore[arg-type, return-value]
    assert await count.get() == 0


async def test_watching_begins_with_the_value(state: Client) -> None:
    cell = state.cell("n", int, default=-1)
    values = cell.watch()
    assert await anext(values) == -1
    await cell.set(1)
    assert await anext(values) == 1
    await cell.delete()
    assert await anext(values) == -1
    await cell.set(2)
    assert await anext(values) == 2
    await values.aclose()

    without_default = state.cell("n", int).watch()
    assert await anext(without_default) == 2
    await cell.delete()
    await cell.set(3)
    assert await anext(without_default) == 3
    await without_default.aclose()
