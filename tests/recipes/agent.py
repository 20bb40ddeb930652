"""An agent in a process of its own: `agent.py lock|semaphore|lead|queue|barrier NAME TTL`.

It says `held FENCE` once it holds what it is named. A line `write KEY` has it write there, under its fence and without
asking first whether it still holds it: it says `written` or `refused`. A line `ack` acknowledges its item.

`agent.py work NAME TTL` does what a queue has, for ever: `claimed ID`, `done ID`.
"""

import asyncio
import sys

import comity
from comity import LeaseGuard, LeaseLost
from comity.recipes import Barrier, Election, Item, Lock, Queue, Semaphore
from comity.recipes.holder import Holder


async def hold(state: comity.Client, what: str, name: str, ttl: float) -> Holder | Item | None:
    match what:
        case "lock":
            lock = Lock(state, name, ttl)
            await lock.acquire()
            return lock
        case "semaphore":
            semaphore = Semaphore(state, name, 2, ttl)
            await semaphore.acquire()
            return semaphore
        case "lead":
            election = Election(state, name, ttl)
            await election.campaign("agent")
            return election
        case "queue":
            return await Queue(state, name, ttl).get()
        case "barrier":
            await Barrier(state, name, 3, ttl).wait()
    return None


async def work(state: comity.Client, name: str, ttl: float) -> None:
    queue = Queue(state, name, ttl, tries=1_000)
    while True:
        async with queue.claim() as item:
            print("claimed", item.id, flush=True)
            await state.put("working", item.id, guard=item)
            await item.ack(lambda tx: tx.put(f"done/{item.id}", item.fence))
            print("done", item.id, flush=True)


async def main() -> None:
    what, name, ttl = sys.argv[1:]
    async with comity.connect(author="agent") as state:
        if what == "work":
            await work(state, name, float(ttl))
        held = await hold(state, what, name, float(ttl))
        print("held", held.fence if held is not None else 0, flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            assert held is not None
            try:
                if line.startswith("write"):
                    await state.put(line.split()[1], "agent", guard=LeaseGuard(held.lease.id, held.fence))
                elif isinstance(held, Item):
                    await held.ack()
                print("written", flush=True)
            except LeaseLost:
                print("refused", "alive" if held.lease.alive else "lost", flush=True)


asyncio.run(main())
