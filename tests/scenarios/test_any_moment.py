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
from comity import Client, Commit, EventCause
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
TTL = 1.0  # of the workers, and of what the freelancer has
CLAIMS = f"queues/{crew.WORKERS_QUEUE}/line/"
SERVER_KILLS = 10 if SOAK else 0  # of a store that outlives its server


class Views:
    """How long it took, each time that an agent had gone, until the supervisor's view was right again: in seconds, by
    the clock of this machine, which is that of the store too."""

    def __init__(self, lead: Supervisor) -> None:
        self.seconds: list[float] = []
        self._lead = lead

    async def follow(self) -> None:
        """Until this is cancelled."""
        async with asyncio.TaskGroup() as group, self._lead.state.watch("agents/") as watch:
            async for commit in watch.commits():
                assert isinstance(commit, Commit)
                for event in commit.events:
                    if event.is_delete:
                        group.create_task(self._until_right(event.key.removeprefix("agents/"), commit))

    async def _until_right(self, name: str, end: Commit) -> None:
        def right() -> bool:
            shown = next((child.presence for child in self._lead.children() if child.name == name), None)
            return shown is None or shown.revision > end.revision

        await until(right)
        self.seconds.append((datetime.now(UTC) - end.time).total_seconds())


class Freelancer:
    """Stops the process that freelances while it has something, until it has it no longer."""

    def __init__(self, program: Program) -> None:
        self.stops = 0
        self._program = program
        self._claims: set[str] = set()
        self._stopped = False

    async def follow(self, world: Client) -> None:
        """Until this is cancelled."""
        async with world.watch(CLAIMS) as watch:
            async for commit in watch.commits():
                assert isinstance(commit, Commit)
                for event in commit.events:
                    if event.is_put and commit.author == crew.FREELANCER and event.key.endswith("/claim"):
                        self._claims.add(event.key)
                    elif event.key in self._claims:
                        self._claims.remove(event.key)
                        self._program.send_signal(signal.SIGCONT)
                        self._stopped = False

    def stop(self) -> None:
        """If it has something now. It then goes on as if nothing had been, once its claim has run out."""
        if self._claims and not self._stopped:
            self._program.send_signal(signal.SIGSTOP)
            self._stopped = True
            self.stops += 1


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
        program = Program(crew.freelance, made.address, namespace, f"{TTL}")
        freelancer = Freelancer(program)
        stack.callback(program.kill)
        views = Views(lead)
        following = [asyncio.create_task(views.follow()), asyncio.create_task(freelancer.follow(world))]
        for number in range(WORKERS):
            await lead.spawn(crew.do_items, name=f"worker-{number}", role="worker", mode="process", ttl=TTL)
        server_kills = set(chance.sample(range(ROUNDS), SERVER_KILLS)) if kind in DURABLE else set()
        for number in range(ROUNDS):
            items = [f"{number}-{item}" for item in range(ITEMS)]
            await one_round(made, lead, planner, freelancer, items, chance, kill_server=number in server_kills)
        for task in following:
            task.cancel()
        await asyncio.wait(following)
        await judge(world, {f"{number}-{item}" for number in range(ROUNDS) for item in range(ITEMS)})
    record_property("ends of agents", len(views.seconds))
    record_property("longest seconds until the supervisor saw an end", max(views.seconds))
    print(
        f"{len(views.seconds)} ends, each seen within {max(views.seconds):.3f} s; "
        f"{freelancer.stops} stops past the claim's end"
    )


async def one_round(
    made: Place,
    lead: Supervisor,
    planner: Agent,
    freelancer: Freelancer,
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
                if chance.random() < 0.5:
                    freelancer.stop()
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
    """By the whole history: every item was done, once, by one that had it."""
    done: Counter[str] = Counter()
    holds: dict[str, int] = {}  # presences and claims, each with its fence
    async for commit in world.history(newest_first=False):
        for event in commit.events:
            if event.key.startswith("done/"):
                done[event.key.removeprefix("done/")] += 1
                by, fence = event.entry.value["by"], event.entry.value["fence"]
                held = fence in holds.values() if by == crew.FREELANCER else holds.get(f"agents/{by}") == fence
                assert held, f"{event.key} was written by {by}, which had it no longer"
        for event in commit.events:
            if event.key.startswith("agents/") or event.key.endswith("/claim"):
                if event.is_put:
                    holds[event.key] = event.entry.lease_id
                else:
                    del holds[event.key]
                    assert event.cause in (EventCause.CLIENT, EventCause.LEASE_EXPIRY)
    assert done == dict.fromkeys(items, 1)
    assert await world.list("done-twice/").all() == []
    assert [entry.key async for entry in world.list("queues/")] == [f"queues/{crew.WORKERS_QUEUE}/tail"]
