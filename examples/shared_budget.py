"""Ten agents, each a process of its own, spend from one budget until nothing is left.

They all read it, think, and write it back, at the same time. Run it with `python examples/shared_budget.py`: it starts
a server, watches the budget, prints each change, and at the end adds up what everybody spent.
"""

import asyncio
import random
import sys

import comity
from own_server import own_server

BUDGET = 150
AGENTS = 10


class NothingLeft(Exception):
    """Raised in a transaction, it rolls the transaction back."""


async def agent(address: str, name: str) -> None:
    """Spend a little at a time for as long as there is something left."""
    async with comity.connect(address, author=name, timeout=60) as state:

        async def spend(tx: comity.Transaction) -> None:
            budget = await tx.get("budget")
            if budget is None or budget.value == 0:
                raise NothingLeft
            mine = await tx.get(f"spent/{name}")
            await asyncio.sleep(0.01)  # thinks; meanwhile somebody else may be faster, and then this runs again
            amount = min(random.randint(1, 9), budget.value)
            tx.put("budget", budget.value - amount)
            tx.put(f"spent/{name}", (mine.value if mine else 0) + amount)

        await state.put(f"ready/{name}", True)
        await anext(aiter(state.watch(key="budget", from_revision=1)))  # the start signal
        while True:
            try:
                await state.transact(spend, message="a good cause")
            except NothingLeft:
                return
            await asyncio.sleep(random.uniform(0, 0.05))  # does what it paid for


async def everybody(state: comity.Client) -> None:
    """Wait until each agent has said that it is there."""
    async with state.watch("ready/", from_revision=1) as watch:
        for _ in range(AGENTS):
            await anext(watch)


async def watch(state: comity.Client) -> None:
    """Print each change of the budget, until it is used up."""
    async for event in state.watch(key="budget", from_revision=1, previous=True):
        if isinstance(event, comity.Resync):
            continue
        before = event.previous.value if event.previous else 0
        print(f"revision {event.revision:>2}  {event.author:<8} {before:>3} -> {event.entry.value:>3}", flush=True)
        if event.entry.value == 0:
            return


async def start(address: str, name: str) -> asyncio.subprocess.Process:
    """Start an agent. In a session of its own, so that Ctrl-C reaches this program alone, which ends the agents."""
    return await asyncio.create_subprocess_exec(sys.executable, __file__, address, name, start_new_session=True)


async def main(address: str) -> None:
    async with comity.connect(address, author="treasurer") as state:
        await state.wait_for_ready()
        names = [f"agent-{number}" for number in range(AGENTS)]
        agents: list[asyncio.subprocess.Process] = []
        try:
            for name in names:
                agents.append(await start(address, name))  # noqa: PERF401 - what was started is ended in any case
            ends = [asyncio.create_task(process.wait()) for process in agents]
            ready = asyncio.create_task(everybody(state))
            await asyncio.wait([ready, *ends], return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                sys.exit("an agent ended before all were ready")
            await state.put("budget", BUDGET)
            await watch(state)
            failed = any(await asyncio.gather(*ends))
        finally:
            for process in agents:
                if process.returncode is None:
                    process.terminate()
            await asyncio.gather(*(process.wait() for process in agents))
        spent = {entry.key: entry.value async for entry in state.list("spent/")}
        print(f"{len(spent)} agents spent {sum(spent.values())} of {BUDGET}")
        if failed or sum(spent.values()) != BUDGET:
            sys.exit("the sum is wrong")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        asyncio.run(agent(sys.argv[1], sys.argv[2]))
    else:
        try:
            with own_server() as address:
                asyncio.run(main(address))
        except KeyboardInterrupt:
            sys.exit(130)
