"""How long, and how often, what Redis fails at is tried again."""

import asyncio
import random
from typing import Final

from comity_server.stores.redis.failures import Passing

GIVE_UP_SECONDS: Final = 3.0  # how long a call is tried again while Redis cannot be reached
BACKOFF_SECONDS: Final = (0.02, 0.5)  # the first and the longest wait between two attempts, before the jitter


class Patience:
    """How long something is tried again."""

    def __init__(self, since: float) -> None:
        """since: when Redis was there last, by the clock of the event loop."""
        self.tries = 0
        self._deadline = since + GIVE_UP_SECONDS

    async def wait(self, error: Passing) -> None:
        """Wait until the next attempt. Raises the failure if it was tried for long enough."""
        pause = backoff(self.tries)
        self.tries += 1
        if asyncio.get_running_loop().time() + pause > self._deadline:
            raise error.failure from error.__cause__
        await asyncio.sleep(pause)


def backoff(attempt: int) -> float:
    """Seconds to wait before another attempt: exponential, with full jitter (Brooker, "Exponential Backoff And
    Jitter", AWS 2015)."""
    first, longest = BACKOFF_SECONDS
    return random.uniform(0, min(longest, first * 2**attempt))
