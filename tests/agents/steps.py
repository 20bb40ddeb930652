"""Steps that tell what was done of them."""

import asyncio
from typing import Any

import comity
from comity import Client
from comity.agents import (
    StepContext,
    step,
)


class Calls:
    """Steps that note that they ran, and fail as often as they are told to."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.failing: dict[str, int] = {}

    def step(self, name: str, result: object = None, **options: Any) -> Any:
        async def run(ctx: StepContext) -> object:
            self.names.append(name if ctx.index is None else f"{name}[{ctx.index}]")
            if self.failing.get(self.names[-1], 0) > 0:
                self.failing[self.names[-1]] -= 1
                raise ValueError(f"{name} is out of sorts")
            return result(ctx) if callable(result) else result

        return step(name=name, backoff=0.001, **options)(run)


async def value(state: Client, key: str) -> Any:
    entry = await state.get(key)
    return None if entry is None else entry.value


class Gate:
    """A step that waits until it may end."""

    def __init__(self, name: str = "gate") -> None:
        self.begun = asyncio.Event()
        self.open = asyncio.Event()
        self.attempts: list[int] = []
        self.guards: list[comity.LeaseGuard] = []

        async def run(ctx: StepContext) -> str:
            self.attempts.append(ctx.attempt)
            self.guards.append(ctx.guard)
            self.begun.set()
            await self.open.wait()
            return name

        self.step = step(name=name)(run)
