"""Shares out the event loop among the namespaces whose writes take long to judge: a little in each of its rounds.

A round is what the loop goes through before it comes to what arrived meanwhile. Each namespace has a lane of its own,
and if each of them took its time in the same round, all others would wait for the sum.
"""

import asyncio
import time
from typing import Final

_SECONDS: Final = 0.002  # of a round, after which no lane goes on with what takes long
_MOST: Final = 0.05  # likewise, after which none begins with anything: what arrives together is durable together
SHORT: Final = 0.0005  # what is not worth being counted
_STEPS: Final = 1_000  # after which it is looked how late it is: each takes about a µs


class Rounds:
    """One for all lanes of an event loop."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._order = asyncio.Lock()

    def spend(self, seconds: float) -> None:
        """So much of this round was taken."""
        if seconds > SHORT:
            if not self._spent:
                asyncio.get_running_loop().call_soon(self._begin)
            self._spent += seconds

    @property
    def is_over(self) -> bool:
        """Whether no lane may take more of this round than it has begun with."""
        return self._spent >= _SECONDS

    @property
    def is_full(self) -> bool:
        """Whether no lane may begin in this round."""
        return self._spent >= _MOST

    async def turn(self) -> None:
        """Return in a round of which something is left. Whoever waits does so in the order of arrival."""
        if self.is_over:
            async with self._order:
                while self.is_over:  # noqa: ASYNC110 - it is the next round that has to come
                    await asyncio.sleep(0)

    def _begin(self) -> None:
        self._spent = 0.0


class Stint:
    """What a lane does from its turn on, and where it lets the others have theirs. `begun` is when its turn last began,
    by the monotonic clock."""

    __slots__ = ("_rounds", "_steps", "begun")

    def __init__(self, rounds: Rounds, begun: float) -> None:
        self.begun = begun
        self._rounds = rounds
        self._steps = 0

    def resume(self) -> None:
        """Go on after something was waited for, which took nothing of a round."""
        self.begun = time.monotonic()

    async def step(self, count: int = 1) -> None:
        """So many more steps were done."""
        self._steps += count
        if self._steps >= _STEPS:
            self._steps = 0
            now = time.monotonic()
            if now - self.begun > SHORT:
                self._rounds.spend(now - self.begun)
                self.begun = now
            if self._rounds.is_over:
                await self._rounds.turn()
                self.resume()
