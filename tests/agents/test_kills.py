"""Agents are killed, or stopped past their lease, at any moment: no work is lost, and none is done twice."""

import asyncio
import os
import random
import signal
from collections import Counter

import pytest

import comity
from comity.agents import Agent, ChildState, Role, Supervisor
from tests.agents import members
from tests.agents.conftest import SHORT, TTL

ROUNDS = 100 if os.environ.get("COMITY_SOAK") else 10
SEED = int(os.environ.get("COMITY_SEED", "0")) or random.randrange(2**32)


async def kill(supervisor: Supervisor, dice: random.Random, number: int) -> None:
    """Kill one of the children, whatever it does, and wait until another one is there in its place."""
    child = supervisor.child(dice.choice([one.name for one in supervisor.children()]))
    presence = await child.ready()
    await asyncio.sleep(dice.uniform(0, 0.05))
    try:
        os.kill(presence.pid, number)
    except ProcessLookupError:
        return
    async with asyncio.timeout(60):
        async for status in supervisor.watch():
            if status.name == child.name and status.presence and status.presence.incarnation > presence.incarnation:
                return


async def results_written(state: comity.Client, prefix: str) -> Counter[str]:
    return Counter([event.key async for commit in state.history(prefix) for event in commit.events if event.is_put])


@pytest.mark.soak
@pytest.mark.timeout(ROUNDS * 12 + 60)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_every_handoff_is_done_once(state: comity.Client, number: signal.Signals) -> None:
    print("seed", SEED)
    dice = random.Random(SEED)
    rounds = ROUNDS if number is signal.SIGKILL else ROUNDS // 3
    async with Supervisor(state, "boss", ttl=TTL, max_restarts=10_000, grace=1) as supervisor:
        for _ in range(3):
            child = await supervisor.spawn(members.work_and_count, mode="process", role="worker", ttl=SHORT)
            await child.ready()
        async with Agent(state, "planner", ttl=TTL) as planner:
            handoffs = []
            for round in range(rounds):
                handoffs += [await planner.handoff(Role("worker"), round * 10 + n) for n in range(10)]
                await kill(supervisor, dice, number)
            done = [await handoff.result(timeout=120) for handoff in handoffs]
        assert done == list(range(rounds * 10))
        assert all(one.state is ChildState.RUNNING for one in supervisor.children())
        written = await results_written(state, "done/")
        assert written == {f"done/{n}": 1 for n in range(rounds * 10)}


@pytest.mark.soak
@pytest.mark.timeout(ROUNDS * 12 + 60)
async def test_every_input_of_a_map_is_done_once(state: comity.Client) -> None:
    print("seed", SEED)
    dice = random.Random(SEED)
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        mapping = asyncio.create_task(
            supervisor.gather(
                members.think_and_square,
                range(ROUNDS * 20),
                id="m",
                concurrency=3,
                mode="process",
                retries=10_000,
                ttl=SHORT,
            )
        )
        kills = 0
        while not mapping.done() and kills < ROUNDS:
            if len(supervisor.children()) < 3:
                await asyncio.sleep(0.01)
                continue
            killing = asyncio.create_task(kill(supervisor, dice, signal.SIGKILL))
            await asyncio.wait([mapping, killing], return_when=asyncio.FIRST_COMPLETED)
            if not killing.done():
                killing.cancel()
            kills += 1
        assert await mapping == [number * number for number in range(ROUNDS * 20)]
        written = await results_written(state, "maps/m/results/")
        assert set(written.values()) == {1}
        assert len(written) == ROUNDS * 20
