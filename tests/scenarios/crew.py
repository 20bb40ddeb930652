"""What the agents of scenarios do, each as a function of a module: they run as processes too."""

import asyncio
import contextlib
import hashlib
import os
import random
from collections.abc import Awaitable, Callable
from typing import Any

import comity
from comity import Client, LeaseLost, Resync, Transaction
from comity.agents import Agent, HandoffMessage, Role
from comity.recipes import Queue

GATE = "gate"  # whoever is to wait until the scenario says so waits for this key
WORKERS = Role("worker")
WORKERS_QUEUE = "role:worker"
FREELANCER = "freelancer"


async def opened(state: Client, key: str = GATE) -> None:
    """Wait until the key is there."""
    async with state.watch(key=key, initial=True) as watch:
        async for item in watch:
            if item.entries if isinstance(item, Resync) else item.is_put:
                return


async def study(agent: Agent, topic: str, team: int) -> None:
    """Note something for itself, tell the others, and say what they all have told."""
    await agent.report("studying", progress=0.5, detail={"topic": topic})
    await agent.memory.put("notes", {"topic": topic, "by": agent.name})

    async def tell(tx: Transaction) -> None:
        board = await tx.get("board")
        tx.put("board", {**(board.value if board else {}), agent.name: topic})

    await agent.transact(tell)
    async with agent.state.watch(key="board", initial=True) as watch:
        async for item in watch:
            entry = item.entries[0] if isinstance(item, Resync) else item.entry
            if len(entry.value) == team:
                break
    await agent.report("studied", progress=1.0, detail=entry.value)
    await opened(agent.state)


async def receive(agent: Agent) -> None:
    """Give back whatever is handed over, with the digest of the file that came along."""
    async for message in agent.inbox():
        assert isinstance(message, HandoffMessage)
        file = await agent.state.get(message.context["file"])
        assert file is not None
        result = {"context": message.context, "file": hashlib.sha256(file.data).hexdigest()}
        await message.done(result, also=lambda tx, id=message.handoff_id: tx.increment(f"received/{id}"))  # type: ignore[misc]


async def analyse(agent: Agent, number: int) -> dict[str, int]:
    if number == 7:
        raise ValueError("7 cannot be analysed")
    return {"number": number, "square": number * number}


async def count(agent: Agent, to: int, gate_at: int) -> None:
    """Count in private state as far as whoever asks says, and wait on the way until the gate is open."""
    async for message in agent.inbox():
        while (done := await agent.memory.value("count", 0)) < to:
            if done == gate_at:
                await agent.checkpoint("half-way")
                await agent.memory.put("scratch", agent.fence)
                await agent.report("half-way", progress=done / to)
                await opened(agent.state)
            await agent.memory.put("count", done + 1)
        await message.ack(also=lambda tx: tx.increment("counted"))


async def trade(agent: Agent, accounts: int, seed: int) -> None:
    """Move money between accounts until the gate is open, and tally the moves both in private and for all."""
    chance = random.Random(f"{seed} {agent.fence}")

    async def move(tx: Transaction) -> bool:
        if await tx.get(GATE) is not None:
            return False
        one, other = (f"accounts/{number}" for number in chance.sample(range(accounts), 2))
        source, target, moves = await tx.get(one), await tx.get(other), await tx.get("moves")
        assert source is not None
        assert target is not None
        own, life = agent.memory.within(tx), f"{agent.fence}"
        tally = await own.get(life)
        tx.put(one, source.value - 1)
        tx.put(other, target.value + 1)
        tx.put("moves", moves.value + 1 if moves else 1)
        own.put(life, tally.value + 1 if tally else 1)
        return True

    while await agent.transact(move):
        pass


async def do_items(agent: Agent) -> None:
    """Do one item after another, in steps, and write down who has done it along with saying so."""
    async for message in agent.inbox():
        await agent.memory.put("item", message.body)
        await agent.report(f"doing {message.body}")
        await message.ack(also=done_by(message.body, agent.name, agent.fence))


def done_by(item: str, name: str, fence: int) -> Callable[[Transaction], Awaitable[None]]:
    """Writes down who has done an item, and if it was done before."""

    async def write(tx: Transaction) -> None:
        if await tx.get(f"done/{item}") is not None:
            tx.put(f"done-twice/{item}", name)
        tx.put(f"done/{item}", {"by": name, "fence": fence})

    return write


def freelance(address: str, namespace: str, ttl: str) -> None:
    """A process that does what is sent to the workers, as a program that knows of their queue alone. It never looks
    whether it still has what it has taken, and nothing tells it."""

    async def run() -> None:
        async with comity.connect(address, namespace=namespace, author=FREELANCER, timeout=60) as state:
            queue = Queue(state, WORKERS_QUEUE, float(ttl))
            while True:
                item = await queue.get()
                name = item.value["body"]
                await state.put(f"freelance/{name}", os.getpid())
                with contextlib.suppress(LeaseLost):
                    await item.ack(done_by(name, FREELANCER, item.guard.fence))

    asyncio.run(run())


async def specialise(agent: Agent) -> None:
    """Do what is handed to its role, and count how often it was done for whom."""
    async for message in agent.inbox():
        assert isinstance(message, HandoffMessage)
        if agent.role == "optimisation":
            await opened(agent.state)
        result = SKILLS[agent.role](message.context)
        await message.done(result, also=lambda tx, sender=message.sender: tx.increment(f"work/{sender}"))  # type: ignore[misc]


SKILLS: dict[str, Any] = {
    "triage": lambda request: {"topics": sorted(request["topics"]), "urgent": request["priority"] > 3},
    "data": lambda topic: {"topic": topic, "rows": [len(topic)] * 3},
    "optimisation": lambda tables: {table["topic"]: sum(table["rows"]) for table in tables},
    "reporting": lambda best: ", ".join(f"{topic}: {total}" for topic, total in sorted(best.items())),
}
