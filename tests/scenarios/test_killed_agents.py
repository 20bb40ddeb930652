"""Agents that are killed in the middle of their work: their state and what they held are kept, and others go on."""

import asyncio
import os
import signal
from collections.abc import Callable
from datetime import datetime

import pytest

from comity import Client, Commit, Event, EventCause
from comity.agents import Agent, ChildState, Restart, Supervisor
from tests.scenarios import crew
from tests.waiting import until

Record = Callable[[str, object], None]

COUNT, HALF = 10, 5
ACCOUNTS, MONEY, TRADERS, ENOUGH = 5, 100, 2, 10


@pytest.mark.core
@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_an_agent_that_died_half_way_is_replaced_and_its_work_goes_on(
    world: Client, how: str, record_property: Record
) -> None:
    """Killed, it is seen to die by its supervisor at once. Stopped, as if its machine hung: by its lease."""
    async with Supervisor(world, "lead", ttl=20) as lead, Agent(world, "planner", ttl=20) as planner:
        child = await lead.spawn(
            crew.count,
            COUNT,
            HALF,
            name="counter",
            mode="process",
            ttl=20 if how == "killed" else 2.0,
            restart_from_checkpoint=how == "killed",
        )
        await planner.send("counter", "count")
        first = await child.ready()
        await until(lambda: child.presence is not None and child.presence.status == "half-way")
        os.kill(first.pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        await until(lambda: child.restarts == 1)
        second = await child.ready()
        assert second.incarnation > first.incarnation
        assert second.pid != first.pid
        assert await value_of(world, "agent-state/counter/count") == HALF
        await world.put(crew.GATE, "open")

        async def counted() -> bool:
            return await world.get("counted") is not None

        await until(counted)
        assert lead.child("counter").status.state is ChildState.RUNNING
    assert await value_of(world, "counted") == 1
    # Every number was counted once, over both lives: the second one found what the first one had done. Where it began
    # from the last checkpoint, what was written after that was taken back.
    assert await written(world, "agent-state/counter/count") == list(range(1, COUNT + 1))
    taken_back = [None] if how == "killed" else []
    assert await written(world, "agent-state/counter/scratch") == [first.incarnation, *taken_back, second.incarnation]

    died, joined = await died_and_joined(world, "agents/counter", second.incarnation)
    assert died.revision < joined.revision
    causes = {event.cause for event in died.events}
    assert causes == {EventCause.CLIENT if how == "killed" else EventCause.LEASE_EXPIRY}
    gone = {event.key.split("/")[0] for event in died.events}
    assert gone == {"agents", "queues"}  # what it held is free in the very commit that says that it is gone
    record_property("seconds from the lease's end to the replacement", seconds(died.time, joined.time))


async def died_and_joined(world: Client, key: str, incarnation: int) -> tuple[Commit, Commit]:
    """The commit with which the former agent went, and that with which the next one came."""
    last: Commit | None = None
    async for commit in world.history(key, newest_first=False):
        if any(event.is_put and event.entry.lease_id == incarnation for event in commit.events):
            assert last is not None
            return await whole(world, last.revision), commit
        if any(event.is_delete for event in commit.events):
            last = commit
    raise AssertionError(f"{incarnation} never came")


async def whole(world: Client, revision: int) -> Commit:
    (commit,) = [commit async for commit in world.history() if commit.revision == revision]
    return commit


async def written(world: Client, key: str) -> list[object]:
    """All that was written there, in order; None: it was deleted."""
    history = [commit async for commit in world.history(key, newest_first=False)]
    return [event.entry.value if event.is_put else None for commit in history for event in commit.events]


async def value_of(world: Client, key: str) -> object:
    entry = await world.get(key)
    return entry and entry.value


def seconds(earlier: datetime, later: datetime) -> float:
    return (later - earlier).total_seconds()


@pytest.mark.core
async def test_agents_that_are_killed_leave_nothing_half_done_and_lose_no_update(world: Client) -> None:
    """Each trader is killed once. Whoever looks sees all the money, at every commit, and every move counts once."""
    for number in range(ACCOUNTS):
        await world.put(f"accounts/{number}", MONEY)
    sums: set[int] = set()

    async def audit() -> None:
        async for _ in world.watch(key="moves", from_revision=1):
            sums.add(sum([entry.value async for entry in world.list("accounts/")]))

    async def kill(name: str) -> None:
        """As soon as it has made some moves; and see its replacement make as many."""
        prefix, lives = f"agent-state/{name}/", list[str]()
        async with world.watch(prefix, from_revision=1) as watch:
            async for event in watch:
                assert isinstance(event, Event)
                if event.entry.value != ENOUGH:
                    continue
                lives.append(event.key)
                if len(lives) == 2:
                    return
                os.kill(lead.child(name).status.pid, signal.SIGKILL)

    names = [f"trader-{number}" for number in range(TRADERS)]
    async with Supervisor(world, "lead", ttl=20, max_restarts=100) as lead:
        auditing = asyncio.create_task(audit())
        for number, name in enumerate(names):
            await lead.spawn(crew.trade, ACCOUNTS, number, name=name, mode="process", restart=Restart.TRANSIENT)
        async with asyncio.timeout(60):
            await asyncio.gather(*(kill(name) for name in names))
            await world.put(crew.GATE, "open")
            ends = await lead.wait()
        auditing.cancel()
        await asyncio.wait([auditing])
    assert [(end.state, end.restarts) for end in ends] == [(ChildState.RETURNED, 1)] * TRADERS
    assert sums == {ACCOUNTS * MONEY}

    tallies = [entry.value async for entry in world.list("agent-state/")]
    assert len(tallies) == 2 * TRADERS
    seen: dict[str, int] = {}
    moved = 0
    async for commit in world.history(newest_first=False):
        changes = {event.key: event.entry.value for event in commit.events if event.key.startswith("accounts/")}
        seen |= changes
        if len(changes) == 2:
            moved += 1
            assert sum(seen.values()) == ACCOUNTS * MONEY, f"half of revision {commit.revision} is there"
            assert any(event.key == "moves" and event.entry.value == moved for event in commit.events)
    assert await value_of(world, "moves") == moved == sum(tallies)
