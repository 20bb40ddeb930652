"""A workflow whose steps hand their work to agents, and the process that runs it: until it is killed."""

import asyncio
from typing import Any

import comity
from comity import Client
from comity.agents import Agent, Role, StepContext, Workflow, each, step, when

TTL = 0.5  # seconds that the run is held after its process was killed
RUN = "2026-11"
REQUEST = {"topics": ["weather", "prices", "traffic"], "priority": 5}


def plan(coordinator: Agent) -> Workflow:
    """Each step is done by an agent of that role. What was handed off is not handed off again by a later attempt."""

    async def ask(ctx: StepContext, role: str, context: object) -> Any:
        place = role if ctx.index is None else f"{role}.{ctx.index}"
        handoff = await coordinator.handoff(Role(role), context, id=f"{ctx.run_id}.{place}")
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

    return Workflow(
        "report",
        triage,
        each(step(data), lambda ctx: ctx.results["triage"]["topics"]),
        optimise,
        when(lambda ctx: ctx.results["triage"]["urgent"], report, otherwise=shelve),
    )


async def coordinate(state: Client) -> dict[str, Any]:
    """Run the workflow, or go on with it, once whoever did so before is gone."""
    async with Agent(state, "coordinator", ttl=TTL, wait=60) as coordinator:
        return await plan(coordinator).run(state, RUN, REQUEST, ttl=TTL)


def main(address: str, namespace: str) -> None:
    async def run() -> None:
        async with comity.connect(address, namespace=namespace, author="runner") as state:
            await coordinate(state)

    asyncio.run(run())
