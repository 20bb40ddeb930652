"""A workflow whose steps hand their work to agents, and the process that runs it: until it is killed."""

import asyncio
from typing import Any

import comity
from comity import Client
from comity.agents import Role, StepContext, Workflow, each, when

TTL = 2.0  # seconds that the run is held after its process was killed
RUN = "2026-11"
REQUEST = {"topics": ["weather", "prices", "traffic"], "priority": 5}


async def ask(ctx: StepContext, role: str, context: object) -> Any:
    """Have an agent of that role do it."""
    handoff = await ctx.handoff(Role(role), context)
    return await handoff.result()


async def triage(ctx: StepContext) -> Any:
    return await ask(ctx, "triage", ctx.input)


async def data(ctx: StepContext) -> Any:
    return await ask(ctx, "data", ctx.item)


async def optimise(ctx: StepContext) -> Any:
    return await ask(ctx, "optimisation", ctx.results["data"])


async def report(ctx: StepContext) -> str:
    text: str = await ask(ctx, "reporting", ctx.results["optimise"])
    ctx.put(f"reports/{ctx.run_id}", text)
    ctx.increment("reports-written")
    return text


async def shelve(ctx: StepContext) -> None:
    ctx.put(f"shelved/{ctx.run_id}", ctx.results["optimise"])


workflow = Workflow(
    "report",
    triage,
    each(data, lambda ctx: ctx.results["triage"]["topics"]),
    optimise,
    when(lambda ctx: ctx.results["triage"]["urgent"], report, otherwise=shelve),
)


async def run(state: Client, ttl: float) -> dict[str, Any]:
    """Run the workflow, or go on with it, once whoever did so before is gone."""
    return await workflow.run(state, RUN, REQUEST, ttl=ttl)


def main(address: str, namespace: str) -> None:
    async def connected() -> None:
        async with comity.connect(address, namespace=namespace, author="runner") as state:
            await run(state, TTL)

    asyncio.run(connected())
