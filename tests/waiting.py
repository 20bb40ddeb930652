"""Waits for conditions that nothing announces."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

LOOK_SECONDS = 0.005
PAUSE_SECONDS = 1.0  # that may pass between two looks: what is more, the machine stood still


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 60) -> None:
    """Return as soon as the condition holds. Raises TimeoutError if it does not within so many seconds."""
    patience = _Patience(seconds)
    while True:
        holds = condition()
        if inspect.isawaitable(holds):
            async with asyncio.timeout(seconds):
                holds = await holds
        if holds:
            return
        patience.look()
        await asyncio.sleep(LOOK_SECONDS)


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """The same where there is no event loop."""
    patience = _Patience(seconds)
    while not condition():
        patience.look()
        time.sleep(LOOK_SECONDS)


class _Patience:
    """Goes by the monotonic clock, which goes on while a machine stands still: such a pause counts as a second."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._looked = time.monotonic()

    def look(self) -> None:
        """Raise TimeoutError if the time is up."""
        now = time.monotonic()
        self._left -= min(now - self._looked, PAUSE_SECONDS)
        self._looked = now
        if self._left < 0:
            raise TimeoutError
