"""What tests of supervisors wait for."""

import asyncio
from collections.abc import Callable

import comity
from comity.agents import (
    ChildStatus,
    Directory,
    Supervisor,
)
from comity.agents.children import Mode
from tests.agents import members
from tests.agents.conftest import TTL

MODES: list[Mode] = ["task", "process"]


async def until_status(supervisor: Supervisor, holds: Callable[[ChildStatus], bool]) -> ChildStatus:
    async with asyncio.timeout(60):
        async for status in supervisor.watch():
            if holds(status):
                return status
    raise AssertionError("the supervisor has ended")


async def cancelled(state: comity.Client) -> None:
    async with Supervisor(state, "boss", ttl=TTL) as supervisor:
        await supervisor.spawn(members.stay)
        await supervisor.wait()


async def present(state: comity.Client, name: str) -> bool:
    return await Directory(state).get(name) is not None


async def gone(state: comity.Client) -> bool:
    return await Directory(state).list() == []
