"""Agents that are killed at any moment: no work is lost, none is done twice, and the supervisor knows who lives."""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime

import psutil
import pytest

import comity
from comity import Client, Commit, Event, EventCause
from comity.agents import Agent, Directory, Supervisor
from tests.agents.program import Program
from tests.redis_servers import RedisServer
from tests.scenarios import crew
from tests.scenarios.places import DURABLE, KINDS, Place, place
from tests.waiting import until

Record = Callable[[str, object], None]

SOAK = os.environ.get("COMITY_SOAK") == "1"
SEED = int(os.environ.get("COMITY_SEED", "0")) or random.randrange(1 << 32)
ROUNDS = 100 if SOAK else 10
WORKERS, ITEMS = 3, 8
TTL = 1.0  # of the workers
SERVER_KILLS = 10 if SOAK else 0  # of a store that outlives its server


class Watcher:
    """Follows who comes and goes.

    seconds: how long it took, each time that an agent had gone, until the supervisor's view was right again: by the
        clock of this machine, which is that of the store too.
    freelancer: the process of the agent that is nobody's child, while it lives by its lease. If it was stopped past
        that, it goes on with what it was about as soon as it has been taken for dead.
    """

    def __init__(self, lead: Supervisor, world: Client) -> None:
        self.seconds: list[float] = []
        self.freelancer = 0
        self._lead = lead
        self._world = world

    async def follow(self) -> None:
        """Until this is cancelled."""
        async with asyncio.TaskGroup() as group, self._world.watch("agents/") as watch:
            async for commit in watch.commits():
                assert isinstance(commit, Commit)
                for event in commit.events:
                    name = event.key.removeprefix("agents/")
                    if name == crew.FREELANCER:
                        self._freelance(event)
                    elif event.is_delete:
                        group.create_task(self._until_right(name, commit))

    def _freelance(self, event: Event) -> None:
        if event.is_put:
            self.freelancer = event.entry.value["pid"]
        else:
            os.kill(self.freelancer, signal.SIGCONT)
            self.freelancer = 0

    async def _until_right(self, name: str, end: Commit) -> None:
        def right() -> bool:
            shown = next((child.presence for child in self._lead.children() if child.name == name), None)
            return shown is None or shown.revision > end.revision

        await until(right)
        self.seconds.append((datetime.now(UTC) - end.time).total_seconds())


@pytest.mark.soak
@pytest.mark.timeout(3600 if SOAK else 120)
@pytest.mark.parametrize("kind", KINDS)
async def test_agents_that_are_killed_at_any_moment_lose_nothing_and_do_nothing_twice(
    kind: str, redis_server: RedisServer, namespace: str, record_property: Record
) -> None:
    print(f"COMITY_SEED={SEED}")
    chance = random.Random(SEED)
    async with AsyncExitStack() as stack:
        made = stack.enter_context(place(kind, redis_server, "--limit-lease-ttl-least", "0.1"))
        world = await stack.enter_async_context(
            comity.connect(made.address, namespace=namespace, author="scenario", timeout=60)
        )
        lead = Supervisor(world, "lead", ttl=60, max_restarts=10_000, within=1, start_timeout=20)
        await stack.enter_async_context(lead)
        planner = await stack.enter_async_context(Agent(world, "planner", ttl=60))
        watcher = Watcher(lead, world)
        following = asyncio.create_task(watcher.follow())
        freelancer = Program(crew.freelance, made.address, namespace, f"{TTL}")
        stack.callback(freelancer.kill)
        for number in range(WORKERS):
            await lead.spawn(crew.do_items, name=f"worker-{number}", role="worker", mode="process", ttl=TTL)
        server_kills = set(chance.sample(range(ROUNDS), SERVER_KILLS)) if kind in DURABLE else set()
        for number in range(ROUNDS):
            items = [f"{number}-{item}" for item in range(ITEMS)]
            await one_round(made, lead, planner, watcher, items, chance, kill_server=number in server_kills)
        following.cancel()
        await asyncio.wait([following])
        await judge(world, {f"{number}-{item}" for number in range(ROUNDS) for item in range(ITEMS)})
    record_property("ends of agents", len(watcher.seconds))
    record_property("longest seconds until the supervisor saw an end", max(watcher.seconds))
    print(f"{len(watcher.seconds)} ends, each seen within {max(watcher.seconds):.3f} s")


async def one_round(
    made: Place,
    lead: Supervisor,
    planner: Agent,
    watcher: Watcher,
    items: list[str],
    chance: random.Random,
    *,
    kill_server: bool,
) -> None:
    """Give out the items, and kill one of the workers, wherever it is, after so many commits of whomever."""
    world = planner.state
    async with world.watch() as watch:
        await watch.ready()
        for item in items:
            await planner.send(crew.WORKERS, item)
        left, done = chance.randrange(1, 30), set[str]()
        async for commit in watch.commits():
            assert isinstance(commit, Commit)
            left -= 1
            done |= {event.key for event in commit.events if event.key.startswith("done/")}
            if left == 0:
                end_one(lead, chance)
                if chance.random() < 0.4 and watcher.freelancer:
                    os.kill(watcher.freelancer, signal.SIGSTOP)
                if kill_server:
                    await asyncio.to_thread(made.server.kill)
                    await asyncio.to_thread(made.server.restart)
            if left <= 0 and len(done) == len(items):
                break

    async def right() -> bool:
        shown = {child.name: child.presence for child in lead.children() if child.presence is not None}
        there = {one.name: one for one in await Directory(world).list() if one.supervisor == lead.name}
        return shown == there and all(psutil.pid_exists(one.pid) for one in there.values())

    await until(right)


def end_one(lead: Supervisor, chance: random.Random) -> None:
    """Kill a worker, or have it hang for good, so that only its lease tells. It may be one that is about to start."""
    workers = lead.children()
    there = [worker for worker in workers if worker.presence is not None]
    worker = chance.choice(there if there and chance.random() < 0.7 else workers)
    hangs = worker in there and chance.random() < 0.25
    with suppress(ProcessLookupError):
        if worker.pid:
            os.kill(worker.pid, signal.SIGSTOP if hangs else signal.SIGKILL)


async def judge(world: Client, items: set[str]) -> None:
    """By the whole history: every item was done, once, by an agent that lived."""
    done: Counter[str] = Counter()
    living: dict[str, int] = {}
    async for commit in world.history(newest_first=False):
        for event in commit.events:
            area, _, name = event.key.partition("/")
            if area == "agents":
                if event.is_put:
                    living[name] = event.entry.lease_id
                else:
                    del living[name]
                    assert event.cause in (EventCause.CLIENT, EventCause.LEASE_EXPIRY)
            elif area == "done":
                done[name] += 1
                by = event.entry.value
                assert living.get(by["by"]) == by["incarnation"], f"{name} was done by one that was dead: {by}"
    assert done == dict.fromkeys(items, 1)
    assert await world.list("done-twice/").all() == []
    assert await world.list("queues/role:worker/line/").all() == []
    assert await world.list("queues/role:worker/items/").all() == []
    assert await world.list("queues/role:worker/dead/").all() == []
