"""A client of the shared server in the test's own namespace, and agents that are processes."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import comity
from comity.access import Access
from comity.agents.process import Start, Work
from comity.agents.running import ProcessRun
from tests.agents.steps import Calls
from tests.servers import Server

TTL = 60.0  # of what is to live through a test, whatever the machine does meanwhile
SHORT = 2.0  # of what is to die

Launch = Callable[..., Awaitable[ProcessRun]]


@pytest.fixture
async def state(server: Server, namespace: str) -> AsyncIterator[comity.Client]:
    async with comity.connect(server.address, namespace=namespace, author="ann") as client:
        yield client


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
async def launch(server: Server, namespace: str) -> AsyncIterator[Launch]:
    """Starts an agent as a process: `await launch("writer-1", members.write, "argument", role="writer")`."""
    started: list[ProcessRun] = []

    async def begin(name: str, function: Work, *args: Any, role: str = "", ttl: float = SHORT) -> ProcessRun:
        start = Start(name, role, ttl, "", "", 0.0, False, function, args, Access(server.address), namespace)
        run = ProcessRun(start)
        await run.start()
        started.append(run)
        return run

    yield begin
    for run in started:
        run.kill()
        await run.ended()
