"""Consumers are killed at any moment: no item is lost, and none is done twice."""

import asyncio
import os
import random
from collections.abc import Callable

import pytest

from comity import Client
from comity.recipes import Queue, QueueSize
from tests.recipes.processes import Agent
from tests.waiting import until

SOAK = os.environ.get("COMITY_SOAK") == "1"
KILLS = 100 if SOAK else 10
CONSUMERS = 3


@pytest.mark.soak
@pytest.mark.timeout(1200 if SOAK else 120)
async def test_no_item_is_lost_and_none_done_twice(state: Client, agent: Callable[..., Agent]) -> None:
    queue = Queue(state, "a", ttl=1, tries=1_000)
    dice = random.Random(KILLS)
    agents = [agent("work", "a", "1") for _ in range(CONSUMERS)]
    ended = False
    put = 0

    async def produce() -> None:
        nonlocal put
        while not ended:
            async with asyncio.TaskGroup() as group:
                for _ in range(10):
                    group.create_task(queue.put(put, dice.randint(-1, 1)))
                    put += 1
            await until(is_short)

    async def is_short() -> bool:
        return sum(await queue.size()) < 10

    producing = asyncio.create_task(produce())
    for _ in range(KILLS):
        place = dice.randrange(CONSUMERS)
        for _ in range(dice.randint(1, 10)):
            await agents[place].says()  # it has claimed an item, or done one
        agents[place].kill()
        agents[place] = agent("work", "a", "1")
    ended = True
    await producing

    async def is_empty() -> bool:
        return await queue.size() == QueueSize(0, 0, 0)

    await until(is_empty)
    done = await state.list("done/").all()
    assert len(done) == put
    assert {entry.version for entry in done} == {1}
