"""Lets others in between the steps of what takes long."""

import asyncio
from typing import Final

_STEPS: Final = 1_000  # about as many as may be done in one go: each takes some µs


class Pace:
    def __init__(self) -> None:
        self._steps = 0

    async def step(self, count: int = 1) -> None:
        """So many more steps were done."""
        self._steps += count
        if self._steps >= _STEPS:
            self._steps = 0
            await asyncio.sleep(0)
