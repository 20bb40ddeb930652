"""What tests do with queues."""

from comity import Client
from comity.recipes import Queue


async def take(queue: Queue) -> object:
    async with queue.claim(timeout=30) as item:
        return item.value


async def left(state: Client) -> list[str]:
    """Which keys there are, but for the counter of numbers."""
    return [entry.key async for entry in state.list("queues/") if not entry.key.endswith("/tail")]
