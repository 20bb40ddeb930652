"""How tasks of asyncio end."""

import asyncio
from typing import Any, Final

FIRST_SECONDS: Final = 0.1  # after which a cancellation counts as lost; then twice as long
MOST_SECONDS: Final = 0.4  # where many are lost, as by a follower of a busy log on a Cluster, the next must not be far


async def end(task: "asyncio.Task[Any]") -> None:
    """Cancel a task until it ends: redis-py loses a cancellation that comes while it connects. How it ended is not
    looked at; what it still does by then, as to close connections, is given some time."""
    patience = FIRST_SECONDS
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=patience)
        patience = min(patience * 2, MOST_SECONDS)


def unforeseen(error: asyncio.CancelledError) -> Exception:
    """What a cancellation that nobody asked a task for is told as: as itself it would cancel whoever waits."""
    failure = RuntimeError("a task was cancelled")
    failure.__cause__ = error
    return failure
