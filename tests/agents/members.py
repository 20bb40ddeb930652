"""What agents of tests do that are processes of their own."""

import asyncio
from typing import Any

from comity.agents import Agent, HandoffMessage


async def stay(agent: Agent) -> None:
    """Be there until the end."""
    await agent.report("staying")
    await asyncio.Event().wait()


async def take_and_hang(agent: Agent) -> None:
    """Take what comes first, and never do it."""
    async with agent.receive() as message:
        await agent.memory.put("taken", message.body)
        await agent.report("hanging")
        await asyncio.Event().wait()


async def work(agent: Agent) -> None:
    """Do whatever is handed over."""
    async for message in agent.inbox():
        if isinstance(message, HandoffMessage):
            await message.done({"by": agent.name, "of": message.context})


async def hand_off(agent: Agent, to: str, context: Any) -> None:
    """Hand off under an id of its own, and hang."""
    await agent.handoff(to, context, id="once")
    await agent.report("handed-off")
    await asyncio.Event().wait()
