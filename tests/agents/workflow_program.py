"""A process that runs a workflow: `python -m tests.agents.workflow_program ADDRESS NAMESPACE RUN TTL`.

It writes the results to standard output, and ends with 3 if it has lost the run.
"""

import asyncio
import json
import sys
from typing import Any

import comity
from comity.agents import RunContext, StepContext, Workflow, each, parallel, sequence, when

LOST = 3


async def work(ctx: StepContext) -> None:
    """Something that must happen once, some of it in a place that others write to as well."""
    name = ctx.step if ctx.index is None else f"{ctx.step}[{ctx.index}]"

    async def note(tx: comity.Transaction) -> None:
        entry = await tx.get(f"log/{ctx.run_id}")
        tx.put(f"log/{ctx.run_id}", [*(entry.value if entry else ()), name])

    ctx.increment(f"effects/{ctx.run_id}/{name}")
    ctx.transact(note)
    await ctx.state.put(name, ctx.attempt)
    await asyncio.sleep(0.005)  # so that there is a time to be killed in


async def triage(ctx: StepContext) -> list[int]:
    await work(ctx)
    return list(range(ctx.input))


async def fetch(ctx: StepContext) -> int:
    await work(ctx)
    return int(ctx.item) ** 2


async def clean(ctx: StepContext) -> str:
    await work(ctx)
    return f"cleaned {len(ctx.results['triage'])}"


async def optimise(ctx: StepContext) -> str:
    await work(ctx)
    return f"{ctx.results['clean']}, optimised"


async def report(ctx: StepContext) -> dict[str, Any]:
    await work(ctx)
    return {"total": sum(ctx.results["fetch"]), "how": ctx.results["optimise"]}


async def apologise(ctx: StepContext) -> None:
    await work(ctx)


async def publish(ctx: StepContext) -> list[str]:
    await work(ctx)
    return sorted(ctx.results)


def any_data(ctx: RunContext) -> bool:
    return any(ctx.results["fetch"])


async def hold(ctx: StepContext) -> str:
    """Waits for the key `go`."""
    ctx.increment(f"effects/{ctx.run_id}/hold")
    async with ctx.client.watch(key="go", initial=True) as watch:
        async for change in watch:
            if change.entries if isinstance(change, comity.Resync) else change.is_put:
                break
    return "held"


flow = Workflow(
    "crash",
    triage,
    parallel(each(fetch, lambda ctx: ctx.results["triage"], concurrency=2), sequence(clean, optimise)),
    when(any_data, report, otherwise=apologise),
    publish,
)
holding = Workflow("hold", hold)


async def main(address: str, namespace: str, name: str, run_id: str, ttl: str) -> int:
    async with comity.connect(address, namespace=namespace, author="child") as state:
        try:
            results = await {"crash": flow, "hold": holding}[name].run(state, run_id, 4, ttl=float(ttl))
        except comity.LeaseLost as lost:
            print(lost, file=sys.stderr)
            return LOST
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
