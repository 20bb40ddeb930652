"""Two holders never write under one lock, also if one of them was stopped and knows nothing of the other."""

import asyncio
import os
import signal
from contextlib import ExitStack

import pytest

from comity import Client, Event, Watch
from tests.agents.program import Program
from tests.scenarios import ledger
from tests.scenarios.places import Place
from tests.waiting import until

SOAK = os.environ.get("COMITY_SOAK") == "1"
STOPS = 30 if SOAK else 3
TTL = 0.3


async def next_holder(watch: Watch, after: int) -> tuple[int, int]:
    """The fence and the process of the first one that writes with a greater fence."""
    async for event in watch:
        assert isinstance(event, Event)
        line = event.entry.value
        if line["fence"] > after:
            return line["fence"], line["pid"]
    raise AssertionError("the watch has ended")


@pytest.mark.soak
@pytest.mark.timeout(600 if SOAK else 120)
async def test_a_holder_that_is_stopped_past_its_lease_never_writes_again(shared: Place, world: Client) -> None:
    with ExitStack() as stack:
        for author in ("ann", "bob"):
            program = Program(ledger.main, shared.address, world.namespace, author, str(TTL))
            stack.callback(program.kill)
        async with asyncio.timeout(None if SOAK else 100), world.watch(key=ledger.NAME) as watch:
            await watch.ready()
            fence, pid = await next_holder(watch, 0)
            for _ in range(STOPS):
                stopped, stopped_pid = fence, pid
                os.kill(stopped_pid, signal.SIGSTOP)
                fence, pid = await next_holder(watch, stopped)
                os.kill(stopped_pid, signal.SIGCONT)

                async def refused(stopped: int = stopped) -> bool:
                    return await world.get(f"refused/{stopped}") is not None

                await until(refused)
    await judge(world)


async def judge(world: Client) -> None:
    """By the whole history: whoever wrote was first in the line, and lived; and no fence came back."""
    line: dict[str, int] = {}  # the contenders, by the fence that each joined with
    fences: list[int] = []
    async for commit in world.history(newest_first=False):
        for event in commit.events:
            if event.key == ledger.NAME:
                fences.append(event.entry.value["fence"])
                assert fences[-1] == min(line.values()), f"revision {commit.revision} was written by {commit.author}"
            elif event.key.startswith("locks/") and event.is_put:
                line[event.key] = event.entry.lease_id
            elif event.key.startswith("locks/"):
                del line[event.key]
    assert fences == sorted(fences)
    assert len(set(fences)) > STOPS
