"""A process that writes into a ledger while it holds its lock, over and over, without ever asking if it still does."""

import asyncio
import os

import comity
from comity.recipes import Lock

NAME = "ledger"


async def keep(address: str, namespace: str, author: str, ttl: float) -> None:
    async with comity.connect(address, namespace=namespace, author=author) as state:
        while True:
            lock = Lock(state, NAME, ttl)
            guard = await acquire(lock)
            line = 0
            try:
                while True:
                    line += 1
                    await state.put(NAME, {"fence": guard.fence, "line": line, "pid": os.getpid()}, guard=guard)
            except comity.LeaseLost:
                await state.put(f"refused/{guard.fence}", line)


async def acquire(lock: Lock) -> comity.LeaseGuard:
    """What its writes are guarded by: two numbers, which no client can look up by itself."""
    fence = await lock.acquire()
    return comity.LeaseGuard(fence, fence)


def main(address: str, namespace: str, author: str, ttl: str) -> None:
    asyncio.run(keep(address, namespace, author, float(ttl)))
